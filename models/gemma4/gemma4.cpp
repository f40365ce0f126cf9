// Gemma 4: Gemma 3 without scales of scores, with normalised values, wider heads in global layers, experts
// beside the MLP, an embedding of its own per layer; late layers may attend to the keys and values of earlier
// ones.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/embedding.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/moe.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// y = norm_1(mlp(x)) + norm_2(sum over the chosen experts e of p_e s_e expert_e(norm(h))); the router has a
// norm of its own on h.
class BesideMlp {
 public:
  BesideMlp(const BuildContext& c, const MoeSpec& spec)
      : experts_(Moe::from_config({.spec = spec,
                                   .router = {.spec = spec.router,
                                              .experts = spec.experts,
                                              .top_k = spec.top_k,
                                              .weight = c.weight("router"),
                                              .name = c.name / "router"},
                                   .gate = c.weight("experts.gate"),
                                   .up = c.weight("experts.up"),
                                   .down = c.weight("experts.down"),
                                   .name = c.name},
                                  c.target, c.home)),
        router_norm_(c.rms_norm("router.scale")),
        norm_(c.rms_norm("pre_feedforward_layernorm_2")),
        norm_1_(c.rms_norm("post_feedforward_layernorm_1")),
        norm_2_(c.rms_norm("post_feedforward_layernorm_2")),
        scales_(c.vector("router.per_expert_scale")) {}
  Tensor forward(const Tensor& h, const Tensor& mlp, Mode mode) const {
    Router::Choice choice = experts_.choose(router_norm_.forward(h), mode);
    const Shape chosen = choice.experts.shape();
    const Tensor ids = choice.experts.reshape({1, 1, 1, chosen.elements()}),
                 table = scales_.get().reshape({1, 1, scales_.cols(), 1});
    choice.weights = ops::mul(std::move(choice.weights), ops::embedding(ids, table).reshape(chosen));
    return ops::add(norm_1_.forward(mlp), norm_2_.forward(experts_.experts(norm_.forward(h), choice)));
  }
  void print(PlanRows& rows) const { ttt::print(experts_.plan(), rows); }

 private:
  Moe experts_;
  RmsNorm router_norm_, norm_, norm_1_, norm_2_;
  LazyWeight scales_;
};

class Gemma4Block final : public Block {
 public:
  Gemma4Block(const BuildContext& c, const HfConfig& p)
      : layer_(c.name.layer),
        layers_(static_cast<std::int64_t>(c.spec.layers.size())),
        attn_norm_(c.rms_norm("input_layernorm")),
        attn_post_norm_(c.rms_norm("post_attention_layernorm")),
        ffn_norm_(c.rms_norm("pre_feedforward_layernorm")),
        ffn_post_norm_(c.rms_norm("post_feedforward_layernorm")),
        scale_(c.vector("layer_scalar")),
        attention_(c.mixer(parse_mixer(p.json("attention")), "attn")),
        mlp_(c.ffn(parse_ffn(p.json("mlp")), "ffn")) {
    if (p.has("moe")) moe_.emplace(c, std::get<MoeSpec>(parse_ffn(p.json("moe"))));
    if (!c.weight("per_layer_input_gate")) return;
    input_gate_.emplace(c.linear("per_layer_input_gate", HfConfig::act(p.get<std::string>("act"))));
    input_o_.emplace(c.linear("per_layer_projection"));
    input_norm_.emplace(c.rms_norm("post_per_layer_input_norm"));
    if (layer_ > 0) return;
    inputs_.emplace(Embedding::from_config({.weight = c.weight("embed_tokens_per_layer"),
                                            .name = c.name / "embed_tokens_per_layer",
                                            .scale = std::sqrt(p.get<float>("width"))},
                                           c.target, c.home));
    projection_.emplace(c.linear("per_layer_model_projection"));
    projection_norm_.emplace(c.rms_norm("per_layer_projection_norm"));
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    if (inputs_) step.slots["inputs"] = inputs(x, step);
    const Tensor h = ops::add(x, attn_post_norm_.forward(attention_->forward(attn_norm_.forward(x), step)));
    Tensor fed = mlp_->forward(ffn_norm_.forward(h), step);
    if (moe_) fed = moe_->forward(h, fed, step.mode);
    Tensor y = ops::add(h, ffn_post_norm_.forward(fed));
    if (input_gate_) {
      const Tensor& all = step.slots.at("inputs");
      const std::int64_t width = all.dim(3) / layers_;
      const Tensor own = ops::slice(all, 3, layer_ * width, (layer_ + 1) * width);
      const Tensor gated = ops::mul(input_gate_->forward(y, step.mode), own);
      y = ops::add(y, input_norm_->forward(input_o_->forward(gated, step.mode)));
    }
    return ops::mul(y, scale_.get(), {.dtype = y.dtype()});
  }
  void print(PlanRows& rows) const override {
    attention_->print(rows), mlp_->print(rows);
    if (moe_) moe_->print(rows);
  }

