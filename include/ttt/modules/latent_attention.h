// LatentAttention: multi-head latent attention (arXiv 2405.04434) over a paged cache of latents.
//   c_q, c, r = x W_a;  c = norm(c);  r = rope(r);  q_nope, q_rope = split(norm(c_q) W_q);  q_rope =
//   rope(q_rope) k_h = [c W_kh, r];  v_h = c W_vh;  y = concat_heads(softmax(scale q_h k_h^T + mask) v_h) W_o
// Keys and values are never made: with W_kh absorbed into the query and W_vh applied to the result,
//   softmax(scale [q_nope_h W_kh^T, q_rope_h] [c, r]^T + mask) c W_vh
// all heads attend to the one row [c, r] per position that the cache holds. Prefill and decode do the same,
// so a row's result does not depend on which of them it was part of.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "ttt/modules/indexer.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/rope.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct LatentAttentionConfig {
  LatentAttentionSpec spec{};
  LazyWeight q_a{}, q_a_norm{};  // [q_lora_rank, dim], [1, q_lora_rank]; unset without a query latent
  LazyWeight
      q{};  // [heads * (nope_dim + rope_dim), q_lora_rank or dim]; unset: who calls attend() makes them
  LazyWeight kv_a;       // [kv_lora_rank + rope_dim, dim]
  LazyWeight kv_a_norm;  // [1, kv_lora_rank]
  LazyWeight k_b;        // [heads * nope_dim, kv_lora_rank]
  LazyWeight v_b;        // [heads * v_head_dim, kv_lora_rank]
  LazyWeight o;          // [dim, heads * v_head_dim]
  LazyWeight q_a_bias{}, kv_a_bias{}, o_bias{};
  LazyWeight gate{}, gate_bias{};  // [heads * v_head_dim or heads, dim]
  LazyWeight sinks{};              // [1, heads]
  std::optional<IndexerConfig> indexer{};
  ModuleName name{};
};

struct LatentAttentionPlan {
  LatentAttentionSpec spec{};  // of one device
  ModuleName name;
  LinearPlan a;  // q_a and kv_a in one matrix
  std::optional<LinearPlan> q, gate;
  LinearPlan o;
  std::optional<RmsNormPlan> q_a_norm;
  RmsNormPlan kv_a_norm;
  LazyWeight k_b,
      v_b;  // one matrix per head: [heads, nope_dim, kv_lora_rank], [heads, kv_lora_rank, v_head_dim]
  DataType k_b_dtype = DataType::bf16, v_b_dtype = DataType::bf16;
  LazyWeight sinks;
  std::optional<RopePlan> rope;
  std::optional<IndexerPlan> indexer;
  float scale = 0;
  DataType kv_dtype = DataType::bf16;
  SDPAProgramConfig prefill_program{}, decode_program{};
  ComputeKernelConfig compute_kernel_config{};
  bool operator==(const LatentAttentionPlan&) const = default;
};
LatentAttentionPlan resolve(const LatentAttentionConfig&, const Target&);
void print(const LatentAttentionPlan&, PlanRows&);

// The config of a network's weights by the names of their slots ("q_a", "kv_a_norm", "indexer.k"), relative
// to the module.
LatentAttentionConfig latent_attention_config(const LatentAttentionSpec&, const ModuleName&,
                                              const std::function<LazyWeight(std::string_view)>& weight);

class LatentAttention {
 public:
  // With a query latent and no biases; `spec` says the dimensions.
  LatentAttention(const LatentAttentionSpec& spec, LazyWeight q_a, LazyWeight q_a_norm, LazyWeight q,
                  LazyWeight kv_a, LazyWeight kv_a_norm, LazyWeight k_b, LazyWeight v_b, LazyWeight o,
                  const Target& target = {}, const Home& home = {});
  static LatentAttention from_config(const LatentAttentionConfig&, const Target& = {}, const Home& = {});
  LatentAttention(LatentAttentionPlan, const Home&);

  // x [1, 1, tokens, dim], any mix of rows; writes their latents into the step's cache of this layer.
  Tensor forward(const Tensor& x, const Step& step) const;
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const LatentAttentionPlan& plan() const { return plan_; }

  // forward() in its steps, for mixers that do something between them.
  struct Latents {
    Tensor q_raw;   // [1, 1, tokens, q_lora_rank] before its norm; undefined without a query latent
    Tensor q;       // the normalised query latent; without one the module's input
    Tensor kv;      // [1, 1, tokens, kv_lora_rank], normalised
    Tensor k_rope;  // [1, 1, tokens, rope_dim], not rotated
  };
  Latents latents(const Tensor& x, const Step&) const;
  // [1, 1, tokens, heads * (nope_dim + rope_dim)]
  Tensor queries(const Latents&, const Step&) const;
  // The keys that the rows attend to as Indexer::forward() gives them; undefined: all.
  Tensor selection(const Tensor& x, const Latents&, const Step&) const;
  // Rotates, caches and attends -> [1, 1, tokens, heads * v_head_dim].
  Tensor attend(const Tensor& queries, const Latents&, const Tensor& selection, const Step&) const;
  // Gate and output projection.
  Tensor output(Tensor context, const Tensor& x, const Step&) const;

 private:
  Tensor attend_all(const Tensor& q, const Tensor& cache, const Step&) const;
  Tensor attend_selected(const Tensor& q, const Tensor& cache, const Tensor& selection, const Step&) const;

  LatentAttentionPlan plan_;
  Linear a_, o_;
  std::optional<Linear> q_, gate_;
  std::optional<RmsNorm> q_a_norm_;
  RmsNorm kv_a_norm_;
  std::optional<Rope> rope_;
  std::optional<Indexer> indexer_;
};

}  // namespace ttt::inline v2
