#include "ttt/convert/binding.h"

#include <gtest/gtest.h>

#include <ctime>
#include <numeric>

#include "convert/files.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/safetensors.h"

namespace ttt {
namespace {

using Shape64 = std::vector<std::int64_t>;
using Values = std::vector<float>;

WeightSlot linear(std::string name, std::int64_t rows, std::int64_t cols) {
  return {.name = std::move(name), .role = WeightRole::linear, .rows = rows, .cols = cols};
}
WeightSlot vector_slot(std::string name, std::int64_t cols, std::int64_t rows = 1) {
  return {.name = std::move(name), .role = WeightRole::vector, .rows = rows, .cols = cols};
}
WeightSlot experts(std::string name, std::int64_t count, std::int64_t rows, std::int64_t cols) {
  return {.name = std::move(name),
          .role = WeightRole::experts,
          .rows = count * rows,
          .cols = cols,
          .experts = count};
}

// A checkpoint on disk: tensor k counts 1000 k, 1000 k + 1, ...
class Bound {
 public:
  Bound(const WeightMap& map, std::vector<std::pair<std::string, Shape64>> tensors,
        std::vector<WeightSlot> slots) {
    std::vector<SafetensorsEntry> entries;
    std::vector<Values> values(tensors.size());
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      std::int64_t n = 1;
      for (std::int64_t extent : tensors[k].second) n *= extent;
      values[k].resize(static_cast<std::size_t>(n));
      std::iota(values[k].begin(), values[k].end(), 1000.0f * static_cast<float>(k));
      entries.push_back(make_entry(tensors[k].first, tensors[k].second, values[k]));
    }
    write_safetensors(folder_.path() / "model.safetensors", entries);
    checkpoint_ = Checkpoint::open(folder_.path());
    binding_ = bind_weights(map, checkpoint_.shapes(), slots);
  }

  Values read(std::string_view slot) const {
    const WeightSourcePtr source = binding_.source(slot, checkpoint_);
    Values out(static_cast<std::size_t>(source->rows() * source->cols()));
    source->read(0, source->rows(), out.data());
    Values by_row(out.size());  // row by row gives the same
    for (std::int64_t r = 0; r < source->rows(); ++r) source->read(r, 1, by_row.data() + r * source->cols());
    EXPECT_EQ(by_row, out) << slot;
    return out;
  }
  const Binding& binding() const { return binding_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  test::TemporaryFolder folder_;
  Checkpoint checkpoint_;
  Binding binding_;
};

Values counting(float first, int n) {
  Values out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), first);
  return out;
}

std::string failure(const WeightMap& map, std::vector<NamedShape> tensors, std::vector<WeightSlot> slots) {
  return test::error_of([&] { bind_weights(map, tensors, slots); });
}

TEST(Bind, RenamesWeightsAndBiases) {
  const Bound b(
      WeightMap().rename("{layer}.self_attn.q_proj", "{layer}.attn.q").rename("norm", "norm"),
      {{"layers.3.self_attn.q_proj.weight", {2, 3}},
       {"layers.3.self_attn.q_proj.bias", {2}},
       {"norm.weight", {3}}},
      {linear("layers.3.attn.q", 2, 3), vector_slot("layers.3.attn.q.bias", 2), vector_slot("norm", 3)});
  EXPECT_EQ(b.read("layers.3.attn.q"), counting(0, 6));
  EXPECT_EQ(b.read("layers.3.attn.q.bias"), counting(1000, 2));
  EXPECT_EQ(b.read("norm"), counting(2000, 3));
  EXPECT_EQ(b.binding().describe("norm"), "norm.weight");
  EXPECT_EQ(b.binding().slots(),
            (std::vector<std::string>{"layers.3.attn.q", "layers.3.attn.q.bias", "norm"}));
  EXPECT_ERROR(b.binding().source("nurm", b.checkpoint()), "no slot nurm, the network, the nearest is norm");
}

