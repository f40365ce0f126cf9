#include "ttt/convert/hf_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "convert/files.h"

namespace ttt {
namespace {

HfConfig parse(std::string_view json) { return HfConfig::parse(json, "config.json"); }
using Names = std::vector<std::string>;

TEST(HfConfig, TypedReads) {
  const HfConfig c =
      parse(R"({"i": 3, "f": 2.5, "whole": 4.0, "b": true, "one": 1, "s": "x", "n": null, "big": 5000000000,
    "is": [1, 2.0], "fs": [1, 2.5], "bs": [true, 0, 1], "ss": ["a", "b"], "inf": [0.0, {"__float__": "Infinity"}], "o": {"x": {"y": 7}}})");
  EXPECT_EQ(c.get<int>("i"), 3);
  EXPECT_EQ(c.get<float>("i"), 3.0f);
  EXPECT_EQ(c.get<int>("whole"), 4);
  EXPECT_EQ(c.get<float>("f"), 2.5f);
  EXPECT_TRUE(c.get<bool>("b"));
  EXPECT_TRUE(c.get<bool>("one"));
  EXPECT_EQ(c.get<std::string>("s"), "x");
  EXPECT_EQ(c.find<int>("n"), std::nullopt);
  EXPECT_EQ(c.find<int>("absent"), std::nullopt);
  EXPECT_EQ(c.get_or("absent", 9), 9);
  EXPECT_EQ(c.get<std::int64_t>("big"), 5000000000);
  EXPECT_EQ(c.get<std::vector<int>>("is"), (std::vector<int>{1, 2}));
  EXPECT_EQ(c.get<std::vector<float>>("fs"), (std::vector<float>{1, 2.5f}));
  EXPECT_EQ(c.get<std::vector<bool>>("bs"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(c.get<std::vector<std::string>>("ss"), (Names{"a", "b"}));
  EXPECT_TRUE(std::isinf(c.get<std::vector<float>>("inf")[1]));
  EXPECT_EQ(c.get<int>("o.x.y"), 7);
  EXPECT_EQ(c.child("o").child("x").get<int>("y"), 7);
  EXPECT_EQ(c.json("o"), R"({"x":{"y":7}})");
  EXPECT_EQ(c.json("absent"), "null");

  EXPECT_ERROR(c.get<int>("f"), "2.5 is no whole number in range, f of config.json");
  EXPECT_ERROR(c.get<int>("big"), "whole number in range");
  EXPECT_ERROR(c.get<int>("s"), "\"x\" is no whole number");
  EXPECT_ERROR(c.get<bool>("i"), "3 is no flag");
  EXPECT_ERROR(c.get<std::string>("i"), "is no text");
  EXPECT_ERROR(c.get<std::vector<int>>("i"), "is no list");
  EXPECT_ERROR(c.get<std::vector<int>>("fs"), "entry 1 of fs");
  EXPECT_ERROR(c.child("i"), "is no object");
  EXPECT_ERROR(c.get<int>("n"), "no key n, config.json");
}

TEST(HfConfig, AMissingKeyNamesTheNearest) {
  EXPECT_ERROR(parse(R"({"rope_tetha": 1, "x": 2})").get<float>("rope_theta"),
               "no key rope_theta, config.json, the nearest key is rope_tetha");
  EXPECT_ERROR(parse(R"({"t": {"heads": 1}})").child("t").get<int>("headz"), "no key t.headz");
}

TEST(HfConfig, RefusesWhatIsNoConfig) {
  EXPECT_ERROR(parse("[1]"), "is no JSON object");
  EXPECT_ERROR(parse(""), "config.json");
  EXPECT_ERROR(parse("{\"a\": }"), "parse error at line 1");
  EXPECT_ERROR(parse("{\"a\": " + std::string(100'000, '[')), "nested deeper than 64");
  EXPECT_ERROR(parse(R"({"a": 1e999})").get<float>("a"), "config.json");
  EXPECT_ERROR(parse(R"({"a": 1e300})").get<float>("a"), "in range of a float");
}

TEST(HfConfig, PythonsFloats) {
  const HfConfig c = parse(
      R"({"a": Infinity, "b": -Infinity, "c": NaN, "text": "NaN \" Infinity", "d": [1, Infinity], "e": -1})");
  EXPECT_EQ(c.get<float>("a"), INFINITY);
  EXPECT_EQ(c.get<double>("b"), -INFINITY);
  EXPECT_TRUE(std::isnan(c.get<float>("c")));
  EXPECT_EQ(c.get<std::string>("text"), "NaN \" Infinity");
  EXPECT_EQ(c.get<std::vector<float>>("d")[1], INFINITY);
  EXPECT_EQ(c.get<int>("e"), -1);
}

TEST(HfConfig, OlderSpellings) {
  const HfConfig c = parse(
      R"({"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "n_inner": null, "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-6})");
  EXPECT_EQ(c.get<int>("hidden_size"), 64);
  EXPECT_EQ(c.layers(), 3);
  EXPECT_EQ(c.heads(), 4);
  EXPECT_EQ(c.kv_heads(), 4);
  EXPECT_EQ(c.head_dim(), 16);
  EXPECT_EQ(c.get<int>("max_position_embeddings"), 128);
  EXPECT_EQ(c.find<int>("intermediate_size"), std::nullopt);
  EXPECT_EQ(c.act().op, UnaryOp::gelu_tanh);
  EXPECT_EQ(c.norm_eps(), 1e-6f);
  EXPECT_TRUE(c.unread().empty());
  // Today's name goes before the older one.
  EXPECT_EQ(parse(R"({"n_embd": 1, "hidden_size": 2})").get<int>("hidden_size"), 2);
  EXPECT_EQ(parse(R"({"multi_query": true, "n_head": 8})").kv_heads(), 1);
  EXPECT_EQ(parse(R"({"multi_query": true, "n_head": 8, "num_kv_heads": 2})").kv_heads(), 2);
  EXPECT_EQ(parse(R"({"hidden_size": 65, "n_head": 4})").head_dim(), 16);
  EXPECT_ERROR(parse(R"({"hidden_size": 3, "n_head": 4})").head_dim(), "3 for num_attention_heads 4");
}

TEST(HfConfig, UnreadKeysAreReported) {
  const HfConfig c = parse(
      R"({"architectures": ["X"], "hidden_size": 1, "mystery": false, "nothing": null, "attention_dropout": 0.1,
    "bos_token_id": 1, "rope_parameters": {"rope_theta": 1, "odd": 2}, "table": {"a": 1}, "mlp_bias": true, "slow_but_exact": true})");
  EXPECT_EQ(c.unread(),
            (Names{"hidden_size", "mystery", "rope_parameters", "table", "mlp_bias", "slow_but_exact"}));
  c.get<int>("hidden_size");
  c.child("rope_parameters").get<int>("rope_theta");
  c.find<bool>("mlp_bias");
  EXPECT_EQ(c.unread(), (Names{"mystery", "rope_parameters.odd", "table", "slow_but_exact"}));
  c.ignore({"myst*", "table", "rope_parameters.odd"});
  EXPECT_EQ(c.unread(), Names{"slow_but_exact"});
  c.get<bool>("slow_but_exact");
  EXPECT_TRUE(c.unread().empty());
  EXPECT_TRUE(parse(R"({"slow_but_exact": false, "use_bidirectional_attention": false})").unread().empty());
}

TEST(HfConfig, TheRecordCrossesToAnotherCopy) {
  const char* json = R"({"a": 1, "b": {"c": 2, "d": 3}, "e": 4})";
  const HfConfig here = parse(json), there = parse(json);
  there.get<int>("a");
  there.get<int>("b.c");
  there.ignore({"e"});
  here.merge_record(there.record_json());
  EXPECT_EQ(here.unread(), Names{"b.d"});
  EXPECT_ERROR(here.merge_record("{\"read\": 3}"), "is no list");
}

TEST(HfConfig, TextPart) {
  const HfConfig c = parse(
      R"({"text_config": {"hidden_size": 8, "odd": 1}, "vision_config": {"x": 1}, "image_token_index": 5, "mm_tokens_per_image": 4,
    "projector_hidden_act": "gelu", "hidden_size": 9, "other": 1})");
  const HfConfig text = c.text();
  EXPECT_EQ(text.get<int>("hidden_size"), 8);
  EXPECT_EQ(c.unread(), (Names{"text_config.odd", "other"}));
  EXPECT_EQ(parse(R"({"hidden_size": 8})").text().get<int>("hidden_size"), 8);
}

TEST(HfConfig, Requirements) {
  const HfConfig c = parse(R"({"alibi": true, "kind": "b", "n": 2})");
  c.require("absent", true);
  c.require("alibi", true);
  EXPECT_ERROR(c.require("alibi", false), "alibi is true, config.json");
  EXPECT_ERROR(c.require("kind", "a"), "kind is b");
  EXPECT_ERROR(c.require("n", 1), "n is 2");
}

TEST(HfConfig, Activations) {
  EXPECT_EQ(parse("{}").act().op, UnaryOp::silu);
  EXPECT_EQ(parse(R"({"hidden_activation": "gelu_pytorch_tanh"})").act().op, UnaryOp::gelu_tanh);
  EXPECT_EQ(HfConfig::act("relu2").op, UnaryOp::relu2);
  EXPECT_EQ(HfConfig::act("gelu").op, UnaryOp::gelu);
  EXPECT_ERROR(parse(R"({"hidden_act": "mish2"})").act(),
               "unknown activation mish2, config.json, known are silu");
}

TEST(HfConfig, LayerTypesAndWindows) {
  const HfConfig types = parse(
      R"({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "sliding_window_pattern": 6})");
  EXPECT_EQ(types.layer_type(1), "full_attention");
  EXPECT_TRUE(types.slides(0));
  EXPECT_FALSE(types.slides(1));
  EXPECT_EQ(types.window(0), 8);
  EXPECT_EQ(types.window(1), std::nullopt);
  EXPECT_EQ(types.layers(), 2);
  EXPECT_ERROR(types.layer_type(2), "layer_types has 2 entries");
  EXPECT_TRUE(types.unread().empty());

  const HfConfig pattern = parse(R"({"sliding_window": 8, "sliding_window_pattern": 3})");
  EXPECT_TRUE(pattern.slides(0) && pattern.slides(1) && !pattern.slides(2) && pattern.slides(3));
  const HfConfig letters = parse(R"({"sliding_window": 8, "sliding_window_pattern": "LLG"})");
  EXPECT_TRUE(letters.slides(0) && letters.slides(1) && !letters.slides(2) && letters.slides(3));
  EXPECT_EQ(parse(R"({"sliding_window": 8})").window(3), 8);  // every layer
  EXPECT_EQ(parse(R"({"sliding_window": 8})").window(1, 2),
            std::nullopt);  // every other one, says the family
  EXPECT_EQ(parse(R"({"sliding_window": null})").window(0), std::nullopt);
  const HfConfig off = parse(R"({"sliding_window": 8, "use_sliding_window": false, "max_window_layers": 1})");
  EXPECT_FALSE(off.slides(3));
  EXPECT_TRUE(off.unread() == Names{"sliding_window"});
  const HfConfig on = parse(R"({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 2})");
  EXPECT_TRUE(!on.slides(1) && on.slides(2));
}

// --- rope: each pair says the same in the spelling of transformers 4 and 5 ---

void expect_rope(std::string_view json, const RopeSpec& expected, int layer = 0) {
  const HfConfig c = parse(json);
  const std::optional<RopeSpec> rope = c.rope(layer);
  ASSERT_TRUE(rope) << json;
  EXPECT_EQ(*rope, expected) << json;
}

TEST(Rope, Default) {
  expect_rope("{}", {});
  expect_rope(R"({"rope_theta": 5e5, "rope_scaling": null})", {.theta = 5e5f});
  expect_rope(R"({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})", {.theta = 5e5f});
  expect_rope(
      R"({"rotary_emb_base": 20000, "rotary_pct": 0.25, "hidden_size": 64, "num_attention_heads": 2})",
      {.theta = 20000, .rotary_dim = 8});
  expect_rope(R"({"partial_rotary_factor": 0.5, "head_dim": 16})", {.rotary_dim = 8});
  expect_rope(R"({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.334}, "head_dim": 24})",
              {.rotary_dim = 8});
  expect_rope(R"({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}, "head_dim": 24})",
              {});
  expect_rope(R"({"rotary_dim": 64, "head_dim": 256})", {.rotary_dim = 64});
}

TEST(Rope, Scalings) {
  RopeSpec linear{.theta = 1e4f};
  linear.scaling = {.kind = RopeScalingKind::linear, .factor = 2};
  expect_rope(R"({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}})", linear);
  expect_rope(R"({"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}})", linear);

  RopeSpec dynamic{.theta = 1e4f, .max_positions = 128};
  dynamic.scaling = {.kind = RopeScalingKind::dynamic, .factor = 6};
  expect_rope(R"({"rope_scaling": {"type": "dynamic", "factor": 6.0}, "max_position_embeddings": 128})",
              dynamic);

  RopeSpec llama3{.theta = 5e5f};
  llama3.scaling = {.kind = RopeScalingKind::llama3,
                    .factor = 8,
                    .original_max_positions = 8192,
                    .low_freq_factor = 1,
                    .high_freq_factor = 4};
  expect_rope(
      R"({"rope_theta": 5e5, "max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
      llama3);
  expect_rope(
      R"({"max_position_embeddings": 131072, "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
      llama3);

  RopeSpec yarn{.theta = 150};
  yarn.scaling = {.kind = RopeScalingKind::yarn,
                  .factor = 32,
                  .original_max_positions = 4096,
                  .beta_fast = 4,
                  .mscale = 1,
                  .mscale_all_dim = 0.7f,
                  .truncate = false};
  expect_rope(
      R"({"rope_theta": 150, "rope_scaling": {"rope_type": "yarn", "factor": 32, "beta_fast": 4, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.7,
    "truncate": false, "original_max_position_embeddings": 4096}})",
      yarn);
  RopeSpec derived{.theta = 150};
  derived.scaling = {.kind = RopeScalingKind::yarn, .factor = 32, .original_max_positions = 4096};
  expect_rope(
      R"({"max_position_embeddings": 131072, "rope_parameters": {"rope_theta": 150, "rope_type": "yarn", "original_max_position_embeddings": 4096}})",
      derived);

  RopeSpec longrope{.theta = 1e4f, .rotary_dim = 4};
  longrope.scaling = {.kind = RopeScalingKind::longrope,
                      .factor = 8,
                      .original_max_positions = 16,
                      .short_factor = {1, 2},
                      .long_factor = {3, 4}};
  expect_rope(
      R"({"head_dim": 8, "partial_rotary_factor": 0.5, "max_position_embeddings": 128, "original_max_position_embeddings": 16,
    "rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4]}})",
      longrope);
  expect_rope(
      R"({"head_dim": 8, "max_position_embeddings": 128, "original_max_position_embeddings": 16, "rope_parameters": {"partial_rotary_factor": 0.5,
    "rope_theta": 1e4, "original_max_position_embeddings": 99, "rope_type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4]}})",
      longrope);
}

