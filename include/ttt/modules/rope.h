// Rotary position embedding: pairs of a head's dimensions rotate by position * theta^(-2i / rotary_dim) (Su
// et al. 2021).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ttt/modules/module.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct RopeConfig {
  RopeSpec spec{};
  int head_dim = 0;
  ModuleName name{};
};
struct RopePlan {
  RopeSpec spec{};  // rotary_dim is filled in
  ModuleName name;
  std::vector<float> inv_freq;       // [rotary_dim / 2] for a sequence within the original length
  std::vector<float> long_inv_freq;  // longrope: beyond it; else empty
  float cos_sin_scale = 1;           // multiplies cos and sin
  std::string key;                   // equal for plans with equal rows: they share them within a step
  bool operator==(const RopePlan&) const = default;
};
// The frequencies follow transformers' rope initialisation functions, in float32.
RopePlan resolve(const RopeConfig&, const Target&);
void print(const RopePlan&, PlanRows&);

class Rope {
 public:
  explicit Rope(const RopeSpec& spec, int head_dim);
  static Rope from_config(const RopeConfig&, const Target& = {}, const Home& = {});
  explicit Rope(RopePlan plan) : plan_(std::move(plan)) {}
  // x [1, heads, tokens, head_dim] of the rows of `step`.
  Tensor forward(Tensor x, const Step& step) const;
  Tensor prefill(Tensor x, const Step& step) const { return forward(std::move(x), step); }
  Tensor decode(Tensor x, const Step& step) const { return forward(std::move(x), step); }
  const RopePlan& plan() const { return plan_; }

 private:
  RopePlan plan_;
};

// The angles' frequencies for a sequence of `length` tokens (dynamic scaling and longrope depend on it).
std::vector<float> rope_frequencies(const RopePlan&, std::int64_t length);

}  // namespace ttt::inline v2
