#include "ttt/convert/decoder_spec.h"

#include <algorithm>
#include <cmath>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

ModelSpec decoder(const HfConfig& c, bool tied) {
  return {.vocab = c.get<int>("vocab_size"),
          .dim = c.get<int>("hidden_size"),
          .max_positions = c.get<int>("max_position_embeddings"),
          .norm = {.eps = c.norm_eps()},
          .tied_embeddings = c.get_or("tie_word_embeddings", tied)};
}

ModelSpec layer_norm_decoder(const HfConfig& c, bool tied) {
  ModelSpec m = decoder(c, tied);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  return m;
}

AttentionSpec attention(const HfConfig& c, int layer, QkNorm qk_norm) {
  const bool bias = c.get_or("attention_bias", false);
  AttentionSpec s{.heads = c.heads(),
                  .kv_heads = c.kv_heads(),
                  .head_dim = c.head_dim(),
                  .qkv_bias = bias,
                  .out_bias = bias,
                  .qk_norm = qk_norm,
                  .rope = c.rope(layer),
                  .window = c.window(layer)};
  if (qk_norm != QkNorm::none) s.qk_norm_spec.eps = c.norm_eps();
  return s;
}

AttentionSpec plain_attention(const HfConfig& c, bool bias) {
  return {.heads = c.heads(),
          .kv_heads = c.heads(),
          .head_dim = c.head_dim(),
          .qkv_bias = bias,
          .out_bias = bias};
}

const AttentionSpec& first_attention(const ModelSpec& m) {
  for (const LayerSpec& layer : m.layers) {
    if (const auto* attn = std::get_if<AttentionSpec>(&layer.mixer)) return *attn;
  }
  throw Error("no layer attends", "layers", "fused weights are laid out by heads");
}

LatentAttentionSpec latent_attention(const HfConfig& c, int layer) {
  c.ignore({"qk_head_dim", "head_dim", "num_key_value_heads"});  // follow from what is read
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
  const int dense = c.get_or("first_k_dense_replace", 0);
  if (const auto kinds = c.find<std::vector<std::string>>("mlp_layer_types")) {
    if (layer >= static_cast<int>(kinds->size()))
      throw Error("mlp_layer_types says nothing of layer " + std::to_string(layer), c.source());
    return (*kinds)[static_cast<std::size_t>(layer)] != "dense";
  }
  if (const auto listed = c.find<std::vector<int>>("mlp_only_layers");
      listed && std::ranges::count(*listed, layer) > 0)
    return false;
  return layer >= dense && (layer + 1) % std::max(1, c.get_or("decoder_sparse_step", 1)) == 0;
}

FfnSpec feed_forward(const HfConfig& c, int layer, const FfnSpec& moe) {
  return sparse_layer(c, layer) ? moe : mlp(c);
}

MlpSpec mlp(const HfConfig& c) {
  return {.hidden = c.get<int>("intermediate_size"), .act = c.act(), .bias = c.get_or("mlp_bias", false)};
}

MlpSpec plain_mlp(const HfConfig& c, bool bias) {
  return {.hidden = c.get_or("intermediate_size", 4 * c.get<int>("hidden_size")),
          .act = c.act(),
          .gated = false,
          .bias = bias};
}

MoeSpec softmax_moe(const HfConfig& c, bool renormalize) {
  MoeSpec moe{
      .experts = c.get<int>("num_experts"),
      .top_k = c.get<int>("num_experts_per_tok"),
      .hidden = c.get<int>(c.has("moe_intermediate_size") ? "moe_intermediate_size" : "intermediate_size"),
      .router = {.renormalize = c.get_or("norm_topk_prob", renormalize)},
      .act = c.act()};
  if (const int shared = c.get_or("shared_expert_intermediate_size", 0); shared > 0)
    moe.shared = MlpSpec{.hidden = shared, .act = moe.act};
  return moe;
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

SsdSpec ssd(const HfConfig& c) {
  SsdSpec s{.heads = c.get<int>("mamba_n_heads"),
            .state = c.get<int>("mamba_d_state"),
            .groups = c.get_or("mamba_n_groups", 1),
            .conv_kernel = c.get_or("mamba_d_conv", 4),
            .bias = c.get_or("mamba_proj_bias", false),
            .conv_bias = c.get_or("mamba_conv_bias", true),
            .act = c.act(),
            .norm_eps = c.norm_eps()};
  const bool says = c.has("mamba_d_head") && c.json("mamba_d_head") != "\"auto\"";
  s.head_dim =
      says ? c.get<int>("mamba_d_head") : c.get_or("mamba_expand", 2) * c.get<int>("hidden_size") / s.heads;
  if (const auto limit = c.find<std::vector<float>>("time_step_limit"); limit && limit->size() == 2) {
    if ((*limit)[0] > 0) s.dt_min = (*limit)[0];
    if (std::isfinite((*limit)[1])) s.dt_max = (*limit)[1];
  }
  return s;
}

GatedDeltaNetSpec gated_delta_net(const HfConfig& c) {
  return {.heads = c.get<int>("linear_num_value_heads"),
          .key_heads = c.get<int>("linear_num_key_heads"),
          .key_dim = c.get<int>("linear_key_head_dim"),
          .value_dim = c.get<int>("linear_value_head_dim"),
          .conv_kernel = c.get_or("linear_conv_kernel_dim", 4),
          .act = c.act(),
          .norm_eps = c.norm_eps()};
}

WeightMap gguf_permuted_names(const ModelSpec& m) {
  const AttentionSpec& attn = first_attention(m);
  return gguf_decoder_names().permute("*.attn.q", attn.heads).permute("*.attn.k", attn.kv_heads);
}

std::string next_token_layer(const ModelSpec& m) {
  return "layers." + std::to_string(m.layers.size()) + ".*";
}

}  // namespace ttt::inline v2
