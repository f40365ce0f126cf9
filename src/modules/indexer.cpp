#include "ttt/modules/indexer.h"

#include <algorithm>
#include <cmath>

#include "modules/fused.h"
#include "modules/paged.h"
#include "modules/print.h"

namespace ttt::inline v2 {

IndexerPlan resolve(const IndexerConfig& c, const Target& target) {
  const IndexerSpec& s = c.spec;
  if (s.heads <= 0 || s.head_dim <= 0 || s.top_k <= 0)
    throw Error("an indexer of " + std::to_string(s.heads) + " heads of " + std::to_string(s.head_dim) +
                    " dimensions that chooses " + std::to_string(s.top_k) + " keys",
                c.name.path, "all must be positive");
  expect_rows(c.q, "q", std::int64_t{s.heads} * s.head_dim, c.name);
  expect_rows(c.k, "k", s.head_dim, c.name);
  expect_rows(c.weights, "weights", s.heads, c.name);
  IndexerPlan plan;
  plan.spec = s;
  plan.name = c.name;
  plan.q = resolve(LinearConfig{.weight = c.q, .name = c.name / "q"}, target);
  plan.k = resolve(LinearConfig{.weight = c.k, .name = c.name / "k", .parallel = Parallel::stream}, target);
  plan.weights = resolve(LinearConfig{.weight = c.weights,
                                      .name = c.name / "weights",
                                      .out_dtype = DataType::f32,
                                      .parallel = Parallel::stream},
                         target);
  plan.k_norm = resolve(
      LayerNormConfig{
          .weight = c.k_norm, .bias = c.k_norm_bias, .name = c.name / "k_norm", .eps = s.norm_eps},
      target);
  if (s.rope)
    plan.rope = resolve(RopeConfig{.spec = *s.rope, .head_dim = s.head_dim, .name = c.name / "rope"}, target);
  plan.scale = 1 / std::sqrt(static_cast<float>(s.heads) * static_cast<float>(s.head_dim));
  return plan;
}

void print(const IndexerPlan& plan, PlanRows& rows) {
  const IndexerSpec& s = plan.spec;
  row(rows, plan.name, "indexer",
      "top " + std::to_string(s.top_k) + " by " + std::to_string(s.heads) + " heads of " +
          std::to_string(s.head_dim));
  print(plan.q, rows);
  print(plan.k, rows);
  print(plan.weights, rows);
  print(plan.k_norm, rows);
  if (plan.rope) print(*plan.rope, rows);
}

Indexer::Indexer(IndexerPlan plan, const Home& home)
    : plan_(std::move(plan)),
      q_(plan_.q, home),
      k_(plan_.k, home),
      weights_(plan_.weights, home),
      k_norm_(plan_.k_norm, home) {
  if (plan_.rope) rope_.emplace(*plan_.rope);
}
Indexer Indexer::from_config(const IndexerConfig& config, const Target& target, const Home& home) {
  return Indexer(resolve(config, target), home);
}

Tensor Indexer::forward(const Tensor& x, const Tensor& q_latent, const Step& step) const {
  const ModuleScope scope(plan_.name);
  const IndexerSpec& s = plan_.spec;
  const Tensor& cache = step.state->cache(plan_.name.layer, step.iteration).indexer;
  // Normalised and rotated in float32: what the cache keeps is rounded once.
  Tensor k = k_norm_.forward(ops::typecast(k_.forward(x, step.mode), DataType::f32));
  if (rope_) k = rope_->forward(std::move(k), step);
  tap(k, plan_.name, "k");
  fill_cache(cache, k, step);

  std::int64_t keys = 0;
  for (const SequenceRows& rows : step.sequences) keys = std::max(keys, rows.context + rows.count);
  if (keys <= s.top_k) return {};
  Tensor q = ops::nlp_create_qkv_heads(q_.forward(q_latent, step.mode), s.heads, 0, s.head_dim).q;
  if (rope_) q = rope_->forward(std::move(q), step);
  const Tensor weights = ops::mul(weights_.forward(x, step.mode), plan_.scale);
  const Step::RowPlaces& places = step.row_places();
  const Tensor scores =
      ops::indexer_score_dsa(q, cache, weights, step.page_table, places.positions, places.page_rows, keys);
  tap(scores, plan_.name);
  return ops::topk(scores, s.top_k).indices;
}

}  // namespace ttt::inline v2