TEST(Rope, ByLayerType) {
  RopeSpec full{.theta = 1e6f};
  full.scaling = {.kind = RopeScalingKind::linear, .factor = 8};
  const char* five =
      R"({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "rope_parameters": {"full_attention": {"factor": 8.0,
    "rope_theta": 1e6, "rope_type": "linear"}, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}})";
  expect_rope(five, {.theta = 1e4f}, 0);
  expect_rope(five, full, 1);
  const char* four =
      R"({"sliding_window_pattern": 2, "sliding_window": 8, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0}})";
  expect_rope(four, {.theta = 1e4f}, 0);
  expect_rope(four, full, 1);
  const HfConfig c = parse(five);
  c.rope(0);
  c.rope(1);
  c.window(0);
  EXPECT_TRUE(c.unread().empty());

  const HfConfig none = parse(
      R"({"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"full_attention": null,
    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}})");
  EXPECT_TRUE(none.rope(0));
  EXPECT_FALSE(none.rope(1));

  const HfConfig named =
      parse(R"({"rope_parameters": {"main": {"rope_theta": 1, "rope_type": "default"}, "other": null}})");
  EXPECT_EQ(named.rope_named("main")->theta, 1.0f);
  EXPECT_FALSE(named.rope_named("other"));
  EXPECT_ERROR(named.rope_named("third"), "no entry third");
}

