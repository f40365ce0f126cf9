// Intermediates kept: what a forward showed, under full names, in the order of execution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/debug/tap.h"

namespace ttt::inline v2::debug {

// "attn.q" in layer 3: "layers.3.attn.q"; the output of the layer itself (no name): "layers.3".
std::string full_name(std::string_view name, int layer);
// The layer that such a name has, -1: none.
int layer_of(std::string_view full_name);

struct Intermediate {
  std::string tap;                      // full name
  std::int64_t rows = 0, features = 0;  // heads of a row stand side by side
  std::vector<float> values;            // row-major
};

// Keeps what the taps show during its lifetime, on the host. A name that comes again is the same intermediate
// of the next rows (a prompt in pieces, decode steps); within one step (see next_step) it is kept as
// "name@2", "name@3": layers that run several times.
class Capture {
 public:
  using Selection = std::function<bool(std::string_view full_name)>;
  explicit Capture(Selection selection = {});  // empty: everything
  void next_step() { seen_.clear(); }
  const std::vector<Intermediate>& intermediates() const { return kept_; }
  std::vector<Intermediate> take() { return std::move(kept_); }

 private:
  void keep(const Tensor&, std::string_view name, int layer);

  Selection selection_;
  std::vector<Intermediate> kept_;
  std::map<std::string, std::size_t, std::less<>> at_;
  std::map<std::string, int, std::less<>> seen_;
  TapScope scope_;
};

}  // namespace ttt::inline v2::debug
