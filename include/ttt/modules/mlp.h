// Gated: y = (act(x W_gate) * (x W_up)) W_down.  Plain: y = act(x W_up) W_down.
#pragma once

#include "ttt/modules/linear.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct MlpConfig {
  LazyWeight gate{};    // [hidden, dim]; unset: plain
  LazyWeight up, down;  // [hidden, dim], [dim, hidden]
  LazyWeight gate_bias{}, up_bias{}, down_bias{};
  ModuleName name{};
  std::optional<Activation> act{};  // silu
  std::optional<GluLimit> limit{};  // unset: none
};
struct MlpPlan {
  std::optional<LinearPlan> gate;
  LinearPlan up, down;  // a plain MLP's activation is a part of `up`
  Activation act{};
  std::optional<GluLimit> limit;
  ModuleName name;
  bool operator==(const MlpPlan&) const = default;
};
MlpPlan resolve(const MlpConfig&, const Target&);
void print(const MlpPlan&, PlanRows&);

// act(gate) * up, with the bounds where they are set.
Tensor gated_product(Tensor gate, Tensor up, const Activation& act, const std::optional<GluLimit>& limit);

class Mlp {
 public:
  Mlp(LazyWeight gate, LazyWeight up, LazyWeight down, const Target& target = {}, const Home& home = {});
  static Mlp from_config(const MlpConfig&, const Target& = {}, const Home& = {});
  Mlp(MlpPlan, const Home&);

  Tensor prefill(const Tensor& x) const { return forward(x, Mode::prefill); }  // [1, 1, tokens, dim]
  Tensor decode(const Tensor& x) const { return forward(x, Mode::decode); }
  Tensor forward(const Tensor& x, Mode) const;
  const MlpPlan& plan() const { return plan_; }

 private:
  MlpPlan plan_;
  std::optional<Linear> gate_;
  Linear up_, down_;
};

}  // namespace ttt::inline v2
