// SelectiveSsm:  h, z = x W_x, x W_z;  h = act(conv(h));  dt, b, c = (h W_dt W_step + bias), h W_b, h W_c;
//         y = (scan(h, softplus(dt), a, b, c) + d h) * silu(z) W_o            (Gu and Dao 2023)
// Ssd: z, h, b, c, dt = x W;  h, b, c = act(conv([h, b, c]));
//         y = norm((scan(h, softplus(dt + bias), a, b, c) + d h) * silu(z)) W_o  (Dao and Gu 2024)
// The scan is ops::selective_scan. `a` is the negative rate itself, -exp(A_log).
#pragma once

#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct SelectiveSsmConfig {
  SelectiveSsmSpec spec{};
  LazyWeight x, z;         // [inner, dim]
  LazyWeight conv;         // [inner, conv_kernel]
  LazyWeight dt_in, b, c;  // [dt_rank, inner], [state, inner] twice
  LazyWeight dt, dt_bias;  // [inner, dt_rank], [1, inner]
  LazyWeight a, d;         // [inner, state], [1, inner]
  LazyWeight o;            // [dim, inner]
  LazyWeight x_bias{}, z_bias{}, o_bias{}, conv_bias{};
  LazyWeight dt_norm{}, b_norm{}, c_norm{};  // [1, dt_rank], [1, state] twice
  ModuleName name{};
};
struct SelectiveSsmPlan {
  SelectiveSsmSpec spec{};
  ModuleName name;
  LinearPlan in, ssm, dt, o;  // x and z in one matrix; dt_in, b and c
  CausalConv1dPlan conv;
  std::optional<NormPlan> dt_norm, b_norm, c_norm;
  LazyWeight a, d;
  bool operator==(const SelectiveSsmPlan&) const = default;
};
SelectiveSsmPlan resolve(const SelectiveSsmConfig&, const Target&);
void print(const SelectiveSsmPlan&, PlanRows&);

class SelectiveSsm {
 public:
  static SelectiveSsm from_config(const SelectiveSsmConfig&, const Target& = {}, const Home& = {});
  SelectiveSsm(SelectiveSsmPlan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, dim]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const SelectiveSsmPlan& plan() const { return plan_; }

 private:
  SelectiveSsmPlan plan_;
  Linear in_;
  CausalConv1d conv_;
  Linear ssm_, dt_, o_;
  std::optional<Norm> dt_norm_, b_norm_, c_norm_;
};

struct SsdConfig {
  SsdSpec spec{};
  LazyWeight z, x;           // [heads * head_dim, dim]
  LazyWeight b, c;           // [groups * state, dim]
  LazyWeight dt;             // [heads, dim]
  LazyWeight conv;           // [heads * head_dim + 2 groups * state, conv_kernel]: of x, b and c
  LazyWeight dt_bias, a, d;  // [1, heads]
  LazyWeight norm{};         // [1, heads * head_dim]
  LazyWeight o;              // [dim, heads * head_dim]
  LazyWeight z_bias{}, x_bias{}, b_bias{}, c_bias{}, o_bias{}, conv_bias{};
  LazyWeight step_bias{};  // of the linear that gives dt
  ModuleName name{};
};
struct SsdPlan {
  SsdSpec spec{};
  ModuleName name;
  LinearPlan in, o;  // z, x, b, c and dt in one matrix
  CausalConv1dPlan conv;
  LazyWeight dt_bias, a, d, norm;
  bool operator==(const SsdPlan&) const = default;
};
SsdPlan resolve(const SsdConfig&, const Target&);
void print(const SsdPlan&, PlanRows&);

class Ssd {
 public:
  static Ssd from_config(const SsdConfig&, const Target& = {}, const Home& = {});
  Ssd(SsdPlan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, dim]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const SsdPlan& plan() const { return plan_; }

 private:
  Tensor gated(const Tensor& y, const Tensor& z) const;

  SsdPlan plan_;
  Linear in_;
  CausalConv1d conv_;
  Linear o_;
};

}  // namespace ttt::inline v2
