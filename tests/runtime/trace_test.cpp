// Decode steps on a device that records and replays them: the answers are those of the device without.
#include <gtest/gtest.h>

#include <deque>

#include "ttt/base/error.h"
#include "ttt/model/build.h"
#include "ttt/ops/ops.h"
#include "ttt/ops/trace.h"
#include "ttt/ops/waiting_calls.h"
#include "ttt/runtime/generator.h"

namespace ttt {
namespace {

// A tensor of the processor's backend behind one of the tracing device; bound tensors share it.
struct Slot {
  Tensor inner;
};
class TracingBuffer final : public Buffer {
 public:
  TracingBuffer(Device& device, std::shared_ptr<Slot> of) : Buffer(device), slot(std::move(of)) {}
  std::size_t bytes() const override { return slot->inner.buffer().bytes(); }
  std::shared_ptr<Slot> slot;
};

// The processor's backend, with traces: lists of calls that run again.
class TracingDevice final : public Backend, public Tracer {
 public:
  std::function<bool(const OpCall&)> refuses;  // to record a call
  std::size_t traces = 0, replays = 0;         // alive; so far

  std::string_view name() const override { return "tracing"; }
  std::string description() const override { return "tracing"; }
  Tensor allocate(const TensorSpec& spec) override { return wrap(cpu_->allocate(spec)); }
  void write(const Tensor& t, std::span<const float> v) override { write_to(t, v); }
  void write(const Tensor& t, std::span<const std::int32_t> v) override { write_to(t, v); }
  void read(const Tensor& t, std::span<float> v) override { read_from(t, v); }
  void read(const Tensor& t, std::span<std::int32_t> v) override { read_from(t, v); }
  std::string packing(const WeightSpec& s) const override { return cpu_->packing(s); }
  std::size_t packed_bytes(const WeightSpec& s, std::int64_t rows, std::int64_t cols) const override {
    return cpu_->packed_bytes(s, rows, cols);
  }
  void pack(const WeightSource& w, const WeightSpec& s, std::span<std::byte> out) override {
    cpu_->pack(w, s, out);
  }
  Tensor adopt(const WeightSpec& s, std::int64_t rows, std::int64_t cols, std::span<const std::byte> packed,
               std::shared_ptr<const void> owner) override {
    return wrap(cpu_->adopt(s, rows, cols, packed, std::move(owner)));
  }
  bool supports(const OpCall& call) const override {
    Inner inner(call);
    return cpu_->supports(inner.call);
  }
  void run(OpCall& call) override {
    if (waiting_.waits()) return waiting_.call(call);
    if (!recording_) {
      Inner inner(call);
      cpu_->run(inner.call);
      for (std::size_t i = 0; i < call.outputs.size(); ++i)
        if (inner.call.outputs[i]) call.outputs[i] = wrap(whole(inner.call.outputs[i]));
      return;
    }
    if (refuses && refuses(call)) throw Error("no trace of this");
    for (int i = 0; i < call.outputs_count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      call.outputs[at] = allocate(call.output_specs[at]);
    }
    recording_->emplace_back(*this, call);
  }

  bool can_trace() const override { return true; }
  void begin_trace() override {
    records_ = true;
    waiting_.begin();
  }
  void drop_trace() noexcept override {
    records_ = false;
    waiting_.clear(), traffic_.clear();
  }
  std::unique_ptr<Trace> end_trace(std::span<const Tensor> inputs, const Tensor& result) override {
    struct Ending {
      TracingDevice& device;
      ~Ending() { device.recording_ = nullptr, device.drop_trace(); }
    } const ending{*this};
    if (!traffic_.only(inputs)) {
      waiting_.run();
      return nullptr;
    }
    auto trace = std::make_unique<List>(*this, result);
    recording_ = &trace->calls;
    try {
      waiting_.run();
    } catch (const Error& error) { throw TraceRefused(error.what()); }
    recording_ = nullptr;
    trace->replay();
    return waiting_.leave_only(result) ? std::move(trace) : nullptr;
  }

 private:
  static TracingBuffer& buffer(const Tensor& t) { return static_cast<TracingBuffer&>(t.buffer()); }
  static Tensor inner(const Tensor& t) {
    const Tensor& whole = buffer(t).slot->inner;
    return {whole.buffer_ptr(), t.spec(), t.strides(), t.offset()};
  }
  Tensor wrap(const Tensor& t) {
    return {std::make_shared<TracingBuffer>(*this, std::make_shared<Slot>(Slot{t})), t.spec(), t.strides(),
            t.offset()};
  }
  // The same memory under a handle of its own, as a device's commands name addresses and hold nothing.
  Tensor alias(const Tensor& t) {
    return {std::make_shared<TracingBuffer>(*this, buffer(t).slot), t.spec(), t.strides(), t.offset()};
  }

