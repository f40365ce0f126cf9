// Position biases that every token chooses for itself: a learned table holds profiles over the distance, and
// a token's relative state r says how much of each:
//   bias[h][i][j] = sum_p r[h][i][p] profile[p][i - j]   for 0 <= i - j < extent, else 0
#pragma once

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

struct RelativeBiasConfig {
  LazyWeight profiles;  // [profiles, extent]
  ModuleName name{};
};
struct RelativeBiasPlan {
  LazyWeight profiles;
  ModuleName name;
  bool operator==(const RelativeBiasPlan&) const = default;
};
RelativeBiasPlan resolve(const RelativeBiasConfig&, const Target&);
void print(const RelativeBiasPlan&, PlanRows&);

class RelativeBias {
 public:
  static RelativeBias from_config(const RelativeBiasConfig&, const Target& = {}, const Home& = {});
  RelativeBias(RelativeBiasPlan, const Home&);
  // r [1, heads, tokens, profiles] of all rows of a step -> [1, heads, rows, context + rows] f32 for the rows
  // of one sequence, to be added to its scores.
  Tensor forward(const Tensor& r, const SequenceRows&) const;
  const RelativeBiasPlan& plan() const { return plan_; }

 private:
  RelativeBiasPlan plan_;
};

}  // namespace ttt::inline v2
