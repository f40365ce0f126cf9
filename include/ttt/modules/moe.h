// Mixture of experts: y = sum over the chosen experts e of p_e * expert_e(x)  (+ shared(x)).
#pragma once

#include "ttt/modules/mlp.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct RouterConfig {
  RouterSpec spec{};
  int experts = 0, top_k = 0;
  LazyWeight weight;             // [experts, dim]
  LazyWeight bias{};             // [1, experts]
  LazyWeight correction_bias{};  // [1, experts]
  ModuleName name{};
};
struct RouterPlan {
  RouterSpec spec{};
  int experts = 0, top_k = 0;
  LinearPlan linear;
  LazyWeight correction_bias;
  ModuleName name;
  bool operator==(const RouterPlan&) const = default;
};
RouterPlan resolve(const RouterConfig&, const Target&);
void print(const RouterPlan&, PlanRows&);

// Chooses top_k experts for every token, and their weights. The choice is made in float32, as the references
// do.
class Router {
 public:
  static Router from_config(const RouterConfig&, const Target& = {}, const Home& = {});
  Router(RouterPlan, const Home&);
  struct Choice {
    Tensor weights;  // [1, 1, tokens, top_k] f32
    Tensor experts;  // [1, 1, tokens, top_k] u32
  };
  Choice forward(const Tensor& x, Mode) const;
  const RouterPlan& plan() const { return plan_; }

 private:
  RouterPlan plan_;
  Linear linear_;
};

struct MoeConfig {
  MoeSpec spec{};
  RouterConfig router{};        // without a weight: choices are made elsewhere
  LazyWeight gate{}, up, down;  // stacked [experts * hidden, dim] twice, [experts * dim, hidden]
  LazyWeight gate_bias{}, up_bias{}, down_bias{};  // [experts, hidden] twice, [experts, dim]
  std::optional<MlpConfig> shared{};
  LazyWeight shared_gate{};  // [1, dim]
  ModuleName name{};
};
struct MoePlan {
  MoeSpec spec{};
  std::optional<RouterPlan> router;
  LazyWeight gate, up, down, gate_bias, up_bias, down_bias;
  DataType gate_dtype = DataType::bf16, up_dtype = DataType::bf16, down_dtype = DataType::bf16;
  // On a mesh each column of devices has whole experts where they divide, else a part of every expert's
  // hidden units.
  Sharding up_sharding{}, down_sharding{};  // up's are gate's too
  std::optional<MlpPlan> shared;
  std::optional<LinearPlan> shared_gate;
  ModuleName name;
  bool operator==(const MoePlan&) const = default;
};
MoePlan resolve(const MoeConfig&, const Target&);
void print(const MoePlan&, PlanRows&);

class Moe {
 public:
  static Moe from_config(const MoeConfig&, const Target& = {}, const Home& = {});
  Moe(MoePlan, const Home&);
  Tensor prefill(const Tensor& x) const { return forward(x, Mode::prefill); }  // [1, 1, tokens, dim]
  Tensor decode(const Tensor& x) const { return forward(x, Mode::decode); }
  Tensor forward(const Tensor& x, Mode mode) const { return forward(x, choose(x, mode), mode); }
  Tensor forward(const Tensor& x, const Router::Choice&, Mode) const;  // with a choice made elsewhere
  // forward() in its steps: the experts of a choice (one that does not exist gives zeros), without the
  // shared.
  Router::Choice choose(const Tensor& x, Mode mode) const { return router_->forward(x, mode); }
  Tensor experts(const Tensor& x, const Router::Choice&) const;
  const MoePlan& plan() const { return plan_; }

 private:
  MoePlan plan_;
  std::optional<Router> router_;
  std::optional<Mlp> shared_;
  std::optional<Linear> shared_gate_;
  Tensor first_expert_;  // [1, 1, 1, 1] i32, each device its own; undefined where experts are not divided
};

}  // namespace ttt::inline v2
