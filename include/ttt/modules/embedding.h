// Embedding: x = scale * table[ids].
#pragma once

#include "ttt/modules/module.h"
#include "ttt/modules/parallel.h"

namespace ttt::inline v2 {

struct EmbeddingConfig {
  LazyWeight weight;  // [entries, dim]
  ModuleName name{};
  std::optional<float> scale{};  // 1
  // On a mesh: each column of devices holds a part of the entries, rows divide the width. False: all entries
  // everywhere.
  bool divide_entries = true;
};
struct EmbeddingPlan {
  LazyWeight weight;
  ModuleName name;
  DataType dtype = DataType::bf16, out_dtype = DataType::bf16;
  float scale = 1;
  Sharding sharding{};
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
  Tensor first_entry_;  // [1, 1, 1, 1] i32, each device its own; undefined where entries are not divided
};

}  // namespace ttt::inline v2
