// ShortConv: b, c, h = x W_b, x W_c, x W_x;  y = (c * conv(b * h)) W_o.
#pragma once

#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct ShortConvConfig {
  LazyWeight b, c, x, o;  // [dim, dim]
  LazyWeight conv;        // [dim, kernel]
  LazyWeight b_bias{}, c_bias{}, x_bias{}, o_bias{}, conv_bias{};
  ModuleName name{};
};
struct ShortConvPlan {
  LinearPlan in, o;  // b, c and x in one matrix
  CausalConv1dPlan conv;
  ModuleName name;
  std::int64_t width = 0;
  bool operator==(const ShortConvPlan&) const = default;
};
ShortConvPlan resolve(const ShortConvConfig&, const Target&);
void print(const ShortConvPlan&, PlanRows&);

class ShortConv {
 public:
  static ShortConv from_config(const ShortConvConfig&, const Target& = {}, const Home& = {});
  ShortConv(ShortConvPlan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, dim]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const ShortConvPlan& plan() const { return plan_; }

 private:
  ShortConvPlan plan_;
  Linear in_;
  CausalConv1d conv_;
  Linear o_;
};

}  // namespace ttt::inline v2
