#include "ttt/convert/weight_map.h"

#include <gtest/gtest.h>

#include "convert/files.h"
#include "convert/weight_map_impl.h"

namespace ttt {
namespace {

TEST(WeightMap, SurvivesJson) {
  WeightMap map = hf_decoder_names();
  map.strip("language_model.")
      .layers("h.{i}")
      .transpose("{layer}.attn.c_attn")
      .split("{layer}.qkv", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = 4, .sizes = {8, 4, 4}})
      .split("{layer}.gate_up", {"{layer}.ffn.gate", "{layer}.ffn.up"}, {.interleaved = true})
      .stack("{layer}.experts.{e}.w1", "{layer}.ffn.experts.gate")
      .concat({"a", "b"}, "embed")
      .slice("c", "norm", 3, 4)
      .apply("*norm", add(1))
      .apply("embed", multiply(0.1f))
      .apply("{layer}.mixer.a", unary(UnaryOp::exp))
      .permute("{layer}.attn.q", 4)
      .alias("lm_head", "embed")
      .optional("lm_head.bias")
      .surplus("{layer}.attn.o.bias")
      .ignore("vision_tower.*");
  const std::string json = map.to_json();
  const WeightMap again = WeightMap::from_json(json);
  EXPECT_EQ(again, map);
  EXPECT_EQ(again.to_json(), json);
  EXPECT_NE(again, hf_decoder_names());
  EXPECT_EQ(WeightMap::from_json(gguf_decoder_names().to_json()), gguf_decoder_names());
  EXPECT_EQ(WeightMap::from_json(hf_moe_names().to_json()), hf_moe_names());
}

TEST(WeightMap, ShortSpellingsAreTheLongOnes) {
  EXPECT_EQ(WeightMap().rename("a.", "b.", {{"x", "y"}, {"z", "w"}}),
            WeightMap().rename("a.x", "b.y").rename("a.z", "b.w"));
  EXPECT_EQ(
      WeightMap().split_qkv("{layer}.a", 4),
      WeightMap().split("{layer}.a", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"}, {.groups = 4}));
  EXPECT_EQ(WeightMap().split_gate_up("{layer}.a"),
            WeightMap().split("{layer}.a", {"{layer}.ffn.gate", "{layer}.ffn.up"}));
  EXPECT_EQ(WeightMap().split_gate_up("{layer}.a", "{layer}.b"),
            WeightMap().split("{layer}.a", {"{layer}.b.gate", "{layer}.b.up"}));
}

TEST(WeightMap, JsonErrorsNameTheOperation) {
  const auto parse = [](const std::string& operations) {
    return WeightMap::from_json("{\"operations\": [" + operations + "]}");
  };
  EXPECT_ERROR(WeightMap::from_json("{}"), "has no list of operations");
  EXPECT_ERROR(WeightMap::from_json("nonsense"), "weight map");
  EXPECT_ERROR(parse(R"({"op": "renam", "from": "a", "to": "b"})"), "unknown operation renam, operation 0");
  EXPECT_ERROR(parse(R"({"op": "ignore", "pattern": "a"}, {"op": "rename", "from": "a"})"),
               "is missing, to in operation 1");
  EXPECT_ERROR(parse(R"({"op": "rename", "from": "a", "to": ["b"]})"), "is no text, to in operation 0");
  EXPECT_ERROR(parse(R"({"op": "rename", "from": "a", "to": "b", "tu": 1})"), "unknown field tu");
  EXPECT_ERROR(parse(R"({"op": "split", "from": "a", "to": "b"})"), "is no list");
  EXPECT_ERROR(parse(R"({"op": "split", "from": "a", "to": ["b"], "groups": 1.5})"), "is no whole number");
  EXPECT_ERROR(parse(R"({"op": "permute", "slots": "a"})"), "is missing, heads");
  EXPECT_ERROR(parse(R"({"op": "apply", "slots": "a", "function": "sine"})"), "unknown function");
  EXPECT_ERROR(parse(R"(3)"), "has no op");
}

TEST(WeightMap, RulesAreCheckedWhenDeclared) {
  WeightMap map;
  EXPECT_ERROR(map.rename("", "a"), "an empty name");
  EXPECT_ERROR(map.rename("a.*", "b"), "* in the name of a rule");
  EXPECT_ERROR(map.rename("a.{i}", "b.{j}"), "{j} on the right only");
  EXPECT_ERROR(map.rename("a.x{i}", "b"), "stands alone between dots");
  EXPECT_ERROR(map.rename("a.{i", "b"), "stands alone between dots");
  EXPECT_ERROR(map.rename("{layer}.{layer}", "b"), "{layer} twice");
  EXPECT_ERROR(map.split("a", {}), "nothing on the right");
  EXPECT_ERROR(map.split("a", {"b", "c"}, {.sizes = {1}}), "1 sizes for 2 names");
  EXPECT_ERROR(map.split("a", {"b"}, {.groups = 0}), "groups of 0");
  EXPECT_ERROR(map.slice("a", "b", -1, 1), "rows -1 + 1");
  EXPECT_ERROR(map.permute("a", 0), "0 heads");
  EXPECT_ERROR(map.concat({}, "b"), "nothing on the left");
  EXPECT_ERROR(map.strip(""), "an empty prefix");
  EXPECT_EQ(map, WeightMap());                 // what was refused left nothing
  map.rename("{layer}.a.{e}.b", "{layer}.c");  // dropping a number stacks
  EXPECT_EQ(map.operations().size(), 1u);
}

TEST(WeightMap, CopiesAreIndependent) {
  const WeightMap base = hf_decoder_names();
  WeightMap more = base;
  more.ignore("x");
  EXPECT_NE(more, base);
  WeightMap moved = std::move(more);
  EXPECT_EQ(more, WeightMap());  // NOLINT: a moved-from map is an empty one
  moved.append(moved);
  EXPECT_EQ(moved.operations().size(), 2 * (base.operations().size() + 1));
}

TEST(Glob, StarsAndNumbers) {
  using detail::glob;
  EXPECT_TRUE(glob("*norm", "layers.0.attn_norm"));
  EXPECT_FALSE(glob("*norm", "layers.0.attn_norm.bias"));
  EXPECT_TRUE(glob("a.{i}.b", "a.12.b"));
  EXPECT_FALSE(glob("a.{i}.b", "a.x.b"));
  EXPECT_FALSE(glob("a.{i}.b", "a..b"));
  EXPECT_TRUE(glob("*.{i}.*b", "x.y.3.4.cb"));
  EXPECT_TRUE(glob("*", ""));
  EXPECT_TRUE(glob("a*b*c", "aXbYbZc"));
  EXPECT_FALSE(glob("a*b*c", "aXbYbZ"));
  EXPECT_FALSE(glob("", "a"));
  // Stars cost no exponential time.
  EXPECT_FALSE(glob("*a*a*a*a*a*a*a*a*a*a*b", std::string(10'000, 'a')));
}

}  // namespace
}  // namespace ttt
