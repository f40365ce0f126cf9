// What single modules compute: the leaves of a ModelSpec (model/spec.h). Mathematics only.
//
// Absent means "as in a plain pre-norm decoder with RMS norms, full rotary embeddings and a gated SiLU MLP".
// A field enters only if two families need it, it is orthogonal, a module-level golden covers it, and absent
// changes nothing (docs/architecture.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ttt/ops/op_call.h"

namespace ttt::inline v2 {

enum class NormKind : std::uint8_t { rms, layer };
struct NormSpec {
  NormKind kind = NormKind::rms;
  float eps = 1e-5f;
  bool weight = true;  // false: no learned scale
  bool bias = false;
  bool operator==(const NormSpec&) const = default;
};

enum class RopeScalingKind : std::uint8_t { none, linear, dynamic, llama3, yarn, longrope };
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::none;
  float factor = 1;                                 // linear: a negative one turns the other way
  int original_max_positions = 0;                   // llama3, yarn, longrope
  float low_freq_factor = 1, high_freq_factor = 4;  // llama3
  float beta_fast = 32, beta_slow = 1;              // yarn (Peng et al. 2023)
  std::optional<float>
      attention_factor{};  // yarn, longrope: multiplies cos and sin; unset: derived as the reference does
  float mscale = 0, mscale_all_dim = 0;              // yarn as in multi-head latent attention; 0: unused
  bool truncate = true;                              // yarn: correction range rounded to whole dimensions
  std::vector<float> short_factor{}, long_factor{};  // longrope, one per frequency
  bool operator==(const RopeScaling&) const = default;
};
// Rotary position embedding (Su et al. 2021).
struct RopeSpec {
  float theta = 10000;
  int rotary_dim = 0;        // dimensions of a head that rotate; 0: all
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim/2)
  int max_positions = 0;     // where dynamic scaling begins
  RopeScaling scaling{};
  bool operator==(const RopeSpec&) const = default;
};

// per_head: one weight for every head; per_head_weights: each head has its own; full_width: over all heads at
// once.
enum class QkNorm : std::uint8_t { none, per_head, per_head_weights, full_width };

// The context is multiplied by act(x W_gate) before the output projection.
struct AttentionGateSpec {
  bool per_head = false;  // one value per head instead of one per element
  UnaryOp act = UnaryOp::sigmoid;
  bool bias = false;
  bool operator==(const AttentionGateSpec&) const = default;
};

// Queries are multiplied by 1 + scale * log(1 + floor((position + offset) / length)).
struct QueryTemperature {
  float scale = 0, length = 0, offset = 0;
  bool operator==(const QueryTemperature&) const = default;
};

struct AttentionSpec {
  int heads = 0, kv_heads = 0, head_dim = 0;
  int v_head_dim = 0;  // 0: head_dim
  bool qkv_bias = false, out_bias = false;
  QkNorm qk_norm = QkNorm::none;
  NormSpec qk_norm_spec{};  // when qk_norm is set
  bool qk_norm_after_rope = false;
  std::optional<NormSpec> v_norm{};  // of every head of v, without a weight; unset: none
  std::optional<RopeSpec> rope{};    // unset: no rotation in this layer
  std::optional<int> window{};       // keys that a query sees, itself included; unset: all
  std::optional<int> chunk{};        // attention within chunks of absolute positions; unset: none
  std::optional<float> scale{};      // of q.k; unset: head_dim^-1/2
  std::optional<float> softcap{};    // s -> c tanh(s / c); unset: none
  std::optional<float> clip_qkv{};   // clamps q, k and v; unset: none
  bool sinks = false;                // one learned logit per head that takes part in the softmax
  float alibi = 0;  // linear position biases (Press et al. 2022): the slopes times this; 0: none
  std::optional<AttentionGateSpec> gate{};        // unset: none
  std::optional<QueryTemperature> temperature{};  // unset: none
  // The layer has no k and v of its own and attends to the cache of this earlier layer; unset: its own.
  std::optional<int> kv_of_layer{};
  bool operator==(const AttentionSpec&) const = default;
};

// Chooses the keys that queries attend to: the top_k best by sum_h w_h relu(q_h . k), where q comes from the
// query latent, k and w from the token (the lightning indexer of sparse latent attention, arXiv 2512.02556).
struct IndexerSpec {
  int heads = 0, head_dim = 0, top_k = 0;
  std::optional<RopeSpec> rope{};  // of q and k, the first rotary_dim dimensions; unset: none
  float norm_eps = 1e-6f;          // of the layer norm over k
  bool operator==(const IndexerSpec&) const = default;
};

