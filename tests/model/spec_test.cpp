#include <gtest/gtest.h>

#include <set>

#include "ttt/model/build.h"
#include "ttt/model/spec.h"

namespace {

using namespace ttt;

// A spec with every field away from its default.
ModelSpec elaborate() {
  AttentionSpec attention{
      .heads = 8,
      .kv_heads = 2,
      .head_dim = 16,
      .qkv_bias = true,
      .out_bias = true,
      .qk_norm = QkNorm::full_width,
      .qk_norm_spec = {.kind = NormKind::layer, .eps = 1e-6f, .weight = true, .bias = true},
      .qk_norm_after_rope = true,
      .rope = RopeSpec{.theta = 5e5f,
                       .rotary_dim = 8,
                       .interleaved = true,
                       .max_positions = 128,
                       .scaling = {.kind = RopeScalingKind::longrope,
                                   .factor = 2,
                                   .original_max_positions = 64,
                                   .attention_factor = 1.5f,
                                   .short_factor = {1, 1, 1, 1},
                                   .long_factor = {2, 2, 2, 2}}},
      .window = 33,
      .scale = 0.3f,
      .softcap = 50.0f,
      .clip_qkv = 8.0f,
      .sinks = true};
  MoeSpec moe{.experts = 8,
              .top_k = 2,
              .hidden = 24,
              .router = {.score = RouterScore::sigmoid,
                         .renormalize = true,
                         .renormalize_eps = 1e-20f,
                         .scale = 2.5f,
                         .bias = true,
                         .correction_bias = true,
                         .groups = 4,
                         .top_groups = 2},
              .act = {UnaryOp::gelu_tanh},
              .bias = true,
              .shared = MlpSpec{.hidden = 48, .act = {UnaryOp::relu2}, .gated = false, .bias = true},
              .shared_gate = true};
  CustomSpec custom{.name = "mixer_of_mine",
                    .parameters = R"({"width": 4})",
                    .weights = {{.name = "in_proj", .rows = 64, .cols = 32}},
                    .state = {{.name = "conv", .elements = 96}}};
  ModelSpec spec{.vocab = 100,
                 .dim = 32,
                 .max_positions = 256,
                 .norm = {.kind = NormKind::layer, .eps = 1e-3f, .bias = true},
                 .embed_norm = NormSpec{},
                 .positions = PositionSpec{.entries = 256, .offset = 2},
                 .lm_head_bias = true,
                 .embed_scale = 3,
                 .logit_scale = 0.25f,
                 .logit_softcap = 30.0f};
  spec.layers = {{.mixer = attention, .ffn = moe, .residual = Residual::sandwich, .residual_scale = 0.22f},
                 {.mixer = custom, .ffn = MlpSpec{.hidden = 64}, .residual = Residual::parallel_shared}};
  return spec;
}

TEST(Spec, JsonRoundTripKeepsEveryField) {
  const ModelSpec spec = elaborate();
  EXPECT_EQ(parse_spec(to_json(spec)), spec);
  EXPECT_EQ(to_json(parse_spec(to_json(spec))), to_json(spec));
}

TEST(Spec, JsonLeavesDefaultsOut) {
  EXPECT_EQ(to_json(ModelSpec{}, -1), "{}");
  EXPECT_EQ(to_json(ModelSpec{.vocab = 7}, -1), R"({"vocab":7})");
}

TEST(Spec, ParseNamesTheWrongField) {
  const auto message = [](const char* text) -> std::string {
    try {
      parse_spec(text);
    } catch (const Error& e) { return e.what(); }
    return "accepted";
  };
  EXPECT_NE(message(R"({"vocap": 3})").find("did you mean 'vocab'"), std::string::npos);
  EXPECT_NE(message(R"({"layers": [{"mixer": {"attention": {"heads": "x"}}}]})")
                .find("layers[0].mixer.attention.heads"),
            std::string::npos);
  EXPECT_NE(message(R"({"layers": [{"residual": "none"}]})").find("one of pre_norm"), std::string::npos);
  EXPECT_NE(message(R"({"vocab": 99999999999})").find("out of range"), std::string::npos);
  EXPECT_NE(message("[1").find("not JSON"), std::string::npos);
  EXPECT_NE(message(R"({"layers": [{"mixer": {"mlp": {}}}]})").find("unknown kind"), std::string::npos);
}

TEST(Spec, ValidateRejectsContradictions) {
  ModelSpec good = elaborate();
  EXPECT_NO_THROW(validate(good));
  const auto rejects = [&](auto change) {
    ModelSpec bad = good;
    change(bad);
    EXPECT_THROW(validate(bad), Error);
  };
  rejects([](ModelSpec& m) { m.vocab = 0; });
  rejects([](ModelSpec& m) { m.layers.clear(); });
  rejects([](ModelSpec& m) { std::get<AttentionSpec>(m.layers[0].mixer).kv_heads = 3; });
  rejects([](ModelSpec& m) { std::get<AttentionSpec>(m.layers[0].mixer).alibi = 1; });
  rejects([](ModelSpec& m) { std::get<MoeSpec>(m.layers[0].ffn).top_k = 9; });
  rejects([](ModelSpec& m) { std::get<MoeSpec>(m.layers[0].ffn).router.groups = 3; });
  rejects([](ModelSpec& m) { std::get<MoeSpec>(m.layers[0].ffn).shared.reset(); });
  rejects([](ModelSpec& m) { std::get<CustomSpec>(m.layers[1].mixer).name.clear(); });
  rejects([](ModelSpec& m) { m.embed_scale = std::numeric_limits<float>::quiet_NaN(); });
}

// Two layers of latent attention: one chooses keys, the other follows.
ModelSpec latent() {
  LatentAttentionSpec chooser{
      .heads = 4,
      .q_lora_rank = 20,
      .kv_lora_rank = 24,
      .nope_dim = 10,
      .rope_dim = 6,
      .v_head_dim = 12,
      .norm_eps = 1e-4f,
      .bias = true,
      .rope = RopeSpec{.theta = 500, .interleaved = true},
      .scale = 0.4f,
      .sinks = true,
      .gate = AttentionGateSpec{.per_head = true},
      .indexer = IndexerSpec{
          .heads = 3, .head_dim = 16, .top_k = 9, .rope = RopeSpec{.rotary_dim = 6}, .norm_eps = 1e-5f}};
  LatentAttentionSpec follower = chooser;
  follower.indexer.reset();
  follower.selection_of_layer = 0;
  CustomSpec custom{
      .name = "mine",
      .caches = {kv_cache(chooser), {.kv_heads = 2, .head_dim = 8, .v_head_dim = 4, .window = 7}}};
  ModelSpec spec{.vocab = 100, .dim = 32, .max_positions = 256};
  spec.layers = {{.mixer = chooser, .ffn = MlpSpec{.hidden = 64}},
                 {.mixer = follower, .ffn = MlpSpec{.hidden = 64}},
                 {.mixer = custom, .ffn = MlpSpec{.hidden = 64}}};
  return spec;
}

TEST(Spec, LatentAttention) {
  const ModelSpec good = latent();
  EXPECT_NO_THROW(validate(good));
  EXPECT_EQ(parse_spec(to_json(good)), good);
  const auto rejects = [&](std::size_t layer, auto change) {
    ModelSpec bad = good;
    change(std::get<LatentAttentionSpec>(bad.layers[layer].mixer));
    EXPECT_THROW(validate(bad), Error);
  };
  rejects(0, [](auto& s) { s.kv_lora_rank = 0; });
  rejects(0, [](auto& s) { s.q_lora_rank = -1; });
  rejects(0, [](auto& s) { s.q_lora_rank = 0; });  // the indexer needs the query latent
  rejects(0, [](auto& s) { s.rope->rotary_dim = 8; });
  rejects(0, [](auto& s) { s.indexer->top_k = 0; });
  rejects(0, [](auto& s) { s.window = 4; });
  rejects(0, [](auto& s) { s.indexer.reset(); });  // layer 1 follows nobody
  rejects(1, [](auto& s) { s.selection_of_layer = 1; });
  rejects(1, [](auto& s) { s.indexer = IndexerSpec{.heads = 1, .head_dim = 8, .top_k = 2}; });
  ModelSpec bad = good;
  std::get<CustomSpec>(bad.layers[2].mixer).caches[1].head_dim = 0;
  EXPECT_THROW(validate(bad), Error);
}

TEST(Spec, CachesAndSlotsOfLatentAttention) {
  const ModelSpec spec = latent();
  EXPECT_EQ(kv_caches(spec.layers[0]),
            (std::vector<KvCacheSpec>{{.kv_heads = 1, .head_dim = 30, .indexer_dim = 16}}));
  EXPECT_EQ(kv_caches(spec.layers[1]), (std::vector<KvCacheSpec>{{.kv_heads = 1, .head_dim = 30}}));
  EXPECT_EQ(kv_caches(spec.layers[2]).size(), 2u);
  std::set<std::string> shapes;
  for (const WeightSlot& slot : weight_slots(spec.layers[0].mixer, spec.dim, ""))
    shapes.insert(slot.name + " " + std::to_string(slot.rows) + " " + std::to_string(slot.cols));
  EXPECT_EQ(shapes, (std::set<std::string>{
                        "q_a 20 32", "q_a.bias 1 20", "q_a_norm 1 20", "q 64 20", "kv_a 30 32",
                        "kv_a.bias 1 30", "kv_a_norm 1 24", "k_b 40 24", "v_b 48 24", "indexer.q 48 20",
                        "indexer.k 16 32", "indexer.weights 3 32", "indexer.k_norm 1 16",
                        "indexer.k_norm.bias 1 16", "sinks 1 4", "gate 4 32", "o 32 48", "o.bias 1 32"}));
}

TEST(Spec, SlotsAreUniqueAndComplete) {
  const std::vector<WeightSlot> slots = weight_slots(elaborate());
  std::set<std::string> names;
  for (const WeightSlot& slot : slots) EXPECT_TRUE(names.insert(slot.name).second) << slot.name;
  for (const char* name : {"embed",
                           "position_embed",
                           "embed_norm",
                           "layers.0.attn_norm",
                           "layers.0.attn_norm.bias",
                           "layers.0.attn.q",
                           "layers.0.attn.q.bias",
                           "layers.0.attn.q_norm",
                           "layers.0.attn.q_norm.bias",
                           "layers.0.attn.sinks",
                           "layers.0.attn.o.bias",
                           "layers.0.attn_post_norm",
                           "layers.0.ffn_norm",
                           "layers.0.ffn.router",
                           "layers.0.ffn.router.bias",
                           "layers.0.ffn.router.correction_bias",
                           "layers.0.ffn.experts.gate",
                           "layers.0.ffn.experts.down.bias",
                           "layers.0.ffn.shared.up",
                           "layers.0.ffn.shared_gate",
                           "layers.0.ffn_post_norm",
                           "layers.1.attn_norm",
                           "layers.1.attn.in_proj",
                           "layers.1.ffn.gate",
                           "norm",
                           "norm.bias",
                           "lm_head",
                           "lm_head.bias"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_FALSE(names.contains("layers.0.ffn.shared.gate"));  // the shared MLP is plain
  EXPECT_FALSE(names.contains("layers.1.ffn_norm"));         // one norm serves both
}

}  // namespace
