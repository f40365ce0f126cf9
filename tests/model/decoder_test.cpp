// Whole small networks: what a step accepts, and that batching, chunking and determinism change nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

#include "modules/support.h"
#include "ttt/debug/input.h"
#include "ttt/debug/tap.h"
#include "ttt/model/build.h"
#include "ttt/modules/linear.h"
#include "ttt/perf/profile.h"

namespace {

using namespace ttt;
using namespace ttt::test;

ModelSpec small_spec() {
  ModelSpec m{.vocab = 61, .dim = 40, .max_positions = 128, .embed_scale = 2};
  const AttentionSpec attention{.heads = 4, .kv_heads = 2, .head_dim = 10, .rope = RopeSpec{}};
  AttentionSpec windowed = attention;
  windowed.window = 7;
  m.layers = {{.mixer = attention, .ffn = MlpSpec{.hidden = 48}},
              {.mixer = windowed,
               .ffn = MoeSpec{.experts = 4, .top_k = 2, .hidden = 24, .router = {.renormalize = true}},
               .residual = Residual::sandwich,
               .residual_scale = 0.5f}};
  return m;
}

WeightProvider random_weights() {
  return [](const WeightSlot& slot) {
    std::vector<float> data =
        values(static_cast<std::size_t>(slot.rows * slot.cols), std::hash<std::string>{}(slot.name),
               slot.role == WeightRole::vector ? 0.4f : 1.5f / std::sqrt(static_cast<float>(slot.cols)));
    if (slot.role == WeightRole::vector) {
      for (float& v : data) v += 1;
    }
    return LazyWeight(make_source(std::move(data), slot.rows, slot.cols, slot.name), slot.role, slot.name);
  };
}

struct Network {
  explicit Network(bool deterministic = false, const char* precision = "f32", int threads = 2)
      : device(open_device("cpu", {.threads = threads, .deterministic = deterministic})),
        lm(build(small_spec(), random_weights(), make_target(hw::cpu(), precision),
                 {.device = device, .cache = {}, .bound = {}})) {}
  std::shared_ptr<Backend> device;
  std::unique_ptr<CausalLM> lm;
};

// A sequence with blocks of its own in a state of 4 x 16 blocks of 4 positions.
struct Sequence {
  std::int32_t id;
  std::vector<std::int32_t> tokens;
  std::int32_t done = 0;
};

// Advances each sequence by `counts` tokens in one step and returns the logits of all new rows, sequence by
// sequence.
std::vector<std::vector<float>> advance(const CausalLM& lm, State& state, std::vector<Sequence*> sequences,
                                        const std::vector<std::int32_t>& counts) {
  std::vector<std::int32_t> tokens, begin{0}, context, tables, slots, wanted;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    Sequence& s = *sequences[i];
    for (std::int32_t k = 0; k < counts[i]; ++k) {
      wanted.push_back(static_cast<std::int32_t>(tokens.size()));
      tokens.push_back(s.tokens[static_cast<std::size_t>(s.done + k)]);
    }
    begin.push_back(static_cast<std::int32_t>(tokens.size()));
    context.push_back(s.done);
    for (std::int32_t b = 0; b < 16; ++b) tables.push_back(b * 4 + s.id);
    slots.push_back(s.id);
    s.done += counts[i];
  }
  const StepOutput out = lm.step({.tokens = tokens,
                                  .row_begin = begin,
                                  .context = context,
                                  .block_tables = tables,
                                  .table_width = 16,
                                  .slots = slots,
                                  .logit_rows = wanted},
                                 state);
  std::vector<std::vector<float>> logits;
  for (std::size_t i = 0; i < sequences.size(); ++i)
    logits.emplace_back(out.logits.begin() + begin[i] * out.vocab,
                        out.logits.begin() + begin[i + 1] * out.vocab);
  return logits;
}

std::vector<std::int32_t> prompt(std::size_t n, std::uint64_t seed) {
  std::vector<std::int32_t> ids;
  for (float v : values(n, seed)) ids.push_back(static_cast<std::int32_t>((v + 1) * 30));
  return ids;
}

const KvGeometry geometry{.blocks = 64, .block_size = 4, .slots = 4};

TEST(Decoder, ChunksAndSingleTokensEqualOnePiece) {
  const Network net;
  const auto whole_state = net.lm->allocate(geometry);
  Sequence whole{0, prompt(23, 1)};
  const std::vector<float> want = advance(*net.lm, *whole_state, {&whole}, {23})[0];
  for (std::int32_t chunk : {1, 5}) {
    const auto state = net.lm->allocate(geometry);
    Sequence s{1, whole.tokens};
    std::vector<float> got;
    while (s.done < 23) {
      const std::vector<float> part = advance(*net.lm, *state, {&s}, {std::min(chunk, 23 - s.done)})[0];
      got.insert(got.end(), part.begin(), part.end());
    }
    EXPECT_LT(largest_difference(got, want), 1e-4) << "chunks of " << chunk;
  }
}

