// Hyper-connections (Zhu et al. 2024; with a doubly stochastic mix, Xie et al. 2025): the residual is several
// streams. A part of the network reads a mix of them and adds its result to each with a weight of its own:
//   w = scale (norm(streams) F) + base;  pre, post, mix = sigmoid(w) + eps, magnitude sigmoid(w) + post_eps,
//   S(w) x = sum_n pre[n] streams[n];  streams[n] = post[n] f(x) + sum_m mix[m][n] streams[m]
// S is a softmax over rows, then rows and columns scaled to sum to one in turn (Sinkhorn and Knopp 1967).
#pragma once

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

struct HyperConnectionSpec {
  int streams = 2;
  float eps = 1e-6f;       // added to pre, to mix and to the sums that it is divided by
  float norm_eps = 1e-6f;  // of the norm over all streams together
  float magnitude = 2, post_eps = 0;
  int sinkhorn_iterations = 0;  // 0: no mix, each stream keeps itself
  bool head = false;            // pre only: what the network's head reads
  int outputs() const { return head ? streams : streams * (2 + (sinkhorn_iterations > 0 ? streams : 0)); }
  int scales() const { return head ? 1 : sinkhorn_iterations > 0 ? 3 : 2; }  // one for each of pre, post, mix
  bool operator==(const HyperConnectionSpec&) const = default;
};
struct HyperConnectionConfig {
  HyperConnectionSpec spec{};
  LazyWeight weight;       // [outputs, streams * dim]
  LazyWeight base, scale;  // [1, outputs], [1, scales]
  ModuleName name{};
};
struct HyperConnectionPlan {
  HyperConnectionSpec spec{};
  LazyWeight weight, base, scale;
  ModuleName name;
  DataType dtype = DataType::bf16;  // of the parts; the streams, sums over all layers, stay in float32, and
                                    // so does what is read, until its norm rounds it
  bool operator==(const HyperConnectionPlan&) const = default;
};
HyperConnectionPlan resolve(const HyperConnectionConfig&, const Target&);
void print(const HyperConnectionPlan&, PlanRows&);

class HyperConnection {
 public:
  static HyperConnection from_config(const HyperConnectionConfig&, const Target& = {}, const Home& = {});
  HyperConnection(HyperConnectionPlan, const Home&);
  struct Read {
    Tensor x;          // [1, 1, tokens, dim] f32
    Tensor post, mix;  // [1, tokens, streams, 1], [1, tokens, streams, streams] f32
  };
  Read read(const Tensor& streams) const;  // [1, 1, tokens, streams * dim]
  // The streams after y [1, 1, tokens, dim], what was made of read(streams).x.
  Tensor write(const Tensor& y, const Read&, const Tensor& streams) const;
  const HyperConnectionPlan& plan() const { return plan_; }

 private:
  HyperConnectionPlan plan_;
};

// The first layer's streams: x in each, in float32.
Tensor spread_streams(const Tensor& x, std::int64_t streams);

}  // namespace ttt::inline v2