TEST(Bind, AWholeTensorIsNotCopied) {
  const Bound b(WeightMap().rename("a", "embed"), {{"a.weight", {4, 8}}}, {linear("embed", 4, 8)});
  EXPECT_EQ(b.binding().source("embed", b.checkpoint())->mapped(DataType::f32).size(), 4u * 8 * 4);
  EXPECT_TRUE(b.binding().source("embed", b.checkpoint())->mapped(DataType::bf16).empty());
  const Bound cut(WeightMap().split("a", {"x", "y"}), {{"a.weight", {4, 8}}},
                  {linear("x", 1, 8), linear("y", 3, 8)});
  const auto mapped = cut.binding().source("y", cut.checkpoint())->mapped(DataType::f32);
  ASSERT_EQ(mapped.size(), 3u * 8 * 4);
  float first = 0;
  std::memcpy(&first, mapped.data(), 4);
  EXPECT_EQ(first, 8.0f);
}

TEST(Bind, PrefixesMayBeThereOrNot) {
  for (const char* prefix : {"", "model.", "language_model.model.", "model.language_model."}) {
    const Bound b(hf_decoder_names().strip("language_model."), {{std::string(prefix) + "norm.weight", {3}}},
                  {vector_slot("norm", 3)});
    EXPECT_EQ(b.read("norm"), counting(0, 3)) << prefix;
  }
}

TEST(Bind, TheLatestRuleTakesATensor) {
  const WeightMap map = WeightMap().rename("a", "first").rename("a", "second");
  const Bound b(map, {{"a.weight", {2}}}, {vector_slot("second", 2)});
  EXPECT_EQ(b.read("second"), counting(0, 2));
  // A spelt-out bias goes before the implied one when it is declared later, and an ignore as well.
  const Bound router(WeightMap()
                         .rename("{layer}.gate", "{layer}.router")
                         .rename("{layer}.gate.bias", "{layer}.router.correction_bias"),
                     {{"layers.0.gate.weight", {2, 3}}, {"layers.0.gate.bias", {2}}},
                     {linear("layers.0.router", 2, 3), vector_slot("layers.0.router.correction_bias", 2)});
  EXPECT_EQ(router.read("layers.0.router.correction_bias"), counting(1000, 2));
  const Bound ignored(WeightMap().rename("a", "x").ignore("a.bias"), {{"a.weight", {2}}, {"a.bias", {2}}},
                      {vector_slot("x", 2)});
  EXPECT_EQ(ignored.binding().ignored(), std::vector<std::string>{"a.bias"});
  const Bound again(WeightMap().ignore("a*").rename("a", "x"), {{"a.weight", {2}}, {"ab", {2}}},
                    {vector_slot("x", 2)});
  EXPECT_EQ(again.binding().ignored(), std::vector<std::string>{"ab"});
}

TEST(Bind, SplitsFusedWeights) {
  const WeightMap map = WeightMap().split("{layer}.qkv", {"{layer}.q", "{layer}.k", "{layer}.v"});
  const Bound b(map, {{"layers.0.qkv.weight", {4, 2}}, {"layers.0.qkv.bias", {4}}},
                {linear("layers.0.q", 2, 2), linear("layers.0.k", 1, 2), linear("layers.0.v", 1, 2),
                 vector_slot("layers.0.q.bias", 2), vector_slot("layers.0.k.bias", 1),
                 vector_slot("layers.0.v.bias", 1)});
  EXPECT_EQ(b.read("layers.0.q"), counting(0, 4));
  EXPECT_EQ(b.read("layers.0.k"), counting(4, 2));
  EXPECT_EQ(b.read("layers.0.v"), counting(6, 2));
  EXPECT_EQ(b.read("layers.0.q.bias"), counting(1000, 2));
  EXPECT_EQ(b.read("layers.0.v.bias"), counting(1003, 1));
  EXPECT_EQ(b.binding().describe("layers.0.k"), "rows 2 to 2 of layers.0.qkv.weight");
}

