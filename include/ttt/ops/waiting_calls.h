// For backends whose device runs nothing while it records (ttt/ops/trace.h): the calls of a trace wait until
// all of its inputs are written.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

class WaitingCalls {
 public:
  // bind(promised, made): the memory of `promised`, which allocate() gave, is `made`'s from here on.
  WaitingCalls(Backend& backend, std::function<void(const Tensor& promised, const Tensor& made)> bind)
      : backend_(backend), bind_(std::move(bind)) {}

  void begin() { waits_ = true; }
  bool waits() const { return waits_; }
  void call(OpCall&);  // instead of run(): its results are promised
  void run();          // all that wait; later calls do not
  // Whether `result` is all that is left of what was promised: a replay makes nothing else.
  bool leave_only(const Tensor& result) const;
  void clear();

 private:
  struct Waiting {
    OpCall call{};
    std::array<Tensor, OpCall::max_inputs> inputs{};
    std::array<Tensor, OpCall::max_outputs> promised{};
  };

  Backend& backend_;
  std::function<void(const Tensor&, const Tensor&)> bind_;
  bool waits_ = false;
  std::deque<Waiting> queue_;
  std::vector<std::weak_ptr<Buffer>> promised_;
};

}  // namespace ttt::inline v2
