// RmsNorm: y = x / sqrt(mean(x^2) + eps) * w.  LayerNorm: y = (x - mean(x)) / sqrt(var(x) + eps) * w + b.
#pragma once

#include <variant>

#include "ttt/modules/module.h"
#include "ttt/modules/parallel.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct RmsNormConfig {
  LazyWeight weight{};  // [1, n]; unset: ones
  ModuleName name{};
  std::optional<float> eps{};  // 1e-5
  int mesh_axis = -1;          // the vector is divided over this axis of the target's mesh; -1: it is whole
};
struct RmsNormPlan {
  LazyWeight weight;
  ModuleName name;
  float eps = 1e-5f;
  ShardAxis division{};
  MemoryConfig in{}, out{};
  bool operator==(const RmsNormPlan&) const = default;
};
RmsNormPlan resolve(const RmsNormConfig&, const Target&);
void print(const RmsNormPlan&, PlanRows&);

class RmsNorm {
 public:
  explicit RmsNorm(LazyWeight weight, float eps = 1e-5f, const Target& target = {}, const Home& home = {});
  static RmsNorm from_config(const RmsNormConfig&, const Target& = {}, const Home& = {});
  RmsNorm(RmsNormPlan, const Home&);
  Tensor prefill(const Tensor& x) const { return forward(x); }
  Tensor decode(const Tensor& x) const { return forward(x); }
  Tensor forward(const Tensor& x) const;
  const RmsNormPlan& plan() const { return plan_; }

 private:
  RmsNormPlan plan_;
};

struct LayerNormConfig {
  LazyWeight weight{};  // [1, n]; unset: ones
  LazyWeight bias{};    // [1, n]; unset: none
  ModuleName name{};
  std::optional<float> eps{};  // 1e-5
  int mesh_axis = -1;          // as RmsNormConfig's
};
struct LayerNormPlan {
  LazyWeight weight, bias;
  ModuleName name;
  float eps = 1e-5f;
  ShardAxis division{};
  MemoryConfig in{}, out{};
  bool operator==(const LayerNormPlan&) const = default;
};
LayerNormPlan resolve(const LayerNormConfig&, const Target&);
void print(const LayerNormPlan&, PlanRows&);

class LayerNorm {
 public:
  explicit LayerNorm(LazyWeight weight, LazyWeight bias = {}, float eps = 1e-5f, const Target& target = {},
                     const Home& home = {});
  static LayerNorm from_config(const LayerNormConfig&, const Target& = {}, const Home& = {});
  LayerNorm(LayerNormPlan, const Home&);
  Tensor prefill(const Tensor& x) const { return forward(x); }
  Tensor decode(const Tensor& x) const { return forward(x); }
  Tensor forward(const Tensor& x) const;
  const LayerNormPlan& plan() const { return plan_; }

 private:
  LayerNormPlan plan_;
};

// Whichever of the two a spec asks for.
struct NormConfig {
  NormSpec spec{};
  LazyWeight weight{}, bias{};
  ModuleName name{};
  int mesh_axis = -1;  // as RmsNormConfig's
};
using NormPlan = std::variant<RmsNormPlan, LayerNormPlan>;
NormPlan resolve(const NormConfig&, const Target&);
void print(const NormPlan&, PlanRows&);

class Norm {
 public:
  static Norm from_config(const NormConfig&, const Target& = {}, const Home& = {});
  Norm(const NormPlan&, const Home&);
  Tensor forward(const Tensor& x) const;
  Tensor prefill(const Tensor& x) const { return forward(x); }
  Tensor decode(const Tensor& x) const { return forward(x); }
  NormPlan plan() const;

 private:
  std::variant<RmsNorm, LayerNorm> norm_;
};

}  // namespace ttt::inline v2