// Multi-head latent attention (arXiv 2405.04434): the keys and values of all heads are made from one latent
// per token, which is all that is cached, beside one rotated key that the heads share.
struct LatentAttentionSpec {
  int heads = 0;
  int q_lora_rank = 0;  // width of the query latent; 0: queries come straight from the input
  int kv_lora_rank = 0;
  int nope_dim = 0, rope_dim = 0;  // dimensions of a head of q and k without and with rotation
  int v_head_dim = 0;
  float norm_eps = 1e-6f;                   // of the latents' norms
  bool bias = false;                        // of the projections into the latents and of the output's
  std::optional<RopeSpec> rope{};           // of the rope_dim dimensions; unset: none rotates
  std::optional<int> window{};              // keys that a query sees, itself included; unset: all
  std::optional<float> scale{};             // of q.k; unset: (nope_dim + rope_dim)^-1/2
  bool sinks = false;                       // one learned logit per head that takes part in the softmax
  std::optional<AttentionGateSpec> gate{};  // unset: none
  std::optional<IndexerSpec> indexer{};     // unset: queries attend to every key that they see
  std::optional<int> selection_of_layer{};  // attends to the keys that this earlier layer's indexer chose
  bool operator==(const LatentAttentionSpec&) const = default;
};

// Gated units with bounds: gate is cut above at `limit`, up to [-limit, limit]; up_offset is added to up.
struct GluLimit {
  float limit = 0, up_offset = 0;
  bool operator==(const GluLimit&) const = default;
};

struct MlpSpec {
  int hidden = 0;
  Activation act{UnaryOp::silu};
  bool gated = true;  // act(gate x) * (up x); false: act(up x)
  bool bias = false;
  std::optional<GluLimit> limit{};  // unset: none
  bool operator==(const MlpSpec&) const = default;
};

enum class RouterScore : std::uint8_t { softmax, sigmoid };
enum class RouterOrder : std::uint8_t { score_then_top_k, top_k_then_score };
struct RouterSpec {
  RouterScore score = RouterScore::softmax;
  RouterOrder order = RouterOrder::score_then_top_k;
  bool renormalize = false;        // the chosen scores are divided by their sum
  float renormalize_eps = 0;       // added to that sum
  float scale = 1;                 // multiplies the chosen scores
  bool bias = false;               // of the router's linear
  bool correction_bias = false;    // added to the scores for the choice only
  int groups = 1, top_groups = 1;  // experts are chosen among the best groups
  int group_score_top = 2;         // a group's score: the sum of its so many best (1: the best)
  bool operator==(const RouterSpec&) const = default;
};
struct MoeSpec {
  int experts = 0, top_k = 0, hidden = 0;
  RouterSpec router{};
  Activation act{UnaryOp::silu};
  bool gated = true, bias = false;
  std::optional<GluLimit> limit{};  // unset: none
  std::optional<MlpSpec> shared{};  // an MLP that every token passes
  bool shared_gate = false;         // whose result is multiplied by sigmoid(w x)
  bool operator==(const MoeSpec&) const = default;
};

// --- mixers that keep a state of constant size ---

// A short convolution over time between two gates (LFM2's operator).
struct ShortConvSpec {
  int kernel = 3;
  bool bias = false;  // of the projections and the convolution
  bool operator==(const ShortConvSpec&) const = default;
};

// Selective state space with a step per channel (Gu and Dao 2023).
struct SelectiveSsmSpec {
  int inner = 0;   // channels
  int state = 16;  // numbers that each channel keeps
  int dt_rank = 0;
  int conv_kernel = 4;
  bool bias = false;      // of the projections
  bool conv_bias = true;  // of the convolution
  Activation act{UnaryOp::silu};
  std::optional<NormSpec> ssm_norm{};  // of dt, b and c before they are used; unset: none
  bool operator==(const SelectiveSsmSpec&) const = default;
};

// after_gate: norm(x * silu(z)), before_gate: norm(x) * silu(z), none: x * silu(z).
enum class SsmNorm : std::uint8_t { after_gate, before_gate, none };
// Selective state space with a step per head (Dao and Gu 2024).
struct SsdSpec {
  int heads = 0, head_dim = 0, state = 0;
  int groups = 1;  // of heads that share b and c; also those of the norm
  int conv_kernel = 4;
  bool bias = false, conv_bias = true;
  Activation act{UnaryOp::silu};
  SsmNorm norm = SsmNorm::after_gate;
  float norm_eps = 1e-5f;
  std::optional<float> dt_min{}, dt_max{};  // bounds of the step; unset: none
  bool operator==(const SsdSpec&) const = default;
};

// Linear attention with the gated delta rule (Yang et al. 2024).
struct GatedDeltaNetSpec {
  int heads = 0, key_heads = 0;  // of values; of queries and keys
  int key_dim = 0, value_dim = 0;
  int conv_kernel = 4;
  Activation act{UnaryOp::silu};       // of the convolution
  bool decay_per_channel = false;      // one decay per row of a head's state instead of one per head
  std::optional<float> decay_bound{};  // log decay = bound * sigmoid(rate * x); unset: -rate * softplus(x)
  float beta_scale = 1;                // 2: the state's transition may have negative eigenvalues
  UnaryOp gate_act = UnaryOp::silu;
  float norm_eps = 1e-6f;
  bool operator==(const GatedDeltaNetSpec&) const = default;
};

}  // namespace ttt::inline v2