// The same request alone, in a mixed batch, in chunks and on other thread counts.
TEST(Decoder, DeterministicModeIsBitwiseEqual) {
  for (const char* precision : {"f32", "bf16", "bfp8_b", "bfp4_b"}) {
    SCOPED_TRACE(precision);
    std::vector<float> want;
    for (int threads : {1, 2}) {
      const Network net(true, precision, threads);
      const auto state = net.lm->allocate(geometry);
      Sequence alone{0, prompt(23, 2)};
      const std::vector<float> whole = advance(*net.lm, *state, {&alone}, {23})[0];
      if (want.empty()) want = whole;
      EXPECT_EQ(whole, want) << threads << " threads";
      Sequence s{1, alone.tokens}, a{2, prompt(20, 3)}, b{3, prompt(20, 4)};
      std::vector<float> got;
      const auto append = [&](const std::vector<float>& part) {
        got.insert(got.end(), part.begin(), part.end());
      };
      append(advance(*net.lm, *state, {&a, &s}, {9, 5})[1]);
      append(advance(*net.lm, *state, {&s, &a, &b}, {5, 1, 7})[0]);
      append(advance(*net.lm, *state, {&b, &a, &s}, {1, 1, 1})[2]);
      append(advance(*net.lm, *state, {&b, &s}, {1, 12})[1]);
      EXPECT_EQ(got, want) << "batched, " << threads << " threads";
    }
  }
}

TEST(Decoder, LogitRowsComeInTheOrderOfTheBatch) {
  const Network net;
  const auto state = net.lm->allocate(geometry);
  Sequence a{0, prompt(6, 5)}, b{1, prompt(6, 6)};
  const auto both = advance(*net.lm, *state, {&a, &b}, {5, 1});  // the step runs b first
  const auto other = net.lm->allocate(geometry);
  Sequence a2{2, a.tokens}, b2{3, b.tokens};
  EXPECT_LT(largest_difference(both[0], advance(*net.lm, *other, {&a2}, {5})[0]), 1e-4);
  EXPECT_LT(largest_difference(both[1], advance(*net.lm, *other, {&b2}, {1})[0]), 1e-4);
}

TEST(Decoder, NullBackendPlansWithoutWeights) {
  const auto device = open_device("null");
  const WeightProvider zeros = [](const WeightSlot& slot) { return random_weights()(slot); };
  const auto lm = build(small_spec(), zeros, make_target(hw::cpu(), "performance"),
                        {.device = device, .cache = {}, .bound = {}});
  const auto state = lm->allocate(geometry);
  Sequence s{0, prompt(9, 7)};
  EXPECT_EQ(advance(*lm, *state, {&s}, {9})[0].size(), 9u * 61u);
  EXPECT_NE(lm->plan_json().find("\"layers.1.ffn.experts.down\""), std::string::npos);
}

TEST(Decoder, StepRejectsWhatContradictsItself) {
  const Network net;
  const auto state = net.lm->allocate(geometry);
  const std::vector<std::int32_t> tokens{1, 2, 3}, begin{0, 3}, context{0}, table{0, 1, 2, -1}, slots{0},
      wanted{2};
  const Batch good{.tokens = tokens,
                   .row_begin = begin,
                   .context = context,
                   .block_tables = table,
                   .table_width = 4,
                   .slots = slots,
                   .logit_rows = wanted};
  EXPECT_NO_THROW(net.lm->step(good, *state));
  const auto message = [&](const std::function<void(Batch&)>& change) -> std::string {
    Batch bad = good;
    change(bad);
    try {
      net.lm->step(bad, *state);
    } catch (const Error& e) { return e.what(); }
    return "accepted";
  };
  const std::vector<std::int32_t> large{1, 2, 61}, negative{-1}, short_begin{0, 2}, far{14},
      missing{0, 1, -1, -1}, outside{64, 1, 2, 3}, late{3};
  EXPECT_NE(message([&](Batch& b) { b.tokens = large; }).find("token 61 of a vocabulary of 61"),
            std::string::npos);
  EXPECT_NE(message([&](Batch& b) { b.context = negative; }).find("negative context"), std::string::npos);
  EXPECT_NE(message([&](Batch& b) { b.row_begin = short_begin; }).find("row_begin"), std::string::npos);
  EXPECT_NE(message([&](Batch& b) { b.context = far; }).find("5 blocks needed, the table has 4"),
            std::string::npos);
  EXPECT_NE(message([&](Batch& b) { b.block_tables = outside; }).find("block 64 of 64"), std::string::npos);
  EXPECT_NE(message([&](Batch& b) { b.logit_rows = late; }).find("logit row 3 of 3"), std::string::npos);
  EXPECT_NE(message([&](Batch& b) { b.tokens = {}; }).find("row_begin"), std::string::npos);
  const std::vector<std::int32_t> later{6};
  EXPECT_NE(message([&](Batch& b) { b.context = later, b.block_tables = missing; }).find("block -1"),
            std::string::npos);
}

