// LmHead: logits = softcap(scale * (x W)), float32.
#pragma once

#include "ttt/modules/linear.h"

namespace ttt::inline v2 {

struct LmHeadConfig {
  LazyWeight weight;  // [vocab, dim]; a tied model passes its embedding's source
  LazyWeight bias{};  // [1, vocab]
  ModuleName name{};
  std::optional<float> scale{};    // 1
  std::optional<float> softcap{};  // s -> c tanh(s / c); unset: none
};
struct LmHeadPlan {
  LinearPlan linear;
  float scale = 1;
  std::optional<float> softcap;
  std::int64_t vocab = 0;  // of the logits; the matrix may be padded
  bool operator==(const LmHeadPlan&) const = default;
};
LmHeadPlan resolve(const LmHeadConfig&, const Target&);
void print(const LmHeadPlan&, PlanRows&);

class LmHead {
 public:
  explicit LmHead(LazyWeight weight, const Target& target = {}, const Home& home = {});
  static LmHead from_config(const LmHeadConfig&, const Target& = {}, const Home& = {});
  LmHead(LmHeadPlan, const Home&);
  Tensor operator()(const Tensor& x, Mode = Mode::decode) const;  // [1, 1, rows, dim] -> [1, 1, rows, vocab]
  const LmHeadPlan& plan() const { return plan_; }

 private:
  LmHeadPlan plan_;
  Linear linear_;
};

}  // namespace ttt::inline v2
