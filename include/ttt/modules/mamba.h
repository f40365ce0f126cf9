// Mamba:  h, z = x W_x, x W_z;  h = act(conv(h));  dt, b, c = (h W_dt W_step + bias), h W_b, h W_c;
//         y = (scan(h, softplus(dt), a, b, c) + d h) * silu(z) W_o            (Gu and Dao 2023)
// Mamba2: z, h, b, c, dt = x W;  h, b, c = act(conv([h, b, c]));
//         y = norm((scan(h, softplus(dt + bias), a, b, c) + d h) * silu(z)) W_o  (Dao and Gu 2024)
// The scan is ops::selective_scan. `a` is the negative rate itself, -exp(A_log).
#pragma once

#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

struct MambaConfig {
  MambaSpec spec{};
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
struct MambaPlan {
  MambaSpec spec{};
  ModuleName name;
  LinearPlan in, ssm, dt, o;  // x and z in one matrix; dt_in, b and c
  CausalConv1dPlan conv;
  std::optional<NormPlan> dt_norm, b_norm, c_norm;
  LazyWeight a, d;
  bool operator==(const MambaPlan&) const = default;
};
MambaPlan resolve(const MambaConfig&, const Target&);
void print(const MambaPlan&, PlanRows&);

class Mamba {
 public:
  static Mamba from_config(const MambaConfig&, const Target& = {}, const Home& = {});
  Mamba(MambaPlan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, dim]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const MambaPlan& plan() const { return plan_; }

 private:
  MambaPlan plan_;
  Linear in_;
  CausalConv1d conv_;
  Linear ssm_, dt_, o_;
  std::optional<Norm> dt_norm_, b_norm_, c_norm_;
};

struct Mamba2Config {
  Mamba2Spec spec{};
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
struct Mamba2Plan {
  Mamba2Spec spec{};
  ModuleName name;
  LinearPlan in, o;  // z, x, b, c and dt in one matrix
  CausalConv1dPlan conv;
  LazyWeight dt_bias, a, d, norm;
  bool operator==(const Mamba2Plan&) const = default;
};
Mamba2Plan resolve(const Mamba2Config&, const Target&);
void print(const Mamba2Plan&, PlanRows&);

class Mamba2 {
 public:
  static Mamba2 from_config(const Mamba2Config&, const Target& = {}, const Home& = {});
  Mamba2(Mamba2Plan, const Home&);
  Tensor forward(const Tensor& x, const Step&) const;  // [1, 1, tokens, dim]
  Tensor prefill(const Tensor& x, const Step& step) const { return forward(x, step); }
  Tensor decode(const Tensor& x, const Step& step) const { return forward(x, step); }
  const Mamba2Plan& plan() const { return plan_; }

 private:
  Tensor gated(const Tensor& y, const Tensor& z) const;

  Mamba2Plan plan_;
  Linear in_;
  CausalConv1d conv_;
  Linear o_;
};

}  // namespace ttt::inline v2
