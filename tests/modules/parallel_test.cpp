// Modules divided over meshes against the same modules on one device.
#include <gtest/gtest.h>

#include "modules/support.h"
#include "ttt/modules/attention.h"
#include "ttt/modules/embedding.h"
#include "ttt/modules/latent_attention.h"
#include "ttt/modules/lm_head.h"
#include "ttt/modules/moe.h"

namespace {

using namespace ttt;
using namespace ttt::test;

constexpr std::int64_t dim = 64, hidden = 96, tokens = 6;
constexpr double bound = 2e-5;

struct Place {
  Target target;
  Home home;
  // What every device has, as the stream: each row of devices its part of the width.
  Tensor stream(const std::vector<float>& x, std::int64_t width = dim) const {
    const Tensor whole = from_host(home.backend(), x,
                                   {1, 1, static_cast<std::int64_t>(x.size()) / width, width}, DataType::f32);
    return ops::mesh_partition(whole, 3, stream_axis);
  }
  static std::vector<float> values(const Tensor& stream) {
    return to_host(ops::all_gather(stream, 3, stream_axis));
  }
};

Place place(Mesh mesh) {
  return {make_target(hw::cpu(), "f32", mesh),
          {.device = open_device("cpu", {.threads = 2, .mesh = mesh}), .cache = {}, .bound = {}}};
}

class OnMesh : public testing::TestWithParam<Mesh> {};

TEST_P(OnMesh, Norms) {
  const Place p = place(GetParam()), one = place({});
  const Matrix w = vector(dim, 1, 1), b = vector(dim, 2, 1);
  const std::vector<float> x = values(tokens * dim, 3);
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    const auto run = [&](const Place& where) {
      const bool bias = kind == NormKind::layer;
      const Norm norm = Norm::from_config({.spec = {.kind = kind, .bias = bias},
                                           .weight = w.weight(WeightRole::vector),
                                           .bias = bias ? b.weight(WeightRole::vector) : LazyWeight{},
                                           .mesh_axis = stream_axis},
                                          where.target, where.home);
      return Place::values(norm.forward(where.stream(x)));
    };
    EXPECT_LT(largest_difference(run(p), run(one)), bound);
  }
}

TEST_P(OnMesh, Mlp) {
  const Place p = place(GetParam()), one = place({});
  const Matrix gate = matrix(hidden, dim, 1), up = matrix(hidden, dim, 2), down = matrix(dim, hidden, 3);
  const Matrix ub = vector(hidden, 4), db = vector(dim, 5);
  const std::vector<float> x = values(tokens * dim, 6);
  for (const bool gated : {true, false}) {
    const auto run = [&](const Place& where) {
      const Mlp mlp = Mlp::from_config({.gate = gated ? gate.weight() : LazyWeight{},
                                        .up = up.weight(),
                                        .down = down.weight(),
                                        .up_bias = ub.weight(WeightRole::vector),
                                        .down_bias = db.weight(WeightRole::vector)},
                                       where.target, where.home);
      return Place::values(mlp.prefill(where.stream(x)));
    };
    EXPECT_LT(largest_difference(run(p), run(one)), bound) << gated;
  }
}

TEST_P(OnMesh, Moe) {
  const Place p = place(GetParam()), one = place({});
  const std::vector<float> x = values(tokens * dim, 1);
  // Eight experts divide among devices; six do so among two only, and else each expert's hidden units do.
  for (const int experts : {8, 6}) {
    const Matrix router = matrix(experts, dim, 2), gate = matrix(experts * hidden, dim, 3),
                 up = matrix(experts * hidden, dim, 4), down = matrix(experts * dim, hidden, 5);
    const Matrix gb{experts, hidden, values(static_cast<std::size_t>(experts * hidden), 6)},
        db{experts, dim, values(static_cast<std::size_t>(experts * dim), 7)};
    const Matrix shared = matrix(dim, hidden, 8), shared_gate = matrix(1, dim, 9);
    const auto run = [&](const Place& where) {
      const Moe moe =
          Moe::from_config({.spec = {.experts = experts, .top_k = 2, .hidden = static_cast<int>(hidden)},
                            .router = {.experts = experts, .top_k = 2, .weight = router.weight()},
                            .gate = gate.weight(),
                            .up = up.weight(),
                            .down = down.weight(),
                            .gate_bias = gb.weight(WeightRole::vector),
                            .down_bias = db.weight(WeightRole::vector),
                            .shared = MlpConfig{.gate = matrix(hidden, dim, 10).weight(),
                                                .up = matrix(hidden, dim, 11).weight(),
                                                .down = shared.weight()},
                            .shared_gate = shared_gate.weight()},
                           where.target, where.home);
      return Place::values(moe.prefill(where.stream(x)));
    };
    EXPECT_LT(largest_difference(run(p), run(one)), bound) << experts;
  }
}