  // The call on the processor's tensors.
  struct Inner {
    OpCall call;
    std::array<Tensor, OpCall::max_inputs> tensors;
    explicit Inner(const OpCall& outer) : call(outer) {
      call.reusable = 0;
      call.outputs = {};
      for (int i = 0; i < OpCall::max_inputs; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (outer.has(i)) tensors[at] = inner(outer.in(i)), call.inputs[at] = &tensors[at];
      }
    }
  };
  // Where allocate() would have put it: kernels may return parts of their operands.
  static Tensor whole(const Tensor& t) {
    if (t.contiguous() && t.offset() == 0) return t;
    return is_float(t.dtype()) ? from_host(t.device(), to_host(t), t.shape(), t.dtype())
                               : from_host(t.device(), to_host_int(t), t.shape(), t.dtype());
  }

  // A call with its operands.
  struct Held {
    OpCall call;
    std::array<Tensor, OpCall::max_inputs> tensors;
    std::array<Tensor, OpCall::max_outputs> outputs;
    Held(TracingDevice& device, const OpCall& outer) : call(outer) {
      call.outputs = {};
      for (int i = 0; i < OpCall::max_inputs; ++i)
        if (outer.has(i)) tensors[static_cast<std::size_t>(i)] = device.alias(outer.in(i));
      for (std::size_t i = 0; i < outputs.size(); ++i)
        if (outer.outputs[i]) outputs[i] = device.alias(outer.outputs[i]);
    }
  };
  struct List final : Trace {
    List(TracingDevice& of, Tensor made) : device(of), result(std::move(made)) { ++device.traces; }
    ~List() override { --device.traces; }
    Tensor replay() override {
      ++device.replays;
      for (Held& held : calls) {
        for (std::size_t i = 0; i < held.tensors.size(); ++i)
          held.call.inputs[i] = held.tensors[i] ? &held.tensors[i] : nullptr;
        Inner inner(held.call);
        device.cpu_->run(inner.call);
        for (std::size_t i = 0; i < held.call.outputs.size(); ++i)
          if (inner.call.outputs[i]) buffer(held.outputs[i]).slot->inner = whole(inner.call.outputs[i]);
      }
      return result;
    }
    TracingDevice& device;
    Tensor result;
    std::deque<Held> calls;
  };

  template <class T>
  void write_to(const Tensor& t, std::span<const T> values) {
    if (records_) traffic_.wrote(t);
    cpu_->write(inner(t), values);
  }
  template <class T>
  void read_from(const Tensor& t, std::span<T> values) {
    if (records_) traffic_.read(), waiting_.run();
    cpu_->read(inner(t), values);
  }
  static void bind(const Tensor& promised, const Tensor& made) { buffer(promised).slot = buffer(made).slot; }

