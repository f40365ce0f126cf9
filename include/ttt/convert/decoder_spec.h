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
// intermediate_size, the activation, mlp_bias; gated.
MlpSpec mlp(const HfConfig&);
// Experts chosen by sigmoid scores with a correction bias among the best groups: n_routed_experts,
// num_experts_per_tok, moe_intermediate_size, n_group, topk_group, norm_topk_prob, routed_scaling_factor,
// n_shared_experts.
MoeSpec grouped_moe(const HfConfig&);

}  // namespace ttt::inline v2
