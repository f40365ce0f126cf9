// Decode steps on the processor that replay a recorded one: bit for bit those that run, without allocations,
// and never where a step's calls may differ.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>

#include "modules/support.h"
#include "ttt/model/build.h"
#include "ttt/ops/ops.h"
#include "ttt/perf/zone.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<int> allocations{0};
void* counted(std::size_t bytes) noexcept {
  if (counting.load(std::memory_order_relaxed)) ++allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void* counted_or_throw(std::size_t bytes) {
  if (void* memory = counted(bytes)) return memory;
  throw std::bad_alloc();
}
}  // namespace
void* operator new(std::size_t bytes) { return counted_or_throw(bytes); }
void* operator new[](std::size_t bytes) { return counted_or_throw(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return counted(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return counted(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr std::int64_t block_size = 4, blocks = 400, slots = 12;
constexpr int vocab = 61;

WeightProvider random_weights() {
  return [](const WeightSlot& slot) {
    std::vector<float> data =
        values(static_cast<std::size_t>(slot.rows * slot.cols), std::hash<std::string>{}(slot.name),
               slot.role == WeightRole::vector ? 0.4f : 1.5f / std::sqrt(static_cast<float>(slot.cols)));
    return LazyWeight(make_source(std::move(data), slot.rows, slot.cols, slot.name), slot.role, slot.name);
  };
}

// Counts how often its network's code runs.
struct Counter {
  int forwards = 0;
  std::function<Tensor(const Tensor&, const Step&)> forward = [](const Tensor& x, const Step&) { return x; };
};
class CountingFeedForward final : public FeedForward {
 public:
  explicit CountingFeedForward(std::shared_ptr<Counter> counter) : counter_(std::move(counter)) {}
  Tensor forward(const Tensor& x, const Step& s) const override {
    ++counter_->forwards;
    return counter_->forward(x, s);
  }
  void print(PlanRows&) const override {}

 private:
  std::shared_ptr<Counter> counter_;
};

struct Network {
  Network(ModelSpec spec, const char* precision) : device(open_device("cpu", {.threads = 2})) {
    spec.layers.push_back({.mixer = Absent{}, .ffn = CustomSpec{.name = "counting"}});
    CustomModules custom;
    custom.feed_forwards["counting"] = [this](const BuildContext&, const auto&) {
      return std::make_unique<CountingFeedForward>(counter);
    };
    lm = build(spec, random_weights(), make_target(hw::cpu(), precision),
               {.device = device, .cache = {}, .bound = {}}, custom);
  }
  std::unique_ptr<State> state() const {
    return lm->allocate({.blocks = blocks, .block_size = block_size, .slots = slots});
  }
  std::shared_ptr<Counter> counter = std::make_shared<Counter>();
  std::shared_ptr<Backend> device;
  std::unique_ptr<CausalLM> lm;
};

struct Sequence {
  std::int32_t slot = 0, context = 0;
  std::vector<std::int32_t> pages;
  std::uint32_t random = 1;
  std::int32_t token() {
    random = random * 1664525 + 1013904223;
    return static_cast<std::int32_t>(random >> 8) % vocab;
  }
};

// A batch and what it points to.
struct Batches {
  std::vector<std::int32_t> tokens, begin, context, tables, slot, wanted;
  Batch batch(std::vector<Sequence*> sequences, std::int32_t width, std::int32_t count = 1) {
    tokens.clear(), begin.assign(1, 0), context.clear(), slot.clear(), wanted.clear();
    tables.assign(sequences.size() * static_cast<std::size_t>(width), -1);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      Sequence& s = *sequences[i];
      for (std::int32_t k = 0; k < count; ++k) {
        wanted.push_back(static_cast<std::int32_t>(tokens.size()));
        tokens.push_back(s.token());
      }
      begin.push_back(static_cast<std::int32_t>(tokens.size()));
      context.push_back(s.context);
      slot.push_back(s.slot);
      std::copy_n(s.pages.begin(), std::min<std::size_t>(s.pages.size(), static_cast<std::size_t>(width)),
                  tables.begin() + static_cast<std::ptrdiff_t>(i) * width);
      s.context += count;
    }
    return {.tokens = tokens,
            .row_begin = begin,
            .context = context,
            .block_tables = tables,
            .table_width = width,
            .slots = slot,
            .logit_rows = wanted};
  }
};

std::vector<float> run(const CausalLM& lm, const Batch& batch, State& state) {
  return lm.step(batch, state).logits;
}
// The step as its modules run it.
std::vector<float> plainly(const CausalLM& lm, const Batch& batch, State& state) {
  const perf::ZoneScope somebody([](const perf::ZoneRecord&) {});
  return lm.step(batch, state).logits;
}

struct Case {
  const char* name;
  LayerSpec layer;
  std::optional<PositionSpec> positions{};
  bool recurrent = false;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
std::vector<Case> cases() {
  const AttentionSpec attention{.heads = 4, .kv_heads = 2, .head_dim = 16, .rope = RopeSpec{}};
  AttentionSpec windowed = attention, bare = attention, sharp = attention, far = attention,
                slopes = attention;
  windowed.window = 6, windowed.qk_norm = QkNorm::per_head;
  bare.rope.reset();
  sharp.temperature = QueryTemperature{.scale = 0.1f, .length = 8};
  far.rope->scaling = {.kind = RopeScalingKind::dynamic, .factor = 2}, far.rope->max_positions = 24;
  slopes.rope.reset(), slopes.alibi = 1;
  const MlpSpec mlp{.hidden = 96};
  const MoeSpec moe{.experts = 4, .top_k = 2, .hidden = 24, .router = {.renormalize = true}};
  const LatentAttentionSpec latent{
      .heads = 2, .kv_lora_rank = 16, .nope_dim = 8, .rope_dim = 8, .v_head_dim = 8, .rope = RopeSpec{}};
  return {
      {"attention", {.mixer = attention, .ffn = mlp}},
      {"windows", {.mixer = windowed, .ffn = mlp, .residual = Residual::sandwich, .residual_scale = 0.5f}},
      {"experts", {.mixer = attention, .ffn = moe}},
      {"learned_positions", {.mixer = bare, .ffn = mlp}, PositionSpec{.entries = 300, .offset = 2}},
      {"sinusoids",
       {.mixer = bare, .ffn = mlp},
       PositionSpec{.kind = PositionKind::sinusoidal, .entries = 300, .offset = 1}},
      {"temperature", {.mixer = sharp, .ffn = mlp}},
      {"dynamic_rope", {.mixer = far, .ffn = mlp}},
      {"alibi", {.mixer = slopes, .ffn = mlp}},
      {"latent", {.mixer = latent, .ffn = mlp}},
      {"short_conv", {.mixer = ShortConvSpec{.kernel = 3}, .ffn = mlp}, {}, true},
      {"delta_net",
       {.mixer = GatedDeltaNetSpec{.heads = 4, .key_heads = 2, .key_dim = 8, .value_dim = 8}, .ffn = moe},
       {},
       true}};
}

class Replays : public testing::TestWithParam<std::tuple<Case, const char*>> {
 protected:
  static ModelSpec spec() {
    const Case& c = std::get<0>(GetParam());
    ModelSpec m{.vocab = vocab, .dim = 64, .max_positions = 256};
    m.positions = c.positions;
    m.layers = {c.layer, c.layer};
    return m;
  }
};
INSTANTIATE_TEST_SUITE_P(, Replays,
                         testing::Combine(testing::ValuesIn(cases()), testing::Values("f32", "bfp8_b")),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) + "_" + std::get<1>(test.param);
                         });

// Sequences come, go and change places; contexts cross pages, tables grow, a prefix is shared.
TEST_P(Replays, AreBitForBitWhatRuns) {
  const Network net(spec(), std::get<1>(GetParam()));
  const auto traced = net.state(), plain = net.state();
  std::vector<Sequence> all(9);
  Batches batches;
  std::int32_t next_page = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    Sequence& s = all[i];
    s.slot = static_cast<std::int32_t>((i * 5 + 3) % slots);
    s.random = static_cast<std::uint32_t>(i + 7);
    const bool shares = i == 1 && !std::get<0>(GetParam()).recurrent;
    if (shares) s.pages = {all[0].pages[0]}, s.context = static_cast<std::int32_t>(block_size);
    while (s.pages.size() < 40) s.pages.push_back(next_page++);
  }
  const auto both = [&](const std::vector<Sequence*>& sequences, std::int32_t width, std::int32_t count) {
    const Batch batch = batches.batch(sequences, width, count);
    const std::vector<float> got = run(*net.lm, batch, *traced);
    ASSERT_EQ(got, plainly(*net.lm, batch, *plain)) << "at " << sequences[0]->context;
  };
  for (std::size_t i = 0; i < all.size(); ++i) both({&all[i]}, 40, static_cast<std::int32_t>(5 + i));
  const int before = net.counter->forwards;
  int steps = 0;
  for (int round = 0; round < 60; ++round) {
    // Of 1 to 9 rows, as many as the device records and one more, from another sequence on each time.
    const std::size_t count = round < 20 ? 1 : round < 40 ? 1 + static_cast<std::size_t>(round) % 9 : 8;
    std::vector<Sequence*> sequences;
    for (std::size_t i = 0; i < count; ++i)
      sequences.push_back(&all[(i * 2 + static_cast<std::size_t>(round)) % all.size()]);
    both(sequences, round < 10 ? 40 : 33 + round % 8, 1);
    ++steps;
  }
  // Each step ran once as it does; of the others a few ran to be recorded.
  EXPECT_LT(net.counter->forwards - before, steps + 30);
}

TEST_P(Replays, AllocateNothing) {
  if (std::string(std::get<0>(GetParam()).name) == "dynamic_rope")
    GTEST_SKIP() << "each length has frequencies of its own";
  const Network net(spec(), std::get<1>(GetParam()));
  const auto state = net.state();
  Batches batches;
  Sequence a{.slot = 1, .pages = std::vector<std::int32_t>(30)},
      b{.slot = 0, .pages = std::vector<std::int32_t>(30)};
  std::iota(a.pages.begin(), a.pages.end(), 0), std::iota(b.pages.begin(), b.pages.end(), 30);
  const std::vector<Sequence*> one{&a}, two{&a, &b};
  for (int i = 0; i < 6; ++i)
    (void)net.lm->step(batches.batch(one, 30), *state), (void)net.lm->step(batches.batch(two, 30), *state);
  for (int i = 0; i < 10; ++i) {
    for (const auto& sequences : {one, two}) {
      const Batch batch = batches.batch(sequences, 30);
      allocations = 0, counting = true;
      const StepOutput output = net.lm->step(batch, *state);
      counting = false;
      EXPECT_EQ(allocations, 0) << sequences.size() << " sequences";
    }
  }
}

ModelSpec simple() {
  ModelSpec m{.vocab = vocab, .dim = 64, .max_positions = 256};
  m.layers = {{.mixer = AttentionSpec{.heads = 4, .kv_heads = 2, .head_dim = 16, .rope = RopeSpec{}},
               .ffn = MlpSpec{.hidden = 96}}};
  return m;
}
Sequence sequence() {
  Sequence s{.pages = std::vector<std::int32_t>(40)};
  std::iota(s.pages.begin(), s.pages.end(), 0);
  return s;
}

// How often the network's code runs in 10 steps, and that what comes out is right.
int forwards_of_ten(Network& net) {
  const auto state = net.state(), plain = net.state();
  Batches batches;
  Sequence s = sequence();
  int forwards = 0;
  for (int i = 0; i < 10; ++i) {
    const Batch batch = batches.batch({&s}, 40);
    const int before = net.counter->forwards;
    const std::vector<float> got = run(*net.lm, batch, *state);
    forwards += net.counter->forwards - before;
    EXPECT_EQ(got, plainly(*net.lm, batch, *plain)) << i;
  }
  return forwards;
}

TEST(Replay, OnlyOfStepsThatFollowFromTheirInputs) {
  Network net(simple(), "bf16");
  EXPECT_EQ(forwards_of_ten(net), 2);  // one to be there, one to be recorded
  // A factor that the host makes of the positions: by input() it is made anew.
  net.counter->forward = [](const Tensor& x, const Step& s) {
    return ops::mul(x,
                    s.input({1, 1, s.tokens, 1}, DataType::f32,
                            [](const Step& of, std::span<float> factors) {
                              for (std::size_t i = 0; i < factors.size(); ++i)
                                factors[i] = static_cast<float>(of.positions[i] + 1);
                            }),
                    {.dtype = x.dtype()});
  };
  EXPECT_EQ(forwards_of_ten(net), 2);
  net.counter->forward = [](const Tensor& x, const Step& s) {
    return ops::mul(x,
                    from_host(*s.device, std::vector<float>{static_cast<float>(s.positions[0])}, {1, 1, 1, 1},
                              DataType::f32),
                    {.dtype = x.dtype()});
  };
  EXPECT_EQ(forwards_of_ten(net), 10);
  net.counter->forward = [](const Tensor& x, const Step& s) {
    return s.sequences[0].context > 4 ? ops::mul(x, 2.0f) : x;
  };
  EXPECT_EQ(forwards_of_ten(net), 10);
  net.counter->forward = [](const Tensor& x, const Step& s) {
    return to_host_int(s.ids)[0] % 2 == 0 ? ops::mul(x, 2.0f) : x;
  };
  EXPECT_EQ(forwards_of_ten(net), 10);
  net.counter->forward = [](const Tensor& x, const Step& s) {  // a step of other positions
    Step later = s;
    later.positions = std::vector<std::int32_t>{s.tokens > 0 ? 9 : 8};
    return ops::mul(x,
                    later.input({1, 1, 1, 1}, DataType::f32,
                                [](const Step& of, std::span<float> factor) {
                                  factor[0] = static_cast<float>(of.positions[0]);
                                }),
                    {.dtype = x.dtype()});
  };
  EXPECT_EQ(forwards_of_ten(net), 10);
}

TEST(Replay, EndsWithTheMemoryThatItNames) {
  const Network net(simple(), "bf16");
  const auto plain = net.state();
  Batches batches;
  Sequence s = sequence();
  (void)plainly(*net.lm, batches.batch({&s}, 40), *plain);
  const std::size_t without = net.device->allocated_bytes();
  s = sequence();
  auto state = net.state();
  const auto check = [&](int steps) {
    for (int i = 0; i < steps; ++i) {
      const Batch batch = batches.batch({&s}, 40);
      ASSERT_EQ(run(*net.lm, batch, *state), plainly(*net.lm, batch, *plain));
    }
  };
  check(5);
  // Somebody gives the state other caches: the recorded calls name the old ones.
  KvCache& cache = state->kv.at({0, 0});
  std::weak_ptr<Buffer> old = cache.k.buffer_ptr();
  const auto copy = [&](const Tensor& t) { return from_host(*net.device, to_host(t), t.shape(), t.dtype()); };
  cache = {copy(cache.k), copy(cache.v), {}};
  check(1);
  EXPECT_TRUE(old.expired());
  old.reset();
  const int before = net.counter->forwards;
  check(5);
  EXPECT_EQ(net.counter->forwards - before, 5);  // all of them by plainly()
  state.reset();
  EXPECT_EQ(net.device->allocated_bytes(), without);
}

// What a step returned is its caller's, whatever later steps do; also where a head ends in place.
TEST(Replay, LogitsStayAsTheyWere) {
  ModelSpec capped = simple();
  capped.logit_softcap = 30;
  for (const ModelSpec& spec : {simple(), capped}) {
    const Network net(spec, "bf16");
    const auto state = net.state(), plain = net.state();
    Batches batches;
    Sequence s = sequence();
    std::vector<StepOutput> outputs;
    std::vector<std::vector<float>> expected;
    for (int i = 0; i < 8; ++i) {
      const Batch batch = batches.batch({&s}, 40);
      outputs.push_back(net.lm->step(batch, *state));
      expected.push_back(plainly(*net.lm, batch, *plain));
    }
    for (std::size_t i = 0; i < outputs.size(); ++i)
      EXPECT_EQ(std::vector<float>(outputs[i].logits), expected[i]) << i;
  }
}

// Two networks that take turns on one device and one state's geometry.
TEST(Replay, OfSeveralNetworksOnOneDevice) {
  const Network first(simple(), "bf16");
  ModelSpec other = simple();
  other.layers.push_back(other.layers[0]);
  const auto second = build(other, random_weights(), make_target(hw::cpu(), "bf16"),
                            {.device = first.device, .cache = {}, .bound = {}});
  const auto a = first.state(), a_plain = first.state();
  const KvGeometry geometry{.blocks = blocks, .block_size = block_size, .slots = slots};
  const auto b = second->allocate(geometry), b_plain = second->allocate(geometry);
  Sequence s = sequence(), t = sequence();
  Batches batches;
  for (int i = 0; i < 12; ++i) {
    const Batch one = batches.batch({&s}, 40);
    ASSERT_EQ(run(*first.lm, one, *a), plainly(*first.lm, one, *a_plain));
    const Batch two = batches.batch({&t}, 40);
    ASSERT_EQ(run(*second, two, *b), plainly(*second, two, *b_plain));
  }
}

TEST(Replay, ABatchThatContradictsItselfIsStillAnError) {
  const Network net(simple(), "bf16");
  const auto state = net.state(), plain = net.state();
  Batches batches;
  Sequence s = sequence();
  for (int i = 0; i < 4; ++i) {
    const Batch batch = batches.batch({&s}, 40);
    ASSERT_EQ(run(*net.lm, batch, *state), plainly(*net.lm, batch, *plain));
  }
  Batch bad = batches.batch({&s}, 40);
  batches.tables[1] = blocks;
  EXPECT_THROW((void)net.lm->step(bad, *state), Error);
  batches.tables[1] = s.pages[1];
  ASSERT_EQ(run(*net.lm, bad, *state), plainly(*net.lm, bad, *plain));
}

}  // namespace