TEST(Build, RejectsMissingAndMisshapenWeights) {
  const auto fails = [&](const WeightProvider& provide) -> std::string {
    try {
      build(small_spec(), provide, f32_target(), cpu_home());
    } catch (const Error& e) { return e.what(); }
    return "accepted";
  };
  EXPECT_NE(fails([](const WeightSlot& slot) {
              return slot.name == "layers.1.attn.o" ? LazyWeight{} : random_weights()(slot);
            }).find("no weight for layers.1.attn.o"),
            std::string::npos);
  EXPECT_NE(fails([](WeightSlot slot) {
              if (slot.name == "norm") ++slot.cols;
              return random_weights()(slot);
            }).find("expected [1, 40]"),
            std::string::npos);
}

// A custom mixer that passes its input through one weight.
class Projection final : public Mixer {
 public:
  explicit Projection(const BuildContext& c)
      : linear_(Linear::from_config({.weight = c.weight("w"), .name = c.name / "w"}, c.target, c.home)) {}
  Tensor forward(const Tensor& x, const Step& s) const override { return linear_.forward(x, s.mode); }
  void print(PlanRows& rows) const override { ttt::print(linear_.plan(), rows); }

 private:
  Linear linear_;
};

ModelSpec spec_with_projection() {
  ModelSpec spec = small_spec();
  spec.layers[0].mixer = CustomSpec{.name = "projection",
                                    .weights = {{.name = "w", .rows = 40, .cols = 40}},
                                    .state = {{.name = "s", .elements = 3}}};
  return spec;
}

CustomModules projection() {
  CustomModules modules;
  modules.mixers["projection"] = [](const BuildContext& c, std::string_view) {
    return std::make_unique<Projection>(c);
  };
  return modules;
}

// A module shows nothing itself: what it gets and gives, and its time, are seen nevertheless.
TEST(Build, CustomModulesAreSeenFromOutside) {
  const auto lm = build(spec_with_projection(), random_weights(), f32_target(), cpu_home(), projection());
  const auto state = lm->allocate(geometry);
  std::vector<std::string> names;
  std::map<std::string, std::vector<float>> shown;
  const auto run = [&] {
    names.clear();
    const debug::TapScope taps([&](const Tensor& x, std::string_view name, int layer) {
      names.push_back(std::to_string(layer) + " " + std::string(name));
      shown[names.back()] = to_host(x);
    });
    Sequence s{0, prompt(4, 8)};
    (void)advance(*lm, *state, {&s}, {4});
  };
  const perf::Profile profile;
  run();
  for (const char* name :
       {"0 attn.in", "0 attn", "0 ffn.in", "0 ffn", "1 attn.in", "1 attn", "1 ffn.in", "1 ffn"})
    EXPECT_EQ(std::ranges::count(names, name), 1) << name;
  EXPECT_EQ(shown.at("0 attn.in"), shown.at("0 attn_norm"));
  EXPECT_LT(std::ranges::find(names, "0 attn.in"), std::ranges::find(names, "0 attn"));
  const auto spans = profile.spans();
  EXPECT_TRUE(std::ranges::any_of(spans, [&](const perf::Span& s) {
    return s.kind == perf::ZoneKind::module && profile.name(s.name) == "layers.0.attn";
  }));

  // On another input, and on its own again afterwards.
  const std::vector<float> before = shown.at("0 attn");
  {
    const debug::InputScope zeros([](const Tensor& x, std::string_view name, int layer) {
      std::optional<Tensor> other;
      if (layer == 0 && name == "attn.in")
        other = from_host(x.device(), std::vector<float>(static_cast<std::size_t>(x.shape().elements())),
                          x.shape(), x.dtype());
      return other;
    });
    run();
    for (const float value : shown.at("0 attn")) EXPECT_EQ(value, 0);
    EXPECT_NE(shown.at("1 attn.in"), std::vector<float>(4 * 40));
  }
  run();
  EXPECT_EQ(shown.at("0 attn"), before);
}

TEST(Build, CustomModulesComeByName) {
  EXPECT_THROW(build(spec_with_projection(), random_weights(), f32_target(), cpu_home()), Error);
  const auto lm = build(spec_with_projection(), random_weights(), f32_target(), cpu_home(), projection());
  EXPECT_FALSE(lm->capabilities().prefix_reuse);
  EXPECT_EQ(lm->kv_layers().size(), 1u);
  const auto state = lm->allocate(geometry);
  EXPECT_EQ(state->recurrent.at({0, 0}).at("s").shape(), (Shape{4, 3}));
  Sequence s{0, prompt(4, 8)};
  EXPECT_EQ(advance(*lm, *state, {&s}, {4})[0].size(), 4u * 61u);
}

}  // namespace
