// Cohere 2 MoE: Cohere 2 whose MLPs are experts, scored after the choice, beside one that all tokens pass;
// the two are averaged.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static MoeSpec experts(const HfConfig& c) {
  const bool sigmoid = c.get_or<std::string>("expert_selection_fn", "softmax") == "sigmoid";
  MoeSpec moe{.experts = c.get<int>("num_experts"),
              .top_k = c.get<int>("num_experts_per_tok"),
              .hidden = c.get<int>("intermediate_size"),
              .router = {.score = sigmoid ? RouterScore::sigmoid : RouterScore::softmax,
                         .order = RouterOrder::top_k_then_score,
                         .renormalize = sigmoid && c.get_or("norm_topk_prob", true)},
              .act = c.act()};
  if (const int shared = c.get_or("num_shared_experts", 0); shared > 0) {
    moe.shared = MlpSpec{.hidden = shared * moe.hidden, .act = moe.act};
    if (c.get_or<std::string>("shared_expert_combination_strategy", "average") == "average")
      moe.router.scale = 0.5f;  // and so is the other half, in weights()
  }
  return moe;
}

static ModelSpec describe(const HfConfig& c) {
  // Not decoder(c): a rms_norm_eps, which asks for RMS norms, must not pass for the other.
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = c.get<int>("max_position_embeddings"),
              .norm = {.kind = NormKind::layer, .eps = c.get_or("layer_norm_eps", 1e-5f)},
              .tied_embeddings = c.get_or("tie_word_embeddings", true),
              .logit_scale = c.get_or("logit_scale", 0.0625f)};
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  const bool dense_rotate = c.get_or("prefix_dense_sliding_window_pattern", 1) == 1;
  for (int i = 0; i < c.layers(); ++i) {
    const bool dense = kinds.at(static_cast<std::size_t>(i)) == "dense";
    AttentionSpec attn = attention(c, i);
    attn.rope->interleaved = true;
    if (!attn.window && !(dense && dense_rotate)) attn.rope.reset();
    FfnSpec ffn = experts(c);
    if (dense) ffn = MlpSpec{.hidden = c.get<int>("prefix_dense_intermediate_size"), .act = c.act()};
    m.layers.push_back({.mixer = attn, .ffn = ffn, .residual = Residual::parallel_shared});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  for (const LayerSpec& layer : m.layers) {
    const auto* moe = std::get_if<MoeSpec>(&layer.ffn);
    if (moe != nullptr && moe->router.scale != 1)
      return map.apply("*.ffn.shared.down", multiply(moe->router.scale));
  }
  return map;
}

static const Family cohere2_moe("cohere2_moe", {"Cohere2MoeForCausalLM"}, describe, weights,
                                {"norm_topk_prob", "prefix_dense_intermediate_size", "rope_scaling",
                                 "rope_theta", "shared_expert_combination_strategy"});

}  // namespace ttt::models