TEST_P(OnMesh, EmbeddingAndHeadOfAnyVocabulary) {
  const Place p = place(GetParam()), one = place({});
  for (const std::int64_t vocab : {64, 61}) {
    const Matrix table = matrix(vocab, dim, 1);
    const Matrix bias = vector(vocab, 2);
    const auto run = [&](const Place& where) {
      const Embedding embed = Embedding::from_config(
          {.weight = table.weight(WeightRole::embedding), .scale = 2.0f}, where.target, where.home);
      const LmHead head = LmHead::from_config(
          {.weight = table.weight(), .bias = bias.weight(WeightRole::vector), .scale = 0.5f, .softcap = 3.0f},
          where.target, where.home);
      const std::vector<std::int32_t> ids{0, 17, 33, static_cast<std::int32_t>(vocab) - 1};
      return to_host(head(embed(from_host(where.home.backend(), ids, {1, 1, 1, 4}))));
    };
    const std::vector<float> logits = run(p);
    EXPECT_EQ(logits.size(), static_cast<std::size_t>(4 * vocab));
    EXPECT_LT(largest_difference(logits, run(one)), bound) << vocab;
  }
}

TEST_P(OnMesh, Attention) {
  const Place p = place(GetParam()), one = place({});
  const std::vector<float> x = values(tokens * dim, 1);
  AttentionSpec plain{
      .heads = 8, .kv_heads = 2, .head_dim = 8};  // two kv heads: shared by devices of wide meshes
  AttentionSpec rich = plain;
  rich.kv_heads = 8;
  rich.qkv_bias = rich.out_bias = rich.sinks = true;
  rich.qk_norm = QkNorm::full_width;
  rich.gate = AttentionGateSpec{.per_head = true};
  rich.alibi = 1;
  AttentionSpec own = plain;
  own.qk_norm = QkNorm::per_head_weights;
  own.v_head_dim = 16;
  own.window = 3;
  for (const AttentionSpec& spec : {plain, rich, own}) {
    const std::int64_t v_dim = spec.v_head_dim > 0 ? spec.v_head_dim : spec.head_dim;
    const Matrix q = matrix(spec.heads * spec.head_dim, dim, 2),
                 k = matrix(spec.kv_heads * spec.head_dim, dim, 3), v = matrix(spec.kv_heads * v_dim, dim, 4),
                 o = matrix(dim, spec.heads * v_dim, 5);
    const auto run = [&](const Place& where) {
      AttentionConfig c{.spec = spec, .q = q.weight(), .k = k.weight(), .v = v.weight(), .o = o.weight()};
      c.name = {"attn", 0};
      if (spec.qkv_bias) {
        c.q_bias = vector(q.rows, 6).weight(WeightRole::vector);
        c.v_bias = vector(v.rows, 7).weight(WeightRole::vector);
        c.o_bias = vector(dim, 8).weight(WeightRole::vector);
      }
      if (spec.sinks) c.sinks = vector(spec.heads, 9).weight(WeightRole::vector);
      if (spec.gate) c.gate = matrix(spec.heads, dim, 10).weight();
      if (spec.qk_norm == QkNorm::full_width) {
        c.q_norm = vector(q.rows, 11).weight(WeightRole::vector);
        c.k_norm = vector(k.rows, 12).weight(WeightRole::vector);
      } else if (spec.qk_norm == QkNorm::per_head_weights) {
        c.q_norm = Matrix{spec.heads, spec.head_dim, values(64, 13)}.weight(WeightRole::vector);
        c.k_norm = Matrix{spec.kv_heads, spec.head_dim, values(16, 14)}.weight(WeightRole::vector);
      }
      const Attention attention = Attention::from_config(c, where.target, where.home);
      const AttentionSpec& part = attention.plan().spec;
      Stage stage(1, part.kv_heads, part.head_dim, DataType::f32, static_cast<int>(v_dim), 4, 16,
                  where.home.backend());
      std::vector<float> all =
          Place::values(attention.prefill(where.stream(x), stage.step({{0, tokens}}, {0})));
      const std::vector<float> next(x.begin(), x.begin() + dim);
      for (const float y :
           Place::values(attention.decode(where.stream(next), stage.step({{tokens, 1}}, {0}))))
        all.push_back(y);
      return all;
    };
    EXPECT_LT(largest_difference(run(p), run(one)), bound) << static_cast<int>(spec.qk_norm);
  }
}

