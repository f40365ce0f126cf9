// A recorded step on the processor: its kernels' calls, one after the other, with operands and results where
// they lay. Replaying it runs no module, no check and no allocation.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "cpu_device.h"
#include "ttt/ops/trace.h"

namespace ttt::inline v2::cpu {

class CpuTrace final : public Trace {
 public:
  explicit CpuTrace(CpuDevice&);
  ~CpuTrace() override;
  Tensor replay() override;

  // While it is recorded. What kernels ask for comes from an arena of the trace's own and is given out again
  // as it becomes free, so a replay finds it in the same order, and what is held is what one step needs.
  void begin_call() { in_call_ = true; }
  bool in_call() const { return in_call_; }
  const std::shared_ptr<Arena>& arena() const { return arena_; }
  void allocated(const std::shared_ptr<CpuBuffer>&);
  void end_call(const OpCall&);
  // Ends it: whether a replay has all that it needs, and nobody anything that it makes but `result`.
  bool finish(const Tensor& result);

  // While it is replayed: the buffer that the call under way got for its next result; null: a new one.
  const std::shared_ptr<Buffer>& next_result();

 private:
  struct Call {
    OpCall call{};
    std::vector<Tensor> operands{};
    std::vector<std::shared_ptr<Buffer>> results{};  // as the kernel asked for them
  };
  static std::shared_ptr<Buffer> same_memory(const CpuBuffer&);
  void keep_result(const Tensor&);

  CpuDevice& device_;
  const std::shared_ptr<Arena> device_arena_, arena_ = std::make_shared<Arena>();
  std::vector<Call> calls_;
  std::vector<std::shared_ptr<Buffer>> results_;  // of the call that runs
  std::vector<std::weak_ptr<Buffer>> made_;
  bool in_call_ = false, keeps_memory_ = true;
  std::size_t held_ = 0;
  Tensor result_{};                       // as it was recorded
  std::optional<std::size_t> made_by_{};  // the call whose output it is, where each replay makes a new one
  const Call* current_ = nullptr;         // of a replay
  std::size_t next_ = 0;
};

}  // namespace ttt::inline v2::cpu
