#include "cpu_trace.h"

#include <algorithm>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2::cpu {

CpuTrace::CpuTrace(CpuDevice& device) : device_(device), device_arena_(device.arena()) {}

CpuTrace::~CpuTrace() { device_arena_->count(-static_cast<std::ptrdiff_t>(held_)); }

bool CpuTrace::finish(const Tensor& result) {
  held_ = arena_->peak_bytes();
  device_arena_->count(static_cast<std::ptrdiff_t>(held_));
  const std::vector<std::weak_ptr<Buffer>> made = std::move(made_);
  keep_result(result);
  return keeps_memory_ && std::ranges::all_of(made, [&](const std::weak_ptr<Buffer>& buffer) {
           return buffer.expired() || buffer.lock() == result.buffer_ptr();
         });
}

// Memory of the trace's arena under a handle that does not hold it.
std::shared_ptr<Buffer> CpuTrace::same_memory(const CpuBuffer& buffer) {
  return std::make_shared<CpuBuffer>(buffer, CpuBuffer::Alias());
}

void CpuTrace::allocated(const std::shared_ptr<CpuBuffer>& buffer) {
  keeps_memory_ = keeps_memory_ && buffer->bytes() <= Arena::most_kept;
  results_.push_back(same_memory(*buffer));
  made_.push_back(buffer);
}

void CpuTrace::end_call(const OpCall& call) {
  in_call_ = false;
  const auto result_lies_in = [&](const Tensor& operand) {
    for (int i = 0; i < call.outputs_count; ++i) {
      if (call.outputs[static_cast<std::size_t>(i)].buffer_ptr() == operand.buffer_ptr()) return true;
    }
    return false;
  };
  Call done{.call = call, .operands = {}, .results = std::exchange(results_, {})};
  done.call.outputs = {};
  done.call.reusable = 0;
  bool is_view = false;
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (!call.has(i)) continue;
    const Tensor& t = call.in(i);
    if (result_lies_in(t)) {
      done.call.reusable |= call.reusable & 1u << i;
      is_view = is_view || (call.reusable >> i & 1u) == 0;
    }
    const CpuBuffer& buffer = cpu_buffer(t);
    done.operands.push_back(
        buffer.arena() == arena_.get() ? Tensor(same_memory(buffer), t.spec(), t.strides(), t.offset()) : t);
  }
  if (is_view && done.results.empty()) return;  // nothing was computed
  calls_.push_back(std::move(done));
  Call& kept = calls_.back();
  std::size_t next = 0;
  for (int i = 0; i < OpCall::max_inputs; ++i)
    kept.call.inputs[static_cast<std::size_t>(i)] = call.has(i) ? &kept.operands[next++] : nullptr;
}

// Where a call's only output is the result and no call reads it, its memory is the caller's, and a replay
// makes it in memory of its own; else all replays make it in the same place. The recorded one lies where
// replays write: it stays shared, so that nobody takes its memory for his own.
void CpuTrace::keep_result(const Tensor& result) {
  result_ = result;
  if (cpu_buffer(result).arena() != arena_.get()) return;
  const auto lies_there = [&](const std::shared_ptr<Buffer>& buffer) {
    return static_cast<const CpuBuffer&>(*buffer).raw() == cpu_buffer(result).raw();
  };
  for (std::size_t i = calls_.size(); i-- > 0;) {
    Call& call = calls_[i];
    if (std::ranges::any_of(call.operands, [&](const Tensor& t) { return lies_there(t.buffer_ptr()); }))
      return;
    if (std::ranges::none_of(call.results, lies_there)) continue;
    if (call.results.size() > 1 || call.call.outputs_count > 1) return;
    call.results[0].reset();
    made_by_ = i;
    return;
  }
}

const std::shared_ptr<Buffer>& CpuTrace::next_result() {
  if (next_ == current_->results.size())
    throw Error("a kernel needs more memory than when it was recorded", std::string(label(current_->call)),
                "report it");
  return current_->results[next_++];
}

Tensor CpuTrace::replay() {
  struct Replaying {
    CpuDevice& device;
    Replaying(CpuDevice& of, CpuTrace& trace) : device(of) { device.set_replaying(&trace); }
    ~Replaying() { device.set_replaying(nullptr); }
  } const replaying(device_, *this);
  for (Call& call : calls_) {
    current_ = &call;
    next_ = 0;
    device_.run_kernel(call.call);
    // An operand that the kernel writes over has one owner the next time too.
    if (call.call.reusable != 0) call.call.outputs[0] = {};
  }
  if (!made_by_) return result_;
  const Tensor made = std::move(calls_[*made_by_].call.outputs[0]);
  return Tensor(made.buffer_ptr(), result_.spec(), result_.strides(), result_.offset());
}

}  // namespace ttt::inline v2::cpu
