// Calls seen before they run on a card: what one asks of it, and whether TTNN would take it.
#pragma once

#include <functional>

#include "ttt/hw/roofline.h"
#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

// cost() as a card of such a mesh meets it: tensors in L1 cost no DRAM, matrices have whole tiles of rows,
// collectives pass a line of neighbours.
hw::OpWork work(const OpCall&, const Mesh&);

// Refuses what TTNN would refuse of a call on this SKU, with the reason and what to change (ttt/hw/check.h):
// placements, program configs, L1. What the TTNN backend composes of simpler ops is taken. Error "[op] ..".
void check(const Sku&, const OpCall&);

// What a backend that computes nothing (null) derives from besides Backend, for planners.
class CallSource {
 public:
  virtual ~CallSource();
  // The listener is told of every call; an empty one ends that.
  virtual void on_call(std::function<void(const OpCall&)>) = 0;
  // Forgets the peak_bytes() of before.
  virtual void reset_peak() = 0;
};
// The backend as one; Error where it is none.
CallSource& call_source(Backend&);

}  // namespace ttt::inline v2