TEST_P(OnMesh, LatentAttention) {
  const Place p = place(GetParam()), one = place({});
  const std::vector<float> x = values(tokens * dim, 1);
  const RopeSpec rope{.theta = 100, .interleaved = true};
  LatentAttentionSpec plain{
      .heads = 8, .kv_lora_rank = 24, .nope_dim = 10, .rope_dim = 6, .v_head_dim = 12, .rope = rope};
  LatentAttentionSpec rich = plain;
  rich.q_lora_rank = 20;
  rich.bias = rich.sinks = true;
  rich.gate = AttentionGateSpec{};
  rich.indexer = IndexerSpec{.heads = 5, .head_dim = 12, .top_k = 3, .rope = rope};
  rich.indexer->rope->rotary_dim = 6;
  for (const LatentAttentionSpec& spec : {plain, rich}) {
    const auto run = [&](const Place& where) {
      const auto linear = [](std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
        return matrix(rows, cols, seed).weight();
      };
      const auto row = [](std::int64_t n, std::uint64_t seed) {
        return vector(n, seed, 1).weight(WeightRole::vector);
      };
      const bool more = spec.q_lora_rank > 0;
      LatentAttentionConfig c{.spec = spec,
                              .q = linear(spec.heads * 16, more ? spec.q_lora_rank : dim, 2),
                              .kv_a = linear(30, dim, 3),
                              .kv_a_norm = row(24, 4),
                              .k_b = linear(spec.heads * 10, 24, 5),
                              .v_b = linear(spec.heads * 12, 24, 6),
                              .o = linear(dim, spec.heads * 12, 7),
                              .name = {"attn", 0}};
      if (more) {
        c.q_a = linear(20, dim, 8), c.q_a_norm = row(20, 9);
        c.q_a_bias = row(20, 10), c.kv_a_bias = row(30, 11), c.o_bias = row(dim, 12);
        c.gate = linear(spec.heads * 12, dim, 13), c.sinks = row(spec.heads, 14);
        c.indexer = IndexerConfig{.spec = *spec.indexer,
                                  .q = linear(60, 20, 15),
                                  .k = linear(12, dim, 16),
                                  .weights = linear(5, dim, 17),
                                  .k_norm = row(12, 18),
                                  .k_norm_bias = row(12, 19),
                                  .name = {"attn.indexer", 0}};
      }
      const LatentAttention attention = LatentAttention::from_config(c, where.target, where.home);
      EXPECT_EQ(attention.plan().spec.heads * where.target.mesh.cols, spec.heads);
      Stage stage(1, 1, 30, DataType::f32, 0, 4, 16, where.home.backend());
      stage.add_indexer(12, DataType::f32);
      std::vector<float> all =
          Place::values(attention.prefill(where.stream(x), stage.step({{0, tokens}}, {0})));
      const std::vector<float> next(x.begin(), x.begin() + dim);
      for (const float y :
           Place::values(attention.decode(where.stream(next), stage.step({{tokens, 1}}, {0}))))
        all.push_back(y);
      return all;
    };
    EXPECT_LT(largest_difference(run(p), run(one)), bound) << spec.q_lora_rank;
  }
}

INSTANTIATE_TEST_SUITE_P(Meshes, OnMesh,
                         testing::Values(Mesh{1, 2}, Mesh{1, 4}, Mesh{1, 8}, Mesh{2, 4}, Mesh{4, 1}),
                         [](const auto& mesh) { return "mesh" + to_string(mesh.param); });

TEST(Parallel, WhatDoesNotDivideIsAnErrorOfTheModule) {
  const Place p = place({1, 4});
  const auto mlp = [&](std::int64_t width) {
    return resolve(MlpConfig{.gate = matrix(width, dim, 1).weight(),
                             .up = matrix(width, dim, 2).weight(),
                             .down = matrix(dim, width, 3).weight(),
                             .name = {"layers.0.ffn"}},
                   p.target);
  };
  EXPECT_NO_THROW(mlp(96));
  try {
    mlp(90);
    ADD_FAILURE() << "90 units on 4 devices";
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "layers.0.ffn.gate");
    EXPECT_NE(error.problem().find("90 rows do not divide among 4 devices"), std::string::npos)
        << error.problem();
  }
  EXPECT_TRUE(divides(AttentionSpec{.heads = 8, .kv_heads = 2, .head_dim = 8}, {1, 4}));
  EXPECT_FALSE(divides(AttentionSpec{.heads = 6, .kv_heads = 2, .head_dim = 8}, {1, 4}));
  EXPECT_FALSE(divides(AttentionSpec{.heads = 12, .kv_heads = 3, .head_dim = 8}, {1, 4}));
}

}  // namespace
