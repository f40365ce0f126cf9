#include "ttt/hw/target.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "ttt/base/error.h"

namespace ttt {
namespace {

TEST(Matches, Patterns) {
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("*", "layers.3.attn.q"));
  EXPECT_TRUE(matches("lm_head", "lm_head"));
  EXPECT_FALSE(matches("lm_head", "lm_head2"));
  EXPECT_FALSE(matches("lm_head", "lm"));
  EXPECT_TRUE(matches("layers.*.ffn.gate", "layers.3.ffn.gate"));
  EXPECT_FALSE(matches("layers.*.ffn.gate", "layers.3.ffn.gate_up"));
  EXPECT_TRUE(matches("layers.*.ffn*.gate", "layers.3.ffn.experts.gate"));
  EXPECT_TRUE(matches("*norm", "layers.3.attn.q_norm"));
  EXPECT_TRUE(matches("*a*b*c*", "xxaxbxxbxcx"));
  EXPECT_FALSE(matches("*a*b*c", "xxaxbxxbxcx"));
  EXPECT_TRUE(matches("*ab", "aab"));
  EXPECT_TRUE(matches("", ""));
  EXPECT_FALSE(matches("", "a"));
}

TEST(Matches, Ranges) {
  EXPECT_TRUE(matches("layers.[0:2].attn", "layers.1.attn"));
  EXPECT_FALSE(matches("layers.[0:2].attn", "layers.2.attn"));
  EXPECT_TRUE(matches("layers.[30:].*", "layers.30.attn.q"));
  EXPECT_TRUE(matches("layers.[30:].*", "layers.123.attn.q"));
  EXPECT_FALSE(matches("layers.[30:].*", "layers.3.attn.q"));
  EXPECT_TRUE(matches("layers.[:].attn", "layers.7.attn"));
  EXPECT_TRUE(matches("*.[1:2].attn", "layers.1.attn"));
  EXPECT_FALSE(matches("layers.[0:9]", "layers.x"));
  EXPECT_FALSE(matches("layers.[0:9]", "layers.-1"));
  EXPECT_FALSE(matches("layers.[0:9]", "layers."));
  EXPECT_FALSE(matches("layers.[0:9", "layers.1"));
}

TEST(Matches, RangesFromTheEnd) {
  EXPECT_TRUE(matches("layers.[-2:].attn", "layers.30.attn", 32));
  EXPECT_TRUE(matches("layers.[-2:].attn", "layers.31.attn", 32));
  EXPECT_FALSE(matches("layers.[-2:].attn", "layers.29.attn", 32));
  EXPECT_TRUE(matches("layers.[2:-2].attn", "layers.29.attn", 32));
  EXPECT_FALSE(matches("layers.[2:-2].attn", "layers.30.attn", 32));
  EXPECT_FALSE(matches("layers.[-2:].attn", "layers.31.attn"));  // how many layers is not known
}

struct Expected {
  const char* module;
  DataType dtype;
};

void expect_weights(const char* precision, std::initializer_list<Expected> rows) {
  const Target t = make_target(hw::cpu(), precision);
  for (const Expected& row : rows) {
    EXPECT_EQ(t.weight_dtype(row.module), row.dtype)
        << precision << " " << row.module << ": " << name(t.weight_dtype(row.module));
  }
}

constexpr DataType f32 = DataType::f32, bf16 = DataType::bf16, bfp8 = DataType::bfp8_b,
                   bfp4 = DataType::bfp4_b;

TEST(Recipes, Weights) {
  for (const auto& [precision, matrix, small] : {std::tuple<const char*, DataType, DataType>{"f32", f32, f32},
                                                 {"bf16", bf16, bf16},
                                                 {"bfp8_b", bfp8, bf16},
                                                 {"bfp4_b", bfp4, bf16}}) {
    expect_weights(precision, {{"layers.3.attn.q", matrix},
                               {"layers.3.attn.qkv", matrix},
                               {"layers.3.ffn.gate", matrix},
                               {"lm_head", matrix},
                               {"layers.3.ffn.down", matrix},
                               {"layers.3.ffn.experts.up", matrix},
                               {"layers.3.ffn.shared.down", matrix},
                               {"layers.3.ffn.router", small},
                               {"layers.3.ffn.shared_gate", small},
                               {"layers.3.attn_norm", small},
                               {"norm", small},
                               {"layers.3.attn.q_norm", small},
                               {"embed", small}});
  }
  expect_weights("performance", {{"layers.3.ffn.gate", bfp4},
                                 {"layers.3.ffn.up", bfp4},
                                 {"layers.3.ffn.gate_up", bfp4},
                                 {"layers.3.ffn.experts.gate", bfp4},
                                 {"layers.3.ffn.shared.up", bfp4},
                                 {"layers.3.ffn.down", bfp8},
                                 {"layers.3.ffn.experts.down", bfp8},
                                 {"layers.3.attn.qkv", bfp8},
                                 {"layers.3.attn.o", bfp8},
                                 {"lm_head", bfp8},
                                 {"layers.3.ffn.router", bf16},
                                 {"layers.3.ffn.shared_gate", bf16},
                                 {"norm", bf16}});
  expect_weights("accuracy", {{"layers.3.ffn.gate", bfp8},
                              {"layers.3.ffn.gate_up", bfp8},
                              {"layers.3.ffn.down", bfp8},
                              {"layers.3.ffn.experts.down", bfp8},
                              {"layers.3.attn.qkv", bf16},
                              {"layers.3.attn.o", bf16},
                              {"lm_head", bfp8},
                              {"layers.3.ffn.router", bf16},
                              {"embed", bf16}});
}

TEST(Recipes, ActivationsCacheAndFidelity) {
  for (const std::string& precision : precision_names()) {
    const Target t = make_target(hw::cpu(), precision);
    EXPECT_EQ(t.precision, precision);
    EXPECT_EQ(t.activation_dtype(), precision == "f32" ? f32 : bf16) << precision;
    EXPECT_EQ(t.kv_dtype("layers.0.attn"), precision == "f32"           ? f32
                                           : precision == "performance" ? bfp8
                                                                        : bf16)
        << precision;
    for (const Override& row : t.rows) EXPECT_EQ(row.origin, "recipe " + precision);
  }
  EXPECT_EQ(precision_names(),
            (std::vector<std::string>{"f32", "bf16", "bfp8_b", "bfp4_b", "accuracy", "performance"}));
  const Target t = make_target(hw::n150(), "performance");
  EXPECT_EQ(t.compute_config("layers.0.ffn.gate").math_fidelity, MathFidelity::lofi);
  EXPECT_FALSE(t.compute_config("layers.0.ffn.gate").fp32_dest_acc_en);
  EXPECT_EQ(t.compute_config("layers.0.attn.o").math_fidelity, MathFidelity::hifi2);
  EXPECT_EQ(t.compute_config("layers.0.ffn.router").math_fidelity, MathFidelity::hifi4);
}

TEST(Target, UnknownPrecisionAndMesh) {
  try {
    make_target(hw::cpu(), "fast");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "unknown precision \"fast\", use one of f32, bf16, bfp8_b, bfp4_b, accuracy, performance");
  }
  EXPECT_NO_THROW(make_target(hw::t3k(), "bf16", {1, 8}));
  EXPECT_THROW(make_target(hw::n300(), "bf16", {2, 2}), Error);
  EXPECT_NO_THROW(make_target(hw::cpu(), "bf16", {2, 2}));  // simulated
}

