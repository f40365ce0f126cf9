// ModelSpec: what a network computes. Mathematics only: no dtype, device, grid, file or tokenizer.
//
// A tree of small orthogonal structs, one LayerSpec per layer. Absent means "as in a plain pre-norm decoder with RMS norms, full
// rotary embeddings and a gated SiLU MLP". A field enters only if two families need it, it is orthogonal, a module-level golden covers
// it, and absent changes nothing; everything else is a Custom module in the model's own folder (docs/architecture.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ttt/ops/op_call.h"
#include "ttt/tensor/device.h"

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
  float factor = 1;
  int original_max_positions = 0;                // llama3, yarn, longrope
  float low_freq_factor = 1, high_freq_factor = 4;  // llama3
  float beta_fast = 32, beta_slow = 1;           // yarn (Peng et al. 2023)
  std::optional<float> attention_factor{};       // yarn, longrope: multiplies cos and sin; unset: derived as the reference does
  float mscale = 0, mscale_all_dim = 0;          // yarn as in multi-head latent attention; 0: unused
  bool truncate = true;                          // yarn: correction range rounded to whole dimensions
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

enum class QkNorm : std::uint8_t { none, per_head, full_width };
struct AttentionSpec {
  int heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, out_bias = false;
  QkNorm qk_norm = QkNorm::none;
  NormSpec qk_norm_spec{};             // when qk_norm is set
  bool qk_norm_after_rope = false;
  std::optional<RopeSpec> rope{};      // unset: no rotation in this layer
  std::optional<int> window{};         // keys that a query sees, itself included; unset: all
  std::optional<int> chunk{};          // attention within chunks of absolute positions; unset: none
  std::optional<float> scale{};        // of q.k; unset: head_dim^-1/2
  std::optional<float> softcap{};      // s -> c tanh(s / c); unset: none
  std::optional<float> clip_qkv{};     // clamps q, k and v; unset: none
  bool sinks = false;                  // one learned logit per head that takes part in the softmax
  bool alibi = false;                  // linear position biases (Press et al. 2022)
  bool operator==(const AttentionSpec&) const = default;
};

struct MlpSpec {
  int hidden = 0;
  Activation act{UnaryOp::silu};
  bool gated = true;  // act(gate x) * (up x); false: act(up x)
  bool bias = false;
  bool operator==(const MlpSpec&) const = default;
};

enum class RouterScore : std::uint8_t { softmax, sigmoid };
enum class RouterOrder : std::uint8_t { score_then_top_k, top_k_then_score };
struct RouterSpec {
  RouterScore score = RouterScore::softmax;
  RouterOrder order = RouterOrder::score_then_top_k;
  bool renormalize = false;       // the chosen scores are divided by their sum
  float renormalize_eps = 0;      // added to that sum
  float scale = 1;                // multiplies the chosen scores
  bool bias = false;              // of the router's linear
  bool correction_bias = false;   // added to the scores for the choice only
  int groups = 1, top_groups = 1; // experts are chosen among the best groups
  int group_score_top = 2;        // a group's score: the sum of its so many best (1: the best)
  bool operator==(const RouterSpec&) const = default;
};
struct MoeSpec {
  int experts = 0, top_k = 0, hidden = 0;
  RouterSpec router{};
  Activation act{UnaryOp::silu};
  bool gated = true, bias = false;
  std::optional<MlpSpec> shared{};  // an MLP that every token passes
  bool shared_gate = false;         // whose result is multiplied by sigmoid(w x)
  bool operator==(const MoeSpec&) const = default;
};

// A weight that a spec calls for. `rows` and `cols` are as stored by Hugging Face (linear: out, in).
struct WeightSlot {
  std::string name;  // "layers.0.attn.q"
  WeightRole role = WeightRole::linear;
  std::int64_t rows = 0, cols = 0;
  std::int64_t experts = 1;
  int shard_axis = -1;    // 0: rows (column-parallel), 1: columns (row-parallel), -1: replicated
  bool optional = false;  // may be absent from a checkpoint
  bool operator==(const WeightSlot&) const = default;
};

// State that a mixer keeps per sequence beside or in place of a KV cache: `elements` numbers, float32, zero at context 0.
struct StateSlot {
  std::string name;
  std::int64_t elements = 0;
  bool operator==(const StateSlot&) const = default;
};

// The open end: a module of the model's own, by the name under which its library provides it. Its weights' names are relative to the
// module ("in_proj" is layers.3.attn.in_proj).
struct CustomSpec {
  std::string name;
  std::string parameters = "{}";  // JSON object
  std::vector<WeightSlot> weights{};
  std::vector<StateSlot> state{};
  std::optional<AttentionSpec> cache{};  // asks for the KV cache that such an attention has
  bool operator==(const CustomSpec&) const = default;
};

using MixerSpec = std::variant<AttentionSpec, CustomSpec>;
using FfnSpec = std::variant<MlpSpec, MoeSpec, CustomSpec>;

// f: mixer or feed-forward, n: norm before it, p: norm after it.
enum class Residual : std::uint8_t {
  pre_norm,         // x + f(n(x))
  post_norm,        // x + p(f(x))
  sandwich,         // x + p(f(n(x)))
  norm_after_add,   // p(x + f(x)), as in the original Transformer
  parallel,         // x + mixer(n1(x)) + ffn(n2(x))
  parallel_shared,  // the same with one norm for both
};

struct LayerSpec {
  MixerSpec mixer{};
  FfnSpec ffn{};
  Residual residual = Residual::pre_norm;
  float residual_scale = 1;  // multiplies what is added to the stream
  bool operator==(const LayerSpec&) const = default;
};

enum class PositionKind : std::uint8_t { learned, sinusoidal };
struct PositionSpec {
  PositionKind kind = PositionKind::learned;
  int entries = 0;  // rows of the table
  int offset = 0;   // added to the position before the lookup
  bool operator==(const PositionSpec&) const = default;
};

struct ModelSpec {
  int vocab = 0, dim = 0, max_positions = 0;
  NormSpec norm{};                          // of every layer and at the end
  std::optional<NormSpec> embed_norm{};     // right after the embedding
  std::optional<PositionSpec> positions{};  // added to the embedding
  bool final_norm = true;
  bool tied_embeddings = false;
  bool lm_head_bias = false;
  float embed_scale = 1, logit_scale = 1;   // both multiply
  std::optional<float> logit_softcap{};
  std::vector<LayerSpec> layers{};
  bool operator==(const ModelSpec&) const = default;
};

// Every weight of the network, in the order of execution. Pure.
std::vector<WeightSlot> weight_slots(const ModelSpec&);
// Error that names the field when a value is out of range or two contradict each other.
void validate(const ModelSpec&);

// One JSON object; fields at their default are left out. parse_spec: Error names an unknown or ill-typed field.
std::string to_json(const ModelSpec&, int indent = 2);
ModelSpec parse_spec(std::string_view json);

}  // namespace ttt::inline v2
