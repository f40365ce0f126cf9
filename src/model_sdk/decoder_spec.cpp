#include "ttt/convert/decoder_spec.h"

namespace ttt::inline v2 {

ModelSpec decoder(const HfConfig& c) {
  return {.vocab = c.get<int>("vocab_size"),
          .dim = c.get<int>("hidden_size"),
          .max_positions = c.get<int>("max_position_embeddings"),
          .norm = {.eps = c.norm_eps()},
          .tied_embeddings = c.get_or("tie_word_embeddings", false)};
}

AttentionSpec attention(const HfConfig& c, int layer) {
  const bool bias = c.get_or("attention_bias", false);
  return {.heads = c.heads(),
          .kv_heads = c.kv_heads(),
          .head_dim = c.head_dim(),
          .qkv_bias = bias,
          .out_bias = bias,
          .rope = c.rope(layer),
          .window = c.window(layer)};
}

MlpSpec mlp(const HfConfig& c) {
  return {.hidden = c.get<int>("intermediate_size"), .act = c.act(), .bias = c.get_or("mlp_bias", false)};
}

MoeSpec grouped_moe(const HfConfig& c) {
  MoeSpec moe{.experts = c.get<int>("n_routed_experts"),
              .top_k = c.get<int>("num_experts_per_tok"),
              .hidden = c.get<int>("moe_intermediate_size"),
              .router = {.score = RouterScore::sigmoid,
                         .renormalize = c.get_or("norm_topk_prob", true),
                         .renormalize_eps = 1e-20f,
                         .scale = c.get_or("routed_scaling_factor", 1.0f),
                         .correction_bias = true,
                         .groups = c.get_or("n_group", 1),
                         .top_groups = c.get_or("topk_group", 1)},
              .act = c.act()};
  if (const int shared = c.get_or("n_shared_experts", 0); shared > 0)
    moe.shared = MlpSpec{.hidden = shared * moe.hidden, .act = moe.act};
  return moe;
}

}  // namespace ttt::inline v2
