#include "ttt/ops/trace.h"

#include "ttt/base/error.h"
#include "ttt/ops/step_traces.h"

namespace ttt::inline v2 {

namespace {

// Traces that a device keeps: each holds its commands in device memory.
constexpr std::size_t most_traces = 8;
// Steps of one key that differ from the trace before the key is left alone.
constexpr int most_misfits = 3;

StepTraces& steps_of(Backend& backend) {
  if (!can_trace(backend))
    throw Error("the device cannot record a trace", backend.description(),
                "run the calls one by one, or use a card");
  return dynamic_cast<Tracer&>(backend).steps();
}

}  // namespace

Trace::~Trace() = default;
Tracer::~Tracer() = default;

bool can_trace(const Backend& backend) {
  const auto* tracer = dynamic_cast<const Tracer*>(&backend);
  return tracer != nullptr && tracer->can_trace();
}

TracedStep::TracedStep(Backend& backend, const std::string& key) : steps_(steps_of(backend)) {
  steps_.begin(key);
}
TracedStep::~TracedStep() { steps_.end(); }

void StepTraces::begin(const std::string& key) {
  end();
  current_ = &known_[key];
  current_->last_used = ++clock_;
  waits_ = ++current_->runs > 1 && current_->misfits < most_misfits;
}

void StepTraces::end() {
  waits_ = false;
  if (current_ != nullptr && current_->misfits >= most_misfits) current_->trace.reset();
  current_ = nullptr;
  queue_.clear(), numbers_.clear(), promised_.clear(), inputs_.clear(), calls_.clear();
}

std::size_t StepTraces::traces() const {
  std::size_t count = 0;
  for (const auto& [key, recorded] : known_) count += recorded.trace != nullptr;
  return count;
}

StepTraces::Operand StepTraces::operand(const Tensor& t) const {
  const auto own = numbers_.find(&t.buffer());
  Operand o{.spec = t.spec(), .strides = t.strides(), .offset = t.offset()};
  if (own != numbers_.end())
    o.own = own->second;
  else
    o.outside = t.buffer_ptr();
  return o;
}

bool StepTraces::Operand::operator==(const Operand& other) const {
  return own == other.own && spec == other.spec && strides == other.strides && offset == other.offset &&
         !outside.owner_before(other.outside) && !other.outside.owner_before(outside);
}

StepTraces::Seen StepTraces::seen(const OpCall& call) const {
  Seen s{.op = call.op, .attributes = call.attributes};
  for (int i = 0; i < OpCall::max_inputs; ++i)
    s.inputs.push_back(call.has(i) ? operand(call.in(i)) : Operand{});
  s.outputs.assign(call.output_specs.begin(), call.output_specs.begin() + call.outputs_count);
  return s;
}

void StepTraces::call(OpCall& call) {
  Seen now = seen(call);
  if (current_->trace &&
      (queue_.size() >= current_->calls.size() || !(now == current_->calls[queue_.size()]))) {
    give_up();
    return backend_.run(call);
  }
  if (!current_->trace) calls_.push_back(std::move(now));
  Waiting& w = queue_.emplace_back();
  w.call = call;
  w.call.reusable = 0;
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i)) w.inputs[static_cast<std::size_t>(i)] = call.in(i);
  }
  for (int i = 0; i < call.outputs_count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    call.outputs[at] = w.promised[at] = backend_.allocate(call.output_specs[at]);
    number(call.outputs[at]);
    promised_.push_back(call.outputs[at].buffer_ptr());
  }
}

const Tensor* StepTraces::input(const Tensor& t) {
  const std::size_t i = inputs_.size();
  if (current_->trace && (i >= current_->inputs.size() || !(current_->inputs[i].spec() == t.spec()))) {
    give_up();
    return nullptr;
  }
  inputs_.push_back(t);
  number(t);
  if (!current_->trace) return nullptr;
  tracer_.bind(t, current_->inputs[i]);
  return &current_->inputs[i];
}

void StepTraces::before_read(const Tensor& t) {
  const Operand read = operand(t);
  if (read.own < 0) return;
  for (const Tensor& input : inputs_) {
    if (&input.buffer() == &t.buffer()) return;  // written already
  }
  if (!current_->trace) return record(t);
  if (queue_.size() != current_->calls.size() || read.own != current_->result_number) return give_up();
  waits_ = false;
  queue_.clear();
  ++replays_;
  current_->trace->replay();
  tracer_.bind(t, current_->result);
}

// The waiting calls one after the other; what none of the later ones needs is freed on the way.
void StepTraces::run_waiting() {
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
      tracer_.bind(w.promised[at], w.call.outputs[at]);
    }
  }
}

// This step is not the recorded one.
void StepTraces::give_up() {
  ++current_->misfits;
  current_->trace.reset();
  current_->calls.clear(), current_->inputs.clear();
  current_->result = {};
  run_waiting();
}

void StepTraces::record(const Tensor& result) {
  Recorded& r = *current_;
  r.result_number = operand(result).own;
  try {
    r.trace = tracer_.record([&] { run_waiting(); });
  } catch (const std::exception& error) {
    r.misfits = most_misfits;
    throw TraceRefused(error.what());
  }
  ++replays_;
  r.trace->replay();
  // What else is alive belongs to a later part of the step, which a replay would not give its tensors.
  bool complete = true;
  for (const std::weak_ptr<Buffer>& promised : promised_) {
    const std::shared_ptr<Buffer> alive = promised.lock();
    complete = complete && (!alive || alive.get() == &result.buffer());
  }
  if (!complete) {
    r.misfits = most_misfits;  // it is released once it has run
    return;
  }
  r.calls = std::move(calls_);
  r.inputs = inputs_;
  r.result = result;
  drop_oldest();
}

void StepTraces::drop_oldest() {
  if (traces() <= most_traces) return;
  auto oldest = known_.end();
  for (auto it = known_.begin(); it != known_.end(); ++it) {
    if (it->second.trace && (oldest == known_.end() || it->second.last_used < oldest->second.last_used))
      oldest = it;
  }
  known_.erase(oldest);
}

}  // namespace ttt::inline v2
