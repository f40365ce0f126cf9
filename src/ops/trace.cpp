#include "ttt/ops/trace.h"

#include <algorithm>

#include "ttt/base/error.h"
#include "ttt/ops/waiting_calls.h"

namespace ttt::inline v2 {

Trace::~Trace() = default;
Tracer::~Tracer() = default;

bool can_trace(const Backend& backend) {
  const auto* tracer = dynamic_cast<const Tracer*>(&backend);
  return tracer != nullptr && tracer->can_trace();
}

Recording::Recording(Backend& backend) : tracer_(dynamic_cast<Tracer*>(&backend)) {
  if (!can_trace(backend))
    throw Error("the device cannot record a trace", backend.description(),
                "run the calls one by one, or use a device that can");
  tracer_->begin_trace();
}
Recording::~Recording() {
  if (tracer_ != nullptr) tracer_->drop_trace();
}
std::unique_ptr<Trace> Recording::end(std::span<const Tensor> inputs, const Tensor& result) {
  std::unique_ptr<Trace> trace = tracer_->end_trace(inputs, result);
  tracer_ = nullptr;
  return trace;
}

bool HostTraffic::only(std::span<const Tensor> inputs) const {
  return !read_ && std::ranges::all_of(written_, [&](const std::shared_ptr<Buffer>& written) {
    return std::ranges::any_of(inputs, [&](const Tensor& input) { return input.buffer_ptr() == written; });
  });
}

void WaitingCalls::call(OpCall& call) {
  Waiting& w = queue_.emplace_back();
  w.call = call;
  w.call.reusable = 0;
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i)) w.inputs[static_cast<std::size_t>(i)] = call.in(i);
  }
  for (int i = 0; i < call.outputs_count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    call.outputs[at] = w.promised[at] = backend_.allocate(call.output_specs[at]);
    promised_.push_back(call.outputs[at].buffer_ptr());
  }
}

// What none of the later calls needs is freed on the way.
void WaitingCalls::run() {
  waits_ = false;
  while (!queue_.empty()) {
    Waiting w = std::move(queue_.front());
    queue_.pop_front();
    for (int i = 0; i < OpCall::max_inputs; ++i) {
      const auto at = static_cast<std::size_t>(i);
      w.call.inputs[at] = w.inputs[at] ? &w.inputs[at] : nullptr;
    }
    backend_.run(w.call);
    for (int i = 0; i < w.call.outputs_count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      bind_(w.promised[at], w.call.outputs[at]);
    }
  }
}

bool WaitingCalls::leave_only(const Tensor& result) const {
  return std::ranges::all_of(promised_, [&](const std::weak_ptr<Buffer>& promised) {
    const std::shared_ptr<Buffer> alive = promised.lock();
    return !alive || alive == result.buffer_ptr();
  });
}

void WaitingCalls::clear() {
  waits_ = false;
  queue_.clear(), promised_.clear();
}

}  // namespace ttt::inline v2
