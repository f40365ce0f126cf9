#include "ttt/modules/short_conv.h"

#include "modules/fused.h"
#include "modules/print.h"

namespace ttt::inline v2 {

ShortConvPlan resolve(const ShortConvConfig& c, const Target& target) {
  ShortConvPlan plan;
  plan.name = c.name;
  plan.in = resolve(fused({{c.b, c.b_bias}, {c.c, c.c_bias}, {c.x, c.x_bias}}, c.name / "in"), target);
  plan.conv =
      resolve(CausalConv1dConfig{.weight = c.conv, .bias = c.conv_bias, .name = c.name / "conv"}, target);
  plan.o = resolve(LinearConfig{.weight = c.o, .bias = c.o_bias, .name = c.name / "o"}, target);
  plan.width = c.x.rows();
  return plan;
}

void print(const ShortConvPlan& plan, PlanRows& rows) {
  print(plan.in, rows);
  print(plan.conv, rows);
  print(plan.o, rows);
}

ShortConv::ShortConv(ShortConvPlan plan, const Home& home)
    : plan_(std::move(plan)), in_(plan_.in, home), conv_(plan_.conv, home), o_(plan_.o, home) {}
ShortConv ShortConv::from_config(const ShortConvConfig& config, const Target& target, const Home& home) {
  return ShortConv(resolve(config, target), home);
}

Tensor ShortConv::forward(const Tensor& x, const Step& step) const {
  const Tensor in = in_.forward(x, step.mode);
  std::int64_t at = 0;
  const Tensor b = take(in, at, plan_.width), c = take(in, at, plan_.width), h = take(in, at, plan_.width);
  Tensor y = o_.forward(ops::mul(c, conv_.forward(ops::mul(b, h), step)), step.mode);
  tap(y, plan_.name);
  return y;
}

}  // namespace ttt::inline v2