TEST(Target, WithoutRowsEverythingIsBf16) {
  const Target t;
  EXPECT_EQ(t.weight_dtype("lm_head"), bf16);
  EXPECT_EQ(t.kv_dtype("layers.0.attn"), bf16);
  EXPECT_EQ(t.activation_dtype(), bf16);
  EXPECT_FALSE(t.memory_config("lm_head"));
  EXPECT_FALSE(t.program_config("lm_head"));
}

TEST(Overrides, LaterRowsWin) {
  Target t = make_target(hw::cpu(), "performance");
  t.layers = 4;
  add_overrides(t, R"json([
    {"module": "layers.[-1:].*", "field": "weights", "value": "bf16"},
    {"module": "layers.[:2].attn", "field": "kv", "value": "bf16"},
    {"module": "lm_head", "field": "math_fidelity", "value": "hifi4"},
    {"module": "lm_head", "field": "memory", "value": "l1 width_sharded 8x4 [32, 64]"},
    {"module": "lm_head", "field": "program_config", "value": "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(in0_block_w=3)"}
  ])json",
                "test");
  EXPECT_EQ(t.weight_dtype("layers.3.ffn.gate"), bf16);
  EXPECT_EQ(t.weight_dtype("layers.2.ffn.gate"), bfp4);
  EXPECT_EQ(t.kv_dtype("layers.1.attn"), bf16);
  EXPECT_EQ(t.kv_dtype("layers.2.attn"), bfp8);
  EXPECT_EQ(t.compute_config("lm_head").math_fidelity, MathFidelity::hifi4);
  EXPECT_EQ(t.memory_config("lm_head")->memory_layout, TensorMemoryLayout::width_sharded);
  EXPECT_EQ(std::get<MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>(*t.program_config("lm_head"))
                .in0_block_w,
            3);
  EXPECT_EQ(t.rows.back().origin, "test");
  EXPECT_EQ(t.find("layers.1.attn", "kv"), "bf16");
  EXPECT_EQ(t.find("layers.1.attn", "memory"), std::nullopt);
}

