// The parts of a spec that most decoders' configs spell the same. A model file starts from these and says
// what differs.
#pragma once

#include "ttt/convert/hf_config.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2 {

// vocab_size, hidden_size, max_position_embeddings, the norms' eps, tie_word_embeddings (false when absent).
// No layers.
ModelSpec decoder(const HfConfig&);
// Heads, head_dim, attention_bias (of q, k, v and o), rope and window of a layer.
AttentionSpec attention(const HfConfig&, int layer = 0);
// Multi-head latent attention: q_lora_rank, kv_lora_rank, qk_nope_head_dim (else qk_head_dim without rope),
// qk_rope_head_dim, v_head_dim, attention_bias, a layer's window and rope (pairs of neighbours unless
// rope_interleave is false); YaRN's mscale_all_dim is in the scale.
LatentAttentionSpec latent_attention(const HfConfig&, int layer = 0);
// The indexer of such a layer: index_n_heads, index_head_dim, index_topk; the layer's rotation in halves.
IndexerSpec indexer(const HfConfig&, const LatentAttentionSpec&);
// intermediate_size, the activation, mlp_bias; gated.
MlpSpec mlp(const HfConfig&);
// Whether the layer is a mixture of experts: mlp_layer_types says "sparse", else it is none of the first
// first_k_dense_replace.
bool sparse_layer(const HfConfig&, int layer);
// Experts chosen by sigmoid scores with a correction bias among the best groups: n_routed_experts,
// num_experts_per_tok (else 1), moe_intermediate_size, n_group, topk_group, norm_topk_prob,
// routed_scaling_factor, n_shared_experts.
MoeSpec grouped_moe(const HfConfig&);

}  // namespace ttt::inline v2
