// Embedding: x = scale * table[ids].
#pragma once

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

struct EmbeddingConfig {
  LazyWeight weight;  // [entries, dim]
  ModuleName name{};
  std::optional<float> scale{};  // 1
};
struct EmbeddingPlan {
  LazyWeight weight;
  ModuleName name;
  DataType dtype = DataType::bf16, out_dtype = DataType::bf16;
  float scale = 1;
  MemoryConfig out{};
  bool operator==(const EmbeddingPlan&) const = default;
};
EmbeddingPlan resolve(const EmbeddingConfig&, const Target&);
void print(const EmbeddingPlan&, PlanRows&);

class Embedding {
 public:
  explicit Embedding(LazyWeight weight, const Target& target = {}, const Home& home = {});
  static Embedding from_config(const EmbeddingConfig&, const Target& = {}, const Home& = {});
  Embedding(EmbeddingPlan, const Home&);
  Tensor operator()(const Tensor& ids) const;  // [1, 1, 1, tokens] u32 -> [1, 1, tokens, dim]
  const EmbeddingPlan& plan() const { return plan_; }

 private:
  EmbeddingPlan plan_;
};

}  // namespace ttt::inline v2