 private:
  // What every layer gets of each token: [1, 1, tokens, layers * width].
  Tensor inputs(const Tensor& x, const Step& step) const {
    const Tensor projected = projection_->forward(x, step.mode);
    const Shape flat = projected.shape(), by_layer{1, step.tokens, layers_, projected.dim(3) / layers_};
    const Tensor normed = projection_norm_->forward(projected.reshape(by_layer)).reshape(flat);
    return ops::mul(ops::add(normed, (*inputs_)(step.ids)), std::sqrt(0.5f));
  }

  std::int64_t layer_, layers_;
  RmsNorm attn_norm_, attn_post_norm_, ffn_norm_, ffn_post_norm_;
  LazyWeight scale_;
  std::unique_ptr<Mixer> attention_;
  std::unique_ptr<FeedForward> mlp_;
  std::optional<BesideMlp> moe_;
  std::optional<Linear> input_gate_, input_o_, projection_;
  std::optional<RmsNorm> input_norm_, projection_norm_;
  std::optional<Embedding> inputs_;
};

// The layer whose keys and values a layer attends to, where it has none of its own: the last one of the same
// kind before the sharing begins.
static std::optional<int> shared_from(const HfConfig& c, int layer) {
  const int first_shared = c.layers() - c.get_or("num_kv_shared_layers", 0);
  if (layer < first_shared) return std::nullopt;
  for (int i = first_shared - 1; i >= 0; --i) {
    if (c.slides(i, 6) == c.slides(layer, 6)) return i;
  }
  throw Error("layer " + std::to_string(layer) + " has no earlier layer of its kind to share with",
              "num_kv_shared_layers of " + c.source());
}

// A rotation of the first share of the pairs, with the frequencies of a whole head.
static RopeSpec proportional(const HfConfig& rope, int head_dim, int max_positions) {
  const int pairs = head_dim / 2,
            turning = static_cast<int>(rope.get_or("partial_rotary_factor", 1.0) * head_dim / 2);
  std::vector<float> factors(static_cast<std::size_t>(pairs), rope.get_or("factor", 1.0f));
  for (int i = turning; i < pairs; ++i) factors[static_cast<std::size_t>(i)] = 1e30f;  // stands still
  return {.theta = rope.get<float>("rope_theta"),
          .rotary_dim = head_dim,
          .scaling = {.kind = RopeScalingKind::longrope,
                      .original_max_positions = max_positions,
                      .attention_factor = 1,
                      .short_factor = factors,
                      .long_factor = factors}};
}

static AttentionSpec attention_of(const HfConfig& c, int layer) {
  AttentionSpec attn{.heads = c.heads(),
                     .kv_heads = c.kv_heads(),
                     .head_dim = c.head_dim(),
                     .qk_norm = QkNorm::per_head,
                     .qk_norm_spec = {.eps = c.norm_eps(1e-6f)},
                     .v_norm = NormSpec{.eps = c.norm_eps(1e-6f), .weight = false},
                     .window = c.window(layer, 6),
                     .scale = 1,
                     .kv_of_layer = shared_from(c, layer)};
  if (c.has("per_layer_config")) {
    const HfConfig layers = c.child("per_layer_config");
    for (const std::string& key : layers.keys()) {
      if (std::atoi(key.c_str()) != layer) continue;
      attn.head_dim = layers.child(key).get_or("head_dim", attn.head_dim);
      attn.kv_heads = layers.child(key).get_or("num_key_value_heads", attn.kv_heads);
    }
  } else if (!attn.window) {
    attn.head_dim = c.get_or("global_head_dim", 512);
    if (c.get_or("attention_k_eq_v", false))
      attn.kv_heads = c.get_or("num_global_key_value_heads", attn.kv_heads);
  }
  const HfConfig rope = c.rope_parameters(layer);
  if (rope.get_or<std::string>("rope_type", "default") == "proportional") {
    attn.rope = proportional(rope, attn.head_dim, c.get<int>("max_position_embeddings"));
  } else {
    attn.rope = c.rope(layer);
  }
  return attn;
}

