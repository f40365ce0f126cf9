#include "ttt/convert/decoder_spec.h"

#include <cmath>

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

LatentAttentionSpec latent_attention(const HfConfig& c, int layer) {
  LatentAttentionSpec s{.heads = c.heads(),
                        .q_lora_rank = c.get_or("q_lora_rank", 0),
                        .kv_lora_rank = c.get<int>("kv_lora_rank"),
                        .rope_dim = c.get<int>("qk_rope_head_dim"),
                        .v_head_dim = c.get<int>("v_head_dim"),
                        .bias = c.get_or("attention_bias", false),
                        .rope = c.rope(layer),
                        .window = c.window(layer)};
  s.nope_dim = c.has("qk_nope_head_dim") ? c.get<int>("qk_nope_head_dim")
                                         : c.get_or("qk_head_dim", c.head_dim()) - s.rope_dim;
  if (!s.rope) return s;
  s.rope->rotary_dim = 0;
  s.rope->interleaved = c.get_or("rope_interleave", true);
  const RopeScaling& scaling = s.rope->scaling;
  if (scaling.mscale_all_dim != 0 && scaling.factor > 1) {
    const float mscale = 0.1f * scaling.mscale_all_dim * std::log(scaling.factor) + 1.0f;
    s.scale = mscale * mscale / std::sqrt(static_cast<float>(s.nope_dim + s.rope_dim));
  }
  return s;
}

IndexerSpec indexer(const HfConfig& c, const LatentAttentionSpec& attn) {
  IndexerSpec s{.heads = c.get<int>("index_n_heads"),
                .head_dim = c.get<int>("index_head_dim"),
                .top_k = c.get<int>("index_topk"),
                .rope = attn.rope};
  if (s.rope) s.rope->rotary_dim = attn.rope_dim, s.rope->interleaved = false;
  return s;
}

bool sparse_layer(const HfConfig& c, int layer) {
  const auto kinds = c.find<std::vector<std::string>>("mlp_layer_types");
  const int dense = c.get_or("first_k_dense_replace", 0);
  return kinds ? kinds->at(static_cast<std::size_t>(layer)) == "sparse" : layer >= dense;
}

MlpSpec mlp(const HfConfig& c) {
  return {.hidden = c.get<int>("intermediate_size"), .act = c.act(), .bias = c.get_or("mlp_bias", false)};
}

MoeSpec grouped_moe(const HfConfig& c) {
  MoeSpec moe{.experts = c.get<int>("n_routed_experts"),
              .top_k = c.get_or("num_experts_per_tok", 1),
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
