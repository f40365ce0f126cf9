// Attention over a paged KV cache:
//   q, k, v = split(x W_qkv + b);  q, k = rope(norm(q)), rope(norm(k));  y = concat_heads(softmax(scale q k^T
//   + mask) v) W_o + b_o
// Multi-head, grouped-query and multi-query; windows, chunks, sinks, soft caps, biases and norms as the spec
// says.
#pragma once

#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/paged_attention.h"
#include "ttt/modules/rope.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

// Whether the heads divide among the columns of a mesh: kv heads do too, or columns share them evenly.
bool divides(const AttentionSpec&, const Mesh&);
// What is left of an attention for one device of a mesh that divides it: its share of the heads.
AttentionSpec on_device(const AttentionSpec&, const Mesh&);

struct AttentionConfig {
  AttentionSpec spec{};
  LazyWeight q, k, v;  // [heads * head_dim, dim], [kv_heads * head_dim, dim] twice
  LazyWeight o;        // [dim, heads * head_dim]
  LazyWeight q_bias{}, k_bias{}, v_bias{}, o_bias{};
  LazyWeight q_norm{}, k_norm{};  // [1, head_dim] or, full width, [1, heads * head_dim]
  LazyWeight q_norm_bias{}, k_norm_bias{};
  LazyWeight gate{}, gate_bias{};  // [heads * v_head_dim or heads, dim]
  LazyWeight sinks{};              // [1, heads]
  ModuleName name{};
};

struct AttentionPlan {
  AttentionSpec spec{};  // of one device
  ModuleName name;
  LinearPlan qkv, o;  // q, k and v in one matrix
  std::optional<NormPlan> q_norm, k_norm, v_norm;
  std::optional<RopePlan> rope;
  std::optional<LinearPlan> gate;
  LazyWeight q_head_weights, k_head_weights;  // QkNorm::per_head_weights: [heads, head_dim]
  LazyWeight sinks;
  std::vector<float> alibi_slopes;  // one per head of all devices; empty: none
  float scale = 0;
  DataType kv_dtype = DataType::bf16;
  SDPAProgramConfig prefill_program{}, decode_program{};
  ComputeKernelConfig compute_kernel_config{};
  bool operator==(const AttentionPlan&) const = default;
};
AttentionPlan resolve(const AttentionConfig&, const Target&);
void print(const AttentionPlan&, PlanRows&);

// Slopes of ALiBi for any number of heads (Press et al. 2022; the published code's rule for counts that are
// no power of two).
std::vector<float> alibi_slopes(int heads);

class Attention {
 public:
  // Multi-head attention with rotary embeddings; `spec` says the heads.
  Attention(const AttentionSpec& spec, LazyWeight q, LazyWeight k, LazyWeight v, LazyWeight o,
            const Target& target = {}, const Home& home = {});
  static Attention from_config(const AttentionConfig&, const Target& = {}, const Home& = {});
  Attention(AttentionPlan, const Home&);

  // x [1, 1, tokens, dim], any mix of rows; writes their keys and values into the step's cache of this layer.
  // `mask` as in AttendOptions: which keys a row sees beyond what the spec says, or a bias.
  Tensor forward(const Tensor& x, const Step& step, const SequenceMask& mask = {}) const;
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const AttentionPlan& plan() const { return plan_; }

 private:
  ops::QkvHeads heads(const Tensor& x, const Step&) const;
  Tensor output(Tensor context, const Tensor& x, const Step&) const;
  Tensor temperatures(const Step&) const;

  AttentionPlan plan_;
  Linear qkv_, o_;
  std::optional<Norm> q_norm_, k_norm_, v_norm_;
  std::optional<Rope> rope_;
  std::optional<Linear> gate_;
  Tensor alibi_;
};

}  // namespace ttt::inline v2
