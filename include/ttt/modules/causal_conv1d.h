// Depthwise convolution over time: y[t][c] = act(bias[c] + sum_i weight[c][i] x[t - kernel + 1 + i][c]). A
// sequence keeps its last kernel - 1 inputs.
#pragma once

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

struct CausalConv1dConfig {
  LazyWeight weight;  // [channels, kernel]
  LazyWeight bias{};  // [1, channels]
  ModuleName name{};
  std::optional<Activation> act{};  // none
  std::string state = "conv";       // name of its StateSlot: (kernel - 1) * channels
};
struct CausalConv1dPlan {
  LazyWeight weight, bias;
  ModuleName name;
  Activation act{};
  std::string state;
  bool operator==(const CausalConv1dPlan&) const = default;
};
CausalConv1dPlan resolve(const CausalConv1dConfig&, const Target&);
void print(const CausalConv1dPlan&, PlanRows&);

class CausalConv1d {
 public:
  static CausalConv1d from_config(const CausalConv1dConfig&, const Target& = {}, const Home& = {});
  CausalConv1d(CausalConv1dPlan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, channels]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const CausalConv1dPlan& plan() const { return plan_; }

 private:
  CausalConv1dPlan plan_;
};

}  // namespace ttt::inline v2