TEST(Bind, SplitsHeadsThatTakeTurns) {
  // [2 heads, (q, k, v), 2 dims] and one column.
  const Bound b(WeightMap().split("qkv", {"q", "k", "v"}, {.groups = 2}),
                {{"qkv.weight", {12, 1}}, {"qkv.bias", {12}}},
                {linear("q", 4, 1), linear("k", 4, 1), linear("v", 4, 1), vector_slot("q.bias", 4),
                 vector_slot("k.bias", 4), vector_slot("v.bias", 4)});
  EXPECT_EQ(b.read("q"), (Values{0, 1, 6, 7}));
  EXPECT_EQ(b.read("k"), (Values{2, 3, 8, 9}));
  EXPECT_EQ(b.read("v"), (Values{4, 5, 10, 11}));
  EXPECT_EQ(b.read("v.bias"), (Values{1004, 1005, 1010, 1011}));
  // Groups of two queries, one key, one value.
  const Bound grouped(WeightMap().split("qkv", {"q", "k", "v"}, {.groups = 2}), {{"qkv", {8, 1}}},
                      {linear("q", 4, 1), linear("k", 2, 1), linear("v", 2, 1)});
  EXPECT_EQ(grouped.read("q"), (Values{0, 1, 4, 5}));
  EXPECT_EQ(grouped.read("k"), (Values{2, 6}));
  const Bound turns(WeightMap().split("gu", {"g", "u"}, {.interleaved = true}), {{"gu.weight", {4, 2}}},
                    {linear("g", 2, 2), linear("u", 2, 2)});
  EXPECT_EQ(turns.read("g"), (Values{0, 1, 4, 5}));
  EXPECT_EQ(turns.read("u"), (Values{2, 3, 6, 7}));
}

TEST(Bind, SplitsWithinExpertsAndTransposes) {
  // [2 experts, 3 in, 4 out], gate and up take turns along the outputs.
  const WeightMap map = WeightMap()
                            .transpose("gu")
                            .split("gu", {"g", "u"}, {.interleaved = true})
                            .split("gu_bias", {"g.bias", "u.bias"}, {.interleaved = true});
  const Bound b(map, {{"gu", {2, 3, 4}}, {"gu_bias", {2, 4}}},
                {experts("g", 2, 2, 3), experts("u", 2, 2, 3), vector_slot("g.bias", 2, 2),
                 vector_slot("u.bias", 2, 2)});
  EXPECT_EQ(b.read("g"), (Values{0, 4, 8, 2, 6, 10, 12, 16, 20, 14, 18, 22}));
  EXPECT_EQ(b.read("u"), (Values{1, 5, 9, 3, 7, 11, 13, 17, 21, 15, 19, 23}));
  EXPECT_EQ(b.read("g.bias"), (Values{1000, 1002, 1004, 1006}));
  EXPECT_EQ(b.read("u.bias"), (Values{1001, 1003, 1005, 1007}));
  // The halves of each expert, one after the other.
  const Bound halves(WeightMap().split("gu", {"g", "u"}), {{"gu", {2, 4, 1}}},
                     {experts("g", 2, 2, 1), experts("u", 2, 2, 1)});
  EXPECT_EQ(halves.read("g"), (Values{0, 1, 4, 5}));
  EXPECT_EQ(halves.read("u"), (Values{2, 3, 6, 7}));
}

TEST(Bind, TransposesMatricesAndLeavesVectors) {
  const Bound b(WeightMap().transpose("{layer}.c_attn").split("{layer}.c_attn", {"q", "k"}),
                {{"layers.0.c_attn.weight", {2, 4}}, {"layers.0.c_attn.bias", {4}}},
                {linear("q", 2, 2), linear("k", 2, 2), vector_slot("q.bias", 2), vector_slot("k.bias", 2)});
  EXPECT_EQ(b.read("q"), (Values{0, 4, 1, 5}));
  EXPECT_EQ(b.read("k"), (Values{2, 6, 3, 7}));
  EXPECT_EQ(b.read("k.bias"), (Values{1002, 1003}));
}