TEST(Rope, LayersWithout) {
  const HfConfig list = parse(R"({"no_rope_layers": [1, 0]})");
  EXPECT_TRUE(list.rope(0));
  EXPECT_FALSE(list.rope(1));
  const HfConfig interval = parse(R"({"no_rope_layer_interval": 2})");
  EXPECT_TRUE(interval.rope(0));
  EXPECT_FALSE(interval.rope(1));
}

TEST(Rope, Refuses) {
  EXPECT_ERROR(parse(R"({"rope_scaling": {"type": "magic", "factor": 2}})").rope(),
               "unknown kind of rope magic, rope_scaling of config.json");
  EXPECT_ERROR(parse(R"({"rope_scaling": {"type": "linear"}})").rope(), "needs a factor above 0");
  EXPECT_ERROR(parse(R"({"rope_theta": 0})").rope(), "a rope_theta of 0");
  EXPECT_ERROR(parse(R"({"head_dim": 8, "partial_rotary_factor": 1.5})").rope(),
               "a partial_rotary_factor of 1.5");
  EXPECT_ERROR(parse(R"({"rope_scaling": {"type": "yarn", "factor": 2}})").rope(),
               "needs original_max_position_embeddings");
  EXPECT_ERROR(
      parse(
          R"({"head_dim": 8, "max_position_embeddings": 8, "rope_scaling": {"type": "su", "factor": 2, "short_factor": [1], "long_factor": [1]}})")
          .rope(),
      "need 4 entries, one has 1");
  EXPECT_ERROR(parse(R"({"rope_scaling": 3})").rope(), "is no object");
}

}  // namespace
}  // namespace ttt