static CustomSpec block(const HfConfig& c, int layer, int dim) {
  const AttentionSpec attn = attention_of(c, layer);
  const bool wide = c.get_or("use_double_wide_mlp", false) && attn.kv_of_layer;
  const MlpSpec mlp{.hidden = c.get<int>("intermediate_size") * (wide ? 2 : 1), .act = c.act()};
  const std::int64_t width = c.get_or("hidden_size_per_layer_input", 0);
  CustomSpec s{.name = "gemma4_block",
               .parameters = "{\"act\": \"" + c.get<std::string>("hidden_activation") + "\", \"width\": " +
                             std::to_string(width) + ", \"attention\": " + to_json(MixerSpec{attn}) +
                             ", \"mlp\": " + to_json(FfnSpec{mlp}) + "}",
               .weights = weight_slots(attn, dim, "attn")};
  if (!attn.kv_of_layer) s.caches = {kv_cache(attn)};
  for (WeightSlot& slot : weight_slots(mlp, dim, "ffn")) s.weights.push_back(slot);
  const auto slot = [&](const std::string& name, std::int64_t rows, std::int64_t cols, WeightRole role) {
    s.weights.push_back({.name = name, .role = role, .rows = rows, .cols = cols});
  };
  const auto vector = [&](const char* name, std::int64_t n) { slot(name, 1, n, WeightRole::vector); };
  for (const char* name : {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                           "post_feedforward_layernorm"})
    vector(name, dim);
  vector("layer_scalar", 1);
  if (c.get_or("enable_moe_block", false)) {
    const MoeSpec moe{.experts = c.get<int>("num_experts"),
                      .top_k = c.get<int>("top_k_experts"),
                      .hidden = c.get<int>("moe_intermediate_size"),
                      .router = {.renormalize = true},
                      .act = c.act()};
    s.parameters.insert(1, "\"moe\": " + to_json(FfnSpec{moe}) + ", ");
    for (WeightSlot& part : weight_slots(moe, dim, "")) s.weights.push_back(part);
    for (const char* name : {"router.scale", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_1",
                             "post_feedforward_layernorm_2"})
      vector(name, dim);
    vector("router.per_expert_scale", moe.experts);
  }
  if (width == 0) return s;
  slot("per_layer_input_gate", width, dim, WeightRole::linear);
  slot("per_layer_projection", dim, width, WeightRole::linear);
  vector("post_per_layer_input_norm", dim);
  if (layer > 0) return s;
  const std::int64_t all = c.layers() * width;
  slot("embed_tokens_per_layer", c.get<int>("vocab_size_per_layer_input"), all, WeightRole::embedding);
  slot("per_layer_model_projection", all, dim, WeightRole::linear);
  vector("per_layer_projection_norm", width);
  return s;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-6f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  c.require("attention_bias", false);
  if (c.get_or<std::string>("use_bidirectional_attention", "vision") == "all")
    throw Error("a bidirectional network", c.source(), "only causal ones run here");
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.block = block(c, i, m.dim)});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const float rsqrt = 1 / std::sqrt(static_cast<float>(m.dim));
  WeightMap map = hf_decoder_names().strip("language_model.");
  for (const WeightSlot& slot : m.layers.front().block->weights)  // named as in the checkpoint
    map.rename("{layer}." + slot.name, "{layer}." + slot.name);
  for (const std::string name :
       {"embed_tokens_per_layer", "per_layer_model_projection", "per_layer_projection_norm"})
    map.rename(name, "layers.0." + name);
  map.apply("layers.0.per_layer_model_projection", multiply(rsqrt))
      .rename("{layer}.router.proj", "{layer}.router")
      .apply("{layer}.router", multiply(rsqrt))
      .split("{layer}.experts.gate_up_proj", {"{layer}.experts.gate", "{layer}.experts.up"})
      .rename("{layer}.experts.down_proj", "{layer}.experts.down");
  for (const char* part : {"k", "v", "k_norm"})  // checkpoints may keep those of layers that share
    map.surplus(std::string("{layer}.attn.") + part);
  for (std::size_t i = 0; i < m.layers.size(); ++i)  // where there are none, values are the keys
    map.alias("layers." + std::to_string(i) + ".attn.v", "layers." + std::to_string(i) + ".attn.k");
  for (const char* tower : {"vision_tower.*", "audio_tower.*", "embed_vision.*", "embed_audio.*"})
    map.ignore(tower);
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["gemma4_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<Gemma4Block>(c, HfConfig::parse(p));
  };
}

static const Family gemma4{"gemma4",
                           {.architectures = {"Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"attention_k_eq_v", "vocab_size_per_layer_input", "num_experts",
                                       "top_k_experts", "moe_intermediate_size"},
                            .modules = modules}};

}  // namespace ttt::models