TEST(Bind, StacksExpertsInOrder) {
  std::vector<std::pair<std::string, Shape64>> tensors;
  for (int e : {2, 0, 10, 1, 3, 4, 5, 6, 7, 8, 9})
    tensors.push_back({"layers.0.experts." + std::to_string(e) + ".w.weight", {1, 2}});
  for (int e : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
    tensors.push_back({"layers.0.experts." + std::to_string(e) + ".w.bias", {1}});
  const Bound b(WeightMap().stack("{layer}.experts.{e}.w", "{layer}.w"), tensors,
                {experts("layers.0.w", 11, 1, 2), vector_slot("layers.0.w.bias", 1, 11)});
  const Values all = b.read("layers.0.w");
  EXPECT_EQ(Values(all.begin(), all.begin() + 6), (Values{1000, 1001, 3000, 3001, 0, 1}));
  EXPECT_EQ(all[20], 2000.0f);
  EXPECT_EQ(b.read("layers.0.w.bias")[10], 21000.0f);
  EXPECT_EQ(b.binding().describe("layers.0.w"),
            "layers.0.experts.0.w.weight to layers.0.experts.10.w.weight (11 tensors)");
}

TEST(Bind, ConcatAndSlice) {
  const Bound b(WeightMap().concat({"b", "a"}, "x").slice("c", "y", 1, 2),
                {{"a.weight", {1, 2}}, {"b.weight", {2, 2}}, {"c.weight", {4, 2}}},
                {linear("x", 3, 2), linear("y", 2, 2)});
  EXPECT_EQ(b.read("x"), (Values{1000, 1001, 1002, 1003, 0, 1}));
  EXPECT_EQ(b.read("y"), (Values{2002, 2003, 2004, 2005}));
}

TEST(Bind, TransformsActOnSlots) {
  const Bound b(WeightMap()
                    .rename("n", "attn_norm")
                    .rename("m", "m")
                    .apply("*norm", add(1))
                    .apply("*norm", multiply(2))
                    .apply("m", unary(UnaryOp::neg)),
                {{"n.weight", {2}}, {"n.bias", {2}}, {"m", {2}}},
                {vector_slot("attn_norm", 2), vector_slot("attn_norm.bias", 2), vector_slot("m", 2)});
  EXPECT_EQ(b.read("attn_norm"), (Values{2, 4}));
  EXPECT_EQ(b.read("attn_norm.bias"), (Values{1000, 1001}));
  EXPECT_EQ(b.read("m"), (Values{-2000, -2001}));
}

TEST(Bind, PermuteUndoesTheConverter) {
  // What the converter writes: reshape(heads, 2, dim / 2).swapaxes(1, 2), here for two heads of four.
  const Values natural = counting(0, 8);
  Values stored(8);
  for (int h = 0; h < 2; ++h) {
    for (int p = 0; p < 2; ++p) {
      for (int j = 0; j < 2; ++j)
        stored[static_cast<std::size_t>(h * 4 + j * 2 + p)] =
            natural[static_cast<std::size_t>(h * 4 + p * 2 + j)];
    }
  }
  const test::TemporaryFolder folder;
  write_safetensors(folder.path() / "model.safetensors",
                    std::vector{make_entry("q.weight", {8, 1}, stored), make_entry("q.bias", {8}, stored)});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  const std::vector<WeightSlot> slots{linear("layers.0.attn.q", 8, 1),
                                      vector_slot("layers.0.attn.q.bias", 8)};
  const Binding binding = bind_weights(
      WeightMap().rename("q", "layers.0.attn.q").permute("{layer}.attn.q", 2), checkpoint.shapes(), slots);
  for (const char* slot : {"layers.0.attn.q", "layers.0.attn.q.bias"}) {
    Values out(8);
    const WeightSourcePtr source = binding.source(slot, checkpoint);
    source->read(0, source->rows(), out.data());
    EXPECT_EQ(out, natural) << slot;
  }
}

TEST(Bind, AliasesAndOptionalSlots) {
  const Bound b(WeightMap()
                    .rename("e", "embed")
                    .rename("{layer}.k", "{layer}.attn.k")
                    .alias("lm_head", "embed")
                    .alias("{layer}.attn.v", "{layer}.attn.k")
                    .optional("x"),
                {{"e.weight", {2, 2}}, {"layers.1.k.weight", {1, 2}}},
                {linear("embed", 2, 2), linear("lm_head", 2, 2), linear("layers.1.attn.k", 1, 2),
                 linear("layers.1.attn.v", 1, 2), vector_slot("x", 3)});
  EXPECT_EQ(b.read("lm_head"), counting(0, 4));
  EXPECT_EQ(b.read("layers.1.attn.v"), counting(1000, 2));
  EXPECT_EQ(b.binding().describe("lm_head"), "as embed");
  EXPECT_FALSE(b.binding().has("x"));
  EXPECT_EQ(b.binding().source("x", b.checkpoint()), nullptr);
  // Tied embeddings: the network has no lm_head, the checkpoint repeats it.
  const Bound tied(hf_decoder_names(), {{"model.embed_tokens.weight", {2, 2}}, {"lm_head.weight", {2, 2}}},
                   {linear("embed", 2, 2)});
  EXPECT_EQ(tied.binding().ignored(), std::vector<std::string>{"lm_head.weight"});
}

TEST(Bind, ShapesThatMeanTheSame) {
  const Bound b(
      WeightMap().rename("conv", "conv").rename("mix", "mix").rename("col", "col").rename("scalar", "scalar"),
      {{"conv.weight", {3, 1, 2}}, {"mix", {1, 1, 3}}, {"col", {4, 1, 1}}, {"scalar", {}}},
      {linear("conv", 3, 2), vector_slot("mix", 3), vector_slot("col", 4), vector_slot("scalar", 1)});
  EXPECT_EQ(b.read("conv"), counting(0, 6));
  EXPECT_EQ(b.read("mix"), counting(1000, 3));
  EXPECT_EQ(b.read("col"), counting(2000, 4));
  EXPECT_EQ(b.read("scalar"), counting(3000, 1));
  // A convolution's channels are what split cuts.
  const Bound cut(WeightMap().split("conv", {"a", "b"}), {{"conv.weight", {4, 1, 2}}},
                  {linear("a", 1, 2), linear("b", 3, 2)});
  EXPECT_EQ(cut.read("b"), counting(2, 6));
}

TEST(Bind, OneErrorListsEverything) {
  const WeightMap map = hf_decoder_names().split("{layer}.gu", {"{layer}.ffn.gate", "{layer}.ffn.up"});
  const std::string message =
      failure(map,
              {{"model.embed_tokens.weight", {4, 3}},
               {"model.layers.0.self_attn.qq_proj.weight", {2, 2}},
               {"model.layers.0.mlp.down_proj.weight", {3, 2}},
               {"model.layers.0.gu.weight", {3, 2}},
               {"model.layers.0.self_attn.k_proj.bias", {2}},
               {"model.norm.weight", {2}}},
              {linear("embed", 4, 2), linear("layers.0.attn.q", 2, 2), linear("layers.0.ffn.down", 2, 2),
               linear("layers.0.ffn.gate", 2, 2), linear("layers.0.ffn.up", 2, 2), vector_slot("norm", 2),
               linear("layers.0.attn.k", 2, 2)});
  for (const char* part : {
           "missing layers.0.attn.q (from layers.0.self_attn.q_proj.weight), the nearest unused tensor is "
           "model.layers.0.self_attn.qq_proj.weight",
           "unknown model.layers.0.self_attn.qq_proj.weight, the nearest rule is for layers.{i}.self_attn.",
           "left over model.layers.0.self_attn.k_proj.bias (the network has no layers.0.attn.k.bias",
           "misshapen embed [4, 2]: model.embed_tokens.weight [4, 3] gives [4, 3]",
           "misshapen layers.0.ffn.down [2, 2]: model.layers.0.mlp.down_proj.weight [3, 2] gives [3, 2]",
           "model.layers.0.gu.weight [3, 2]: 3 rows where the network wants 2 + 2",
       })
    EXPECT_NE(message.find(part), std::string::npos) << part << "\nin " << message;
}

TEST(Bind, IncompleteAndDoubleTensors) {
  const WeightMap map = WeightMap()
                            .stack("{layer}.e.{e}", "{layer}.w")
                            .concat({"a", "b"}, "x")
                            .rename("c", "y")
                            .rename("d", "y");
  EXPECT_NE(
      failure(map, {{"layers.0.e.0", {1, 2}}, {"layers.0.e.2", {1, 2}}}, {experts("layers.0.w", 2, 1, 2)})
          .find("number 1 of the stacked tensors is missing"),
      std::string::npos);
  EXPECT_NE(failure(map, {{"layers.0.e.1", {1, 2}}}, {experts("layers.0.w", 1, 1, 2)})
                .find("number 0 of the stacked tensors is missing"),
            std::string::npos);
  EXPECT_NE(failure(map, {{"layers.0.e.0", {1, 2}}}, {experts("layers.0.w", 2, 1, 2)})
                .find("misshapen layers.0.w [2, 2]"),
            std::string::npos);
  EXPECT_NE(failure(map, {{"a", {1, 2}}}, {linear("x", 2, 2)}).find("misshapen x"), std::string::npos);
  EXPECT_NE(failure(map, {{"c", {2}}, {"d", {2}}}, {vector_slot("y", 2)}).find("doubly given y: c and d"),
            std::string::npos);
  EXPECT_NE(failure(map, {{"c", {2}}, {"c.weight", {2}}}, {vector_slot("y", 2)}).find("doubly given"),
            std::string::npos);
  EXPECT_NE(failure(WeightMap(), {}, {vector_slot("y", 2)}).find("missing y (no rule leads to it)"),
            std::string::npos);
  EXPECT_NE(failure(WeightMap().rename("q", "q").permute("q", 3), {{"q", {8, 2}}}, {linear("q", 8, 2)})
                .find("8 rows in 3 heads"),
            std::string::npos);
}

TEST(Bind, SizesBeyondReasonAreErrors) {
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max(), large = std::int64_t{1} << 40;
  const WeightMap map = WeightMap().split("a", {"x", "y"}).slice("b", "z", large, large);
  EXPECT_NE(failure(map, {{"a", {4, 4}}}, {linear("x", huge, 4), linear("y", huge, 4)})
                .find("a weight of [9223372036854775807, 4], x"),
            std::string::npos);
  EXPECT_NE(failure(map, {{"a", {4, 4}}}, {linear("x", -1, 4)}).find("a weight of [-1, 4]"),
            std::string::npos);
  EXPECT_NE(failure(map, {{"a", {1 << 30, 1 << 30}}}, {}).find("a shape of"), std::string::npos);
  EXPECT_NE(failure(map, {{"a", {4, 4}}}, {linear("x", large, 1), linear("y", large, 1)})
                .find("4 rows where the network wants"),
            std::string::npos);
  EXPECT_NE(failure(map, {{"b", {4, 4}}}, {linear("z", 4, 4)}).find("misshapen"), std::string::npos);
  EXPECT_ERROR(WeightMap().slice("a", "x", huge, huge), "rows 9223372036854775807");
  EXPECT_ERROR(WeightMap().permute("a", huge), "heads");
  EXPECT_ERROR(WeightMap().split("a", {"b"}, {.sizes = {huge}}), "a size of");
}

// DeepSeek-V3's size: 61 layers, 256 experts of three matrices each.
TEST(Bind, FortySixThousandTensorsInNoTime) {
  std::vector<NamedShape> tensors;
  std::vector<WeightSlot> slots;
  for (int i = 0; i < 61; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".mlp.";
    for (const char* part : {"gate", "up", "down"}) {
      for (int e = 0; e < 256; ++e)
        tensors.push_back(
            {layer + "experts." + std::to_string(e) + "." + part + "_proj.weight", {2048, 7168}});
      slots.push_back(experts("layers." + std::to_string(i) + ".ffn.experts." + part, 256, 2048, 7168));
    }
  }
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  // Of the processor: a busy machine does not count.
  const auto now = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
  const double begin = now();
  const Binding binding = bind_weights(map, tensors, slots);
  const double seconds = now() - begin;
  EXPECT_TRUE(binding.has("layers.60.ffn.experts.down"));
  EXPECT_LT(seconds, 5.0);  // far above what it takes, so that a sanitizer passes
  RecordProperty("seconds", std::to_string(seconds));
  std::cout << tensors.size() << " tensors bound in " << seconds << " s\n";
  // An error over as many names is found as quickly.
  const double again = now();
  EXPECT_NE(failure(hf_decoder_names(), tensors, slots).find("46848 unknown"), std::string::npos);
  EXPECT_LT(now() - again, 5.0);
}

}  // namespace
}  // namespace ttt
