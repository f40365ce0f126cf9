// The parts of a spec that most decoders' configs spell the same. A model file starts from these and says
// what differs.
#pragma once

#include "ttt/convert/hf_config.h"
#include "ttt/convert/weight_map.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2 {

// vocab_size, hidden_size, max_position_embeddings, the norms' eps, tie_word_embeddings (`tied` when absent).
// No layers.
ModelSpec decoder(const HfConfig&, bool tied = false);
// The same with layer norms that have a bias.
ModelSpec layer_norm_decoder(const HfConfig&, bool tied = false);
// Heads, head_dim, attention_bias (of q, k, v and o), rope and window of a layer; norms of q and k have the
// network's eps.
AttentionSpec attention(const HfConfig&, int layer = 0, QkNorm = QkNorm::none);
// As many kv heads as heads, biases, no rotation.
AttentionSpec plain_attention(const HfConfig&, bool bias = true);
// The first attention of a network, for how fused weights are laid out. Error when there is none.
const AttentionSpec& first_attention(const ModelSpec&);
// Multi-head latent attention: q_lora_rank, kv_lora_rank, qk_nope_head_dim (else qk_head_dim without rope),
// qk_rope_head_dim, v_head_dim, attention_bias, a layer's window and rope (pairs of neighbours unless
// rope_interleave is false); YaRN's mscale_all_dim is in the scale.
LatentAttentionSpec latent_attention(const HfConfig&, int layer = 0);
// The indexer of such a layer: index_n_heads, index_head_dim, index_topk; the layer's rotation in halves.
IndexerSpec indexer(const HfConfig&, const LatentAttentionSpec&);
// intermediate_size, the activation, mlp_bias; gated.
MlpSpec mlp(const HfConfig&);
// Not gated; intermediate_size may be absent: four times hidden_size.
MlpSpec plain_mlp(const HfConfig&, bool bias = true);
// Whether the layer is a mixture of experts: mlp_layer_types does not say "dense"; else it is none of the
// first first_k_dense_replace nor of mlp_only_layers, and a multiple of decoder_sparse_step counted from 1.
bool sparse_layer(const HfConfig&, int layer);
// `moe` in such layers, mlp(c) in the others.
FfnSpec feed_forward(const HfConfig&, int layer, const FfnSpec& moe);
// Experts chosen by softmax: num_experts, num_experts_per_tok, moe_intermediate_size (else
// intermediate_size), norm_topk_prob (`renormalize` when absent), shared_expert_intermediate_size.
MoeSpec softmax_moe(const HfConfig&, bool renormalize = false);
// Experts chosen by sigmoid scores with a correction bias among the best groups: n_routed_experts,
// num_experts_per_tok (else 1), moe_intermediate_size, n_group, topk_group, norm_topk_prob,
// routed_scaling_factor, n_shared_experts.
MoeSpec grouped_moe(const HfConfig&);
// Selective state space with a step per head: n_heads, d_head (else expand * hidden_size / n_heads), d_state,
// n_groups, d_conv, proj_bias, conv_bias, each under its spellings ("mamba_n_heads", "num_heads"), and
// time_step_limit.
SsdSpec ssd(const HfConfig&);
// Gated delta net: linear_num_value_heads, linear_num_key_heads, linear_key_head_dim, linear_value_head_dim,
// linear_conv_kernel_dim.
GatedDeltaNetSpec gated_delta_net(const HfConfig&);
// gguf_decoder_names() where the converter has reordered the rows of q and k for interleaved rotation.
WeightMap gguf_permuted_names(const ModelSpec&);
// Names of the layer behind the last, which predicts the token after next: "layers.N.*", for ignore().
std::string next_token_layer(const ModelSpec&);

}  // namespace ttt::inline v2