  std::shared_ptr<Backend> cpu_ = open_device("cpu", {.threads = 2});
  std::deque<Held>* recording_ = nullptr;
  WaitingCalls waiting_{*this, &TracingDevice::bind};
  HostTraffic traffic_;
  bool records_ = false;
};

std::unique_ptr<CausalLM> decoder(const std::shared_ptr<Backend>& device) {
  const AttentionSpec attention{.heads = 4, .kv_heads = 2, .head_dim = 16, .rope = RopeSpec{}};
  ModelSpec m{.vocab = 96, .dim = 64, .max_positions = 512};
  m.layers = {{.mixer = attention, .ffn = MlpSpec{.hidden = 96}},
              {.mixer = attention, .ffn = MoeSpec{.experts = 4, .top_k = 2, .hidden = 32}},
              {.mixer = ShortConvSpec{.kernel = 3}, .ffn = MlpSpec{.hidden = 96}}};
  const auto weights = [](const WeightSlot& slot) {
    std::vector<float> values(static_cast<std::size_t>(slot.rows * slot.cols));
    std::uint32_t state = 1;
    for (const char c : slot.name) state = state * 31 + static_cast<unsigned char>(c);
    for (float& v : values) {
      state = state * 1664525 + 1013904223;
      v = (static_cast<float>(state >> 8) / 16777216.0f - 0.5f) * 0.3f;
    }
    return LazyWeight(make_source(std::move(values), slot.rows, slot.cols, slot.name), slot.role, slot.name);
  };
  return build(m, weights, make_target(hw::cpu(), "f32"), {.device = device, .cache = {}, .bound = {}});
}

// Requests that come and go, so that steps of one, two and three users follow one another.
std::vector<std::vector<std::int32_t>> answers(const CausalLM& lm) {
  Generator generator(lm, nullptr, {.max_batch = 4, .max_step_tokens = 64, .max_context = 320});
  std::vector<GenerationRequest> requests(3);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (std::size_t k = 0; k <= 20 * i; ++k)
      requests[i].prompt_ids.push_back(static_cast<std::int32_t>((7 * k + i) % 90));
    requests[i].sampling.max_new_tokens = static_cast<int>(40 + 100 * i);
    requests[i].sampling.ignore_eos = true;
  }
  std::vector<std::vector<std::int32_t>> ids;
  for (const GenerationResult& result : generator.generate(requests)) {
    EXPECT_EQ(result.error, "");
    ids.push_back(result.ids);
  }
  return ids;
}

TEST(Traces, AnswersAreThoseWithoutThem) {
  const auto expected = answers(*decoder(open_device("cpu", {.threads = 2})));
  const auto device = std::make_shared<TracingDevice>();
  const auto lm = decoder(device);
  EXPECT_EQ(answers(*lm), expected);
  // Steps of three, two and one user over a few widths of the page table, each recorded once.
  const std::size_t first = device->replays;
  EXPECT_GT(first, 150u);
  EXPECT_EQ(device->traces, 0u);  // they went with the generator's state
  EXPECT_EQ(answers(*lm), expected);
  EXPECT_EQ(device->replays, 2 * first);
}

TEST(Traces, ACallThatCannotBeRecordedRuns) {
  const auto expected = answers(*decoder(open_device("cpu", {.threads = 2})));
  const auto device = std::make_shared<TracingDevice>();
  device->refuses = [](const OpCall& call) { return call.op == OpKind::rotary_embedding; };
  EXPECT_EQ(answers(*decoder(device)), expected);
  EXPECT_EQ(device->replays, 0u);
}

// On each device: what a trace is made of, and when there is none.
class TracingBackends : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<Backend> device_ = std::string(GetParam()) == "cpu"
                                         ? open_device("cpu", {.threads = 2})
                                         : std::shared_ptr<Backend>(std::make_shared<TracingDevice>());
  Tensor host(float a) { return from_host(*device_, std::vector<float>(4, a), {1, 1, 1, 4}, DataType::f32); }
  static std::vector<float> four(float a) { return std::vector<float>(4, a); }
};
INSTANTIATE_TEST_SUITE_P(, TracingBackends, testing::Values("cpu", "waiting"));

TEST_P(TracingBackends, AReplayReadsTheInputsAnew) {
  const Tensor weight = host(10);
  Recording recording(*device_);
  const Tensor x = host(1);
  Tensor y = ops::add(ops::mul(x, weight), 1.0f);
  y = ops::mul(std::move(y), 2.0f);
  const std::unique_ptr<Trace> trace = recording.end(std::span(&x, 1), y);
  ASSERT_NE(trace, nullptr);
  EXPECT_EQ(to_host(y), four(22));
  for (const float a : {2.0f, 3.0f}) {
    device_->write(x, four(a));
    EXPECT_EQ(to_host(trace->replay()), four((a * 10 + 1) * 2));
    // Memory of its own, whatever else lives.
    const Tensor other = ops::add(host(a), 5.0f);
    EXPECT_EQ(to_host(trace->replay()), four((a * 10 + 1) * 2));
    EXPECT_EQ(to_host(other), four(a + 5));
  }
}

TEST_P(TracingBackends, WhatFollowsFromMoreThanTheInputsIsNotReplayed) {
  {
    Recording recording(*device_);
    const Tensor x = host(1), constant = host(3), y = ops::mul(x, constant);
    EXPECT_EQ(recording.end(std::span(&x, 1), y), nullptr);
    EXPECT_EQ(to_host(y), four(3));
  }
  {
    Recording recording(*device_);
    const Tensor x = host(1), y = ops::add(x, 1.0f);
    const Tensor z = ops::mul(y, to_host(y)[0]);
    EXPECT_EQ(recording.end(std::span(&x, 1), z), nullptr);
    EXPECT_EQ(to_host(z), four(4));
  }
  {
    Recording dropped(*device_);
    (void)ops::add(host(1), 1.0f);
  }
  EXPECT_EQ(to_host(ops::add(host(1), 1.0f)), four(2));
}

TEST(Traces, ADeviceWithoutThem) {
  const std::shared_ptr<Backend> mesh = open_device("cpu", {.threads = 1, .mesh = {1, 2}});
  EXPECT_FALSE(can_trace(*mesh));
  EXPECT_THROW(Recording recording(*mesh), Error);
}

}  // namespace
}  // namespace ttt
