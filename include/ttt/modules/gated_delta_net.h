// GatedDeltaNet:  q, k, v = act(conv(x [W_q, W_k, W_v]));  beta = scale * sigmoid(x W_b);
//                 g = -rate * softplus(x W_a + dt_bias)  (or bound * sigmoid(rate * (x W_a + dt_bias)));
//                 y = (norm(gated_delta_rule(q, k, v, g, beta)) * gate(x W_z)) W_o   (Yang et al. 2024)
// q and k are divided by their length. The log decay g is one number per head, or one per row of a head's
// state.
#pragma once

#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct GatedDeltaNetConfig {
  GatedDeltaNetSpec spec{};
  LazyWeight q, k;     // [key_heads * key_dim, dim]
  LazyWeight v, z;     // [heads * value_dim, dim]
  LazyWeight b;        // [heads, dim]
  LazyWeight a;        // [heads, dim], one decay per channel: [heads * key_dim, dim]
  LazyWeight conv;     // [2 key_heads * key_dim + heads * value_dim, conv_kernel]: of q, k and v
  LazyWeight dt_bias;  // [1, heads], one decay per channel: [1, heads * key_dim]
  LazyWeight rate;     // [1, heads]: exp(A_log)
  LazyWeight norm;     // [1, value_dim]
  LazyWeight o;        // [dim, heads * value_dim]
  ModuleName name{};
};
struct GatedDeltaNetPlan {
  GatedDeltaNetSpec spec{};
  ModuleName name;
  LinearPlan qkvz, ba, o;
  CausalConv1dPlan conv;
  RmsNormPlan norm;
  LazyWeight dt_bias, rate;
  bool operator==(const GatedDeltaNetPlan&) const = default;
};
GatedDeltaNetPlan resolve(const GatedDeltaNetConfig&, const Target&);
void print(const GatedDeltaNetPlan&, PlanRows&);

class GatedDeltaNet {
 public:
  static GatedDeltaNet from_config(const GatedDeltaNetConfig&, const Target& = {}, const Home& = {});
  GatedDeltaNet(GatedDeltaNetPlan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, dim]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const GatedDeltaNetPlan& plan() const { return plan_; }

 private:
  Tensor log_decay(const Tensor& a) const;

  GatedDeltaNetPlan plan_;
  Linear qkvz_;
  CausalConv1d conv_;
  Linear ba_;
  RmsNorm norm_;
  Linear o_;
};

}  // namespace ttt::inline v2
