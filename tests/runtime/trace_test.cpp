// Decode steps on a device that records and replays them: the answers are those of the device without.
#include <gtest/gtest.h>

#include <deque>

#include "ttt/base/error.h"
#include "ttt/model/build.h"
#include "ttt/ops/ops.h"
#include "ttt/ops/step_traces.h"
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
    if (steps_.waits()) return steps_.call(call);
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
  std::unique_ptr<Trace> record(const std::function<void()>& work) override {
    auto trace = std::make_unique<List>(*this);
    recording_ = &trace->calls;
    try {
      work();
    } catch (...) {
      recording_ = nullptr;
      throw;
    }
    recording_ = nullptr;
    return trace;
  }
  void bind(const Tensor& promised, const Tensor& made) override {
    buffer(promised).slot = buffer(made).slot;
  }
  StepTraces& steps() override { return steps_; }

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
    explicit List(TracingDevice& of) : device(of) {}
    void replay() override {
      for (Held& held : calls) {
        for (std::size_t i = 0; i < held.tensors.size(); ++i)
          held.call.inputs[i] = held.tensors[i] ? &held.tensors[i] : nullptr;
        Inner inner(held.call);
        device.cpu_->run(inner.call);
        for (std::size_t i = 0; i < held.call.outputs.size(); ++i)
          if (inner.call.outputs[i]) buffer(held.outputs[i]).slot->inner = whole(inner.call.outputs[i]);
      }
    }
    TracingDevice& device;
    std::deque<Held> calls;
  };

  template <class T>
  void write_to(const Tensor& t, std::span<const T> values) {
    const Tensor* recorded = steps_.waits() ? steps_.input(t) : nullptr;
    cpu_->write(inner(recorded ? *recorded : t), values);
  }
  template <class T>
  void read_from(const Tensor& t, std::span<T> values) {
    if (steps_.waits()) steps_.before_read(t);
    cpu_->read(inner(t), values);
  }

  std::shared_ptr<Backend> cpu_ = open_device("cpu", {.threads = 2});
  std::deque<Held>* recording_ = nullptr;
  StepTraces steps_{*this, *this};
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
  const std::size_t first = device->steps().replays();
  EXPECT_GT(first, 150u);
  EXPECT_GE(device->steps().traces(), 3u);
  EXPECT_LE(device->steps().traces(), 8u);
  // Another generator has caches of its own: what was recorded for the first one's does not hold for them.
  EXPECT_EQ(answers(*lm), expected);
  EXPECT_GT(device->steps().replays(), first + 150);
}

TEST(Traces, ACallThatCannotBeRecordedRuns) {
  const auto expected = answers(*decoder(open_device("cpu", {.threads = 2})));
  const auto device = std::make_shared<TracingDevice>();
  device->refuses = [](const OpCall& call) { return call.op == OpKind::rotary_embedding; };
  EXPECT_EQ(answers(*decoder(device)), expected);
  EXPECT_EQ(device->steps().replays(), 0u);
}

// A step whose calls, values of inputs or extents change between two of its key.
TEST(Traces, AStepThatDiffersRunsPlainly) {
  TracingDevice device;
  const auto step = [&](float a, std::int64_t extent, bool twice) {
    const TracedStep traced(device, "key");
    Tensor x = from_host(device, std::vector<float>(static_cast<std::size_t>(extent), a), {1, 1, 1, extent},
                         DataType::f32);
    x = ops::add(x, 1.0f);
    if (twice) x = ops::mul(x, 2.0f);
    return to_host(x);
  };
  const auto expect = [&](float a, std::int64_t extent, bool twice, std::size_t replays) {
    EXPECT_EQ(step(a, extent, twice),
              std::vector<float>(static_cast<std::size_t>(extent), (a + 1) * (twice ? 2.0f : 1.0f)));
    EXPECT_EQ(device.steps().replays(), replays);
  };
  expect(1, 4, true, 0);   // plain
  expect(2, 4, true, 1);   // recorded
  expect(3, 4, true, 2);   // replayed
  expect(4, 4, false, 2);  // fewer calls
  expect(5, 4, false, 3);  // recorded as they are
  expect(6, 4, true, 3);   // one more
  expect(7, 8, true, 4);
  expect(8, 4, true, 4);  // other extents; the key is left alone from here on
  expect(9, 4, true, 4);
  EXPECT_EQ(device.steps().traces(), 0u);
}

// What is alive beside the tensor that is read would hold nothing after a replay.
TEST(Traces, AStepThatIsReadTwiceRunsPlainly) {
  TracingDevice device;
  for (const float a : {1.0f, 2.0f, 3.0f, 4.0f}) {
    const TracedStep traced(device, "key");
    const Tensor x = from_host(device, std::vector<float>(4, a), {1, 1, 1, 4}, DataType::f32);
    const Tensor y = ops::add(x, 1.0f), z = ops::mul(y, 2.0f);
    EXPECT_EQ(to_host(y), std::vector<float>(4, a + 1));
    EXPECT_EQ(to_host(z), std::vector<float>(4, 2 * a + 2));
  }
  EXPECT_LE(device.steps().replays(), 1u);
  EXPECT_THROW(TracedStep(*open_device("cpu"), "key"), Error);
}

}  // namespace
}  // namespace ttt