TEST(Overrides, ErrorsNameTheRowAndTheField) {
  const auto message = [](const char* json) -> std::string {
    Target t;
    try {
      add_overrides(t, json, "o.json");
    } catch (const Error& e) {
      EXPECT_TRUE(t.rows.empty());
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(message("{}"),
            R"(overrides are no list of rows, o.json, write [{"module": .., "field": .., "value": ..}, ..])");
  EXPECT_EQ(message(R"([{"module": "*", "field": "weights", "value": "bf16"}, 3])"),
            R"(a row is no object, o.json: row 2, write {"module": .., "field": .., "value": ..})");
  EXPECT_EQ(message(R"([{"module": "*", "field": "weigths", "value": "bf16"}])"),
            "unknown field \"weigths\", o.json: row 1, did you mean \"weights\"?");
  EXPECT_EQ(message(R"([{"module": "*", "field": "zzzzzzzzzzzz", "value": "bf16"}])"),
            "unknown field \"zzzzzzzzzzzz\", o.json: row 1, use one of weights, kv, activations, "
            "math_fidelity, memory, program_config");
  EXPECT_EQ(message(R"([{"modul": "*", "field": "kv", "value": "bf16"}])"),
            "unknown key \"modul\", o.json: row 1, did you mean \"module\"?");
  EXPECT_EQ(message(R"([{"module": "*", "field": "kv"}])"), "no text \"value\", o.json: row 1");
  EXPECT_EQ(message(R"([{"module": "*", "field": "kv", "value": 8}])"), "no text \"value\", o.json: row 1");
  EXPECT_EQ(message(R"([{"module": "*", "field": "kv", "value": "bfp4_b"}])"),
            "the value \"bfp4_b\" is not possible, o.json: row 1, use one of f32, bf16, bfp8_b");
  EXPECT_EQ(message(R"([{"module": "*", "field": "weights", "value": "u8"}])"),
            "the value \"u8\" is not possible, o.json: row 1, use one of f32, bf16, bfp8_b, bfp4_b");
  EXPECT_EQ(
      message(R"([{"module": "layers.[3]", "field": "kv", "value": "bf16"}])"),
      "the range in \"layers.[3]\" cannot be read, o.json: row 1, write it as layers.[30:] or layers.[0:2]");
  EXPECT_EQ(message(R"([{"module": "lm_head", "field": "activations", "value": "f32"}])"),
            "activations have one dtype in the whole model, o.json: row 1, set them for \"*\"");
  EXPECT_NE(message("[").find("no valid JSON: "), std::string::npos);
  EXPECT_NE(message(std::string(200000, '[').c_str()).find("no valid JSON: "), std::string::npos);
}

TEST(Overrides, Files) {
  Target t;
  EXPECT_THROW(add_overrides(t, std::filesystem::path("/no/such/file.json")), Error);
  const auto path = std::filesystem::temp_directory_path() / "ttt_overrides_test.json";
  std::ofstream(path) << R"([{"module": "*", "field": "weights", "value": "f32"}])";
  add_overrides(t, path);
  EXPECT_EQ(t.weight_dtype("norm"), f32);
  EXPECT_EQ(t.rows[0].origin, path.string());
  std::filesystem::remove(path);
}

// A row set by a program is not checked when it is appended, so its use names it.
TEST(Overrides, HandMadeRowsAreCheckedWhenUsed) {
  Target t;
  t.rows.push_back({"lm_head", "weights", "fp8", "model"});
  try {
    t.weight_dtype("lm_head");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "the value \"fp8\" is not possible, model: weights of \"lm_head\", use one of f32, bf16, "
                 "bfp8_b, bfp4_b");
  }
  EXPECT_EQ(t.weight_dtype("norm"), bf16);
}

}  // namespace
}  // namespace ttt
