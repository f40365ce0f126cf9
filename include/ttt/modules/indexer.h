// Indexer:  score[t][s] = sum_h w[t][h] relu(q[t][h] . k[s]);  the top_k best keys s of every token t
//   q = rope(c W_q), c the query latent;  k = rope(layer_norm(x W_k));  w = x W_w (heads head_dim)^-1/2
// Its keys have a paged cache of their own. Scores are float32.
#pragma once

#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/rope.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct IndexerConfig {
  IndexerSpec spec{};
  LazyWeight q;                    // [heads * head_dim, q_lora_rank]
  LazyWeight k;                    // [head_dim, dim]
  LazyWeight weights;              // [heads, dim]
  LazyWeight k_norm, k_norm_bias;  // [1, head_dim]
  ModuleName name{};
};
struct IndexerPlan {
  IndexerSpec spec{};
  ModuleName name;
  LinearPlan q, k, weights;
  LayerNormPlan k_norm;
  std::optional<RopePlan> rope;
  float scale = 0;  // of the heads' weights
  bool operator==(const IndexerPlan&) const = default;
};
IndexerPlan resolve(const IndexerConfig&, const Target&);
void print(const IndexerPlan&, PlanRows&);

class Indexer {
 public:
  static Indexer from_config(const IndexerConfig&, const Target& = {}, const Home& = {});
  Indexer(IndexerPlan, const Home&);
  // x [1, 1, tokens, dim], q_latent [1, 1, tokens, q_lora_rank] -> positions of the chosen keys [1, 1,
  // tokens, top_k] u32 as ops::sparse_sdpa takes them; undefined when no row sees more than top_k keys: all
  // are chosen. Writes the rows' keys into the layer's cache.
  Tensor forward(const Tensor& x, const Tensor& q_latent, const Step&) const;
  const IndexerPlan& plan() const { return plan_; }

 private:
  IndexerPlan plan_;
  Linear q_, k_, weights_;
  LayerNorm k_norm_;
  std::optional<Rope> rope_;
};

}  // namespace ttt::inline v2
