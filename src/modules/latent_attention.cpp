#include "ttt/modules/latent_attention.h"

#include <cmath>

#include "modules/fused.h"
#include "modules/paged.h"
#include "modules/parallel.h"
#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

// Matrices of equal size one above the other, each turned around.
LazyWeight transpose_each(const LazyWeight& weight, std::int64_t count) {
  const std::int64_t rows = weight.rows() / count;
  std::vector<WeightSourcePtr> parts;
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
    for (std::int64_t r = 0; r < rows; ++r) order[static_cast<std::size_t>(r)] = i * rows + r;
    parts.push_back(transpose(gather_rows(weight.source(), std::move(order))));
  }
  return {concat_rows(std::move(parts)), WeightRole::experts, weight.name()};
}

void tap_heads(const Tensor& x, const ModuleName& name, std::string_view part) {
  if (debug::tapping()) tap(ops::nlp_concat_heads(x), name, part);
}

}  // namespace

LatentAttentionConfig latent_attention_config(const LatentAttentionSpec& spec, const ModuleName& name,
                                              const std::function<LazyWeight(std::string_view)>& weight) {
  LatentAttentionConfig config{.spec = spec,
                               .q_a = weight("q_a"),
                               .q_a_norm = weight("q_a_norm"),
                               .q = weight("q"),
                               .kv_a = weight("kv_a"),
                               .kv_a_norm = weight("kv_a_norm"),
                               .k_b = weight("k_b"),
                               .v_b = weight("v_b"),
                               .o = weight("o"),
                               .q_a_bias = weight("q_a.bias"),
                               .kv_a_bias = weight("kv_a.bias"),
                               .o_bias = weight("o.bias"),
                               .gate = weight("gate"),
                               .gate_bias = weight("gate.bias"),
                               .sinks = weight("sinks"),
                               .name = name};
  if (spec.indexer)
    config.indexer = IndexerConfig{.spec = *spec.indexer,
                                   .q = weight("indexer.q"),
                                   .k = weight("indexer.k"),
                                   .weights = weight("indexer.weights"),
                                   .k_norm = weight("indexer.k_norm"),
                                   .k_norm_bias = weight("indexer.k_norm.bias"),
                                   .name = name / "indexer"};
  return config;
}

LatentAttentionPlan resolve(const LatentAttentionConfig& c, const Target& target) {
  const LatentAttentionSpec& s = c.spec;
  const std::int64_t heads = s.heads, q_rows = heads * (s.nope_dim + s.rope_dim);
  if (s.heads <= 0 || s.kv_lora_rank <= 0 || s.nope_dim <= 0 || s.rope_dim <= 0 || s.v_head_dim <= 0 ||
      s.q_lora_rank < 0)
    throw Error(std::to_string(s.heads) + " heads of " + std::to_string(s.nope_dim) + " + " +
                    std::to_string(s.rope_dim) + " and " + std::to_string(s.v_head_dim) +
                    " dimensions from latents of " + std::to_string(s.kv_lora_rank),
                c.name.path, "all must be positive");
  if (s.q_lora_rank > 0) expect_rows(c.q_a, "q_a", s.q_lora_rank, c.name);
  if (c.q || s.q_lora_rank == 0) expect_rows(c.q, "q", q_rows, c.name);
  expect_rows(c.kv_a, "kv_a", s.kv_lora_rank + s.rope_dim, c.name);
  expect_rows(c.k_b, "k_b", heads * s.nope_dim, c.name);
  expect_rows(c.v_b, "v_b", heads * s.v_head_dim, c.name);

  if (s.heads % target.mesh.cols != 0)
    throw Error(std::to_string(s.heads) + " heads do not divide among " + std::to_string(target.mesh.cols) +
                    " devices",
                c.name.path, "choose a mesh that divides the network");

  LatentAttentionPlan plan;
  plan.spec = s;
  plan.spec.heads = s.heads / target.mesh.cols;
  plan.name = c.name;
  std::vector<Projection> into_latents{{c.kv_a, c.kv_a_bias}};
  if (s.q_lora_rank > 0) into_latents.insert(into_latents.begin(), {c.q_a, c.q_a_bias});
  LinearConfig a = fused(into_latents, c.name / "a");
  a.parallel = Parallel::stream;
  plan.a = resolve(a, target);
  const auto norm = [&](const LazyWeight& weight, const char* part) {
    return resolve(RmsNormConfig{.weight = weight, .name = c.name / part, .eps = s.norm_eps}, target);
  };
  if (s.q_lora_rank > 0) plan.q_a_norm = norm(c.q_a_norm, "q_a_norm");
  if (c.q)
    plan.q = resolve(LinearConfig{.weight = c.q,
                                  .name = c.name / "q",
                                  .parallel = s.q_lora_rank > 0 ? Parallel::unit : Parallel::column},
                     target);
  plan.kv_a_norm = norm(c.kv_a_norm, "kv_a_norm");
  plan.k_b = transpose_each(c.k_b, heads).experts(heads);
  plan.v_b = LazyWeight(c.v_b.source(), WeightRole::experts, c.v_b.name()).experts(heads);
  plan.k_b_dtype = target.weight_dtype((c.name / "k_b").path);
  plan.v_b_dtype = target.weight_dtype((c.name / "v_b").path);
  plan.o = resolve(
      LinearConfig{.weight = c.o, .bias = c.o_bias, .name = c.name / "o", .parallel = Parallel::row}, target);
  if (s.rope)
    plan.rope = resolve(RopeConfig{.spec = *s.rope, .head_dim = s.rope_dim, .name = c.name / "rope"}, target);
  if (s.gate) plan.gate = resolve_gate(*s.gate, c.gate, c.gate_bias, heads, s.v_head_dim, c.name, target);
  if (s.sinks) {
    if (!c.sinks) throw Error("no weight sinks", c.name.path, "check the weight map");
    plan.sinks = c.sinks;
  }
  if (s.indexer) {
    if (!c.indexer || s.q_lora_rank == 0)
      throw Error("an indexer without its weights or without a query latent", c.name.path,
                  "set LatentAttentionConfig::indexer and q_lora_rank");
    plan.indexer = resolve(*c.indexer, target);
  }
  plan.scale = s.scale.value_or(1 / std::sqrt(static_cast<float>(s.nope_dim + s.rope_dim)));
  plan.kv_dtype = target.kv_dtype(c.name.path);
  plan.compute_kernel_config = target.compute_config(c.name.path);
  plan.prefill_program = hw::choose_sdpa(target.sku, 2048, s.kv_lora_rank + s.rope_dim);
  plan.decode_program = hw::choose_sdpa_decode(target.sku, {.heads = plan.spec.heads,
                                                            .head_dim = s.kv_lora_rank + s.rope_dim,
                                                            .v_head_dim = s.kv_lora_rank,
                                                            .cache = plan.kv_dtype});
  return plan;
}

void print(const LatentAttentionPlan& plan, PlanRows& rows) {
  const LatentAttentionSpec& s = plan.spec;
  row(rows, plan.name, "heads",
      std::to_string(s.heads) + ", " + std::to_string(s.nope_dim) + " + " + std::to_string(s.rope_dim) +
          " dimensions, v_head_dim " + std::to_string(s.v_head_dim));
  row(rows, plan.name, "latents",
      "kv " + std::to_string(s.kv_lora_rank) +
          (s.q_lora_rank > 0 ? ", q " + std::to_string(s.q_lora_rank) : ""));
  row(rows, plan.name, "scale", text(plan.scale));
  row(rows, plan.name, "kv", name(plan.kv_dtype));
  if (s.window) row(rows, plan.name, "window", std::to_string(*s.window));
  if (s.sinks) row(rows, plan.name, "sinks", "yes");
  if (s.selection_of_layer)
    row(rows, plan.name, "selection", "of layer " + std::to_string(*s.selection_of_layer));
  print(plan.a, rows);
  if (plan.q_a_norm) print(*plan.q_a_norm, rows);
  if (plan.q) print(*plan.q, rows);
  print(plan.kv_a_norm, rows);
  const auto per_head = [&](const char* part, const LazyWeight& w, std::int64_t width, DataType dtype) {
    row(rows, plan.name / part, "weight",
        std::to_string(w.rows() / width) + " x [" + std::to_string(w.cols()) + ", " + std::to_string(width) +
            "] " + std::string(name(dtype)));
  };
  per_head("k_b", plan.k_b, s.kv_lora_rank, plan.k_b_dtype);
  per_head("v_b", plan.v_b, s.v_head_dim, plan.v_b_dtype);
  if (plan.rope) print(*plan.rope, rows);
  if (plan.indexer) print(*plan.indexer, rows);
  if (plan.gate) print(*plan.gate, rows);
  print(plan.o, rows);
}

LatentAttention::LatentAttention(LatentAttentionPlan plan, const Home& home)
    : plan_(std::move(plan)), a_(plan_.a, home), o_(plan_.o, home), kv_a_norm_(plan_.kv_a_norm, home) {
  if (plan_.q) q_.emplace(*plan_.q, home);
  if (plan_.gate) gate_.emplace(*plan_.gate, home);
  if (plan_.q_a_norm) q_a_norm_.emplace(*plan_.q_a_norm, home);
  if (plan_.rope) rope_.emplace(*plan_.rope);
  if (plan_.indexer) indexer_.emplace(*plan_.indexer, home);
  const ShardAxis& units = plan_.o.sharding.cols;
  plan_.k_b = home.bind(plan_.k_b, plan_.k_b_dtype, {}, {.experts = units});
  plan_.v_b = home.bind(plan_.v_b, plan_.v_b_dtype, {}, {.experts = units});
  plan_.sinks = home.bind(plan_.sinks, vector_dtype, {}, {.cols = units});
}

LatentAttention::LatentAttention(const LatentAttentionSpec& spec, LazyWeight q_a, LazyWeight q_a_norm,
                                 LazyWeight q, LazyWeight kv_a, LazyWeight kv_a_norm, LazyWeight k_b,
                                 LazyWeight v_b, LazyWeight o, const Target& target, const Home& home)
    : LatentAttention(resolve(LatentAttentionConfig{.spec = spec,
                                                    .q_a = std::move(q_a),
                                                    .q_a_norm = std::move(q_a_norm),
                                                    .q = std::move(q),
                                                    .kv_a = std::move(kv_a),
                                                    .kv_a_norm = std::move(kv_a_norm),
                                                    .k_b = std::move(k_b),
                                                    .v_b = std::move(v_b),
                                                    .o = std::move(o)},
                              target),
                      home) {}

LatentAttention LatentAttention::from_config(const LatentAttentionConfig& config, const Target& target,
                                             const Home& home) {
  return LatentAttention(resolve(config, target), home);
}

LatentAttention::Latents LatentAttention::latents(const Tensor& x, const Step& step) const {
  const LatentAttentionSpec& s = plan_.spec;
  const Tensor a = a_.forward(x, step.mode);
  std::int64_t at = 0;
  Latents l{.q_raw = {}, .q = x, .kv = {}, .k_rope = {}};
  if (q_a_norm_) {
    l.q_raw = take(a, at, s.q_lora_rank);
    l.q = q_a_norm_->forward(l.q_raw);
    tap(l.q, plan_.name, "q_a_norm");
  }
  l.kv = kv_a_norm_.forward(take(a, at, s.kv_lora_rank));
  l.k_rope = take(a, at, s.rope_dim);
  tap(l.kv, plan_.name, "kv_a_norm");
  return l;
}

Tensor LatentAttention::queries(const Latents& l, const Step& step) const {
  return q_->forward(l.q, step.mode);
}

Tensor LatentAttention::selection(const Tensor& x, const Latents& l, const Step& step) const {
  const auto slot = [](int layer) { return "selection." + std::to_string(layer); };
  if (plan_.spec.selection_of_layer) return step.slots.at(slot(*plan_.spec.selection_of_layer));
  if (!indexer_) return {};
  return step.slots[slot(plan_.name.layer)] = indexer_->forward(x, l.q, step);
}

Tensor LatentAttention::attend(const Tensor& queries, const Latents& l, const Tensor& selection,
                               const Step& step) const {
  const LatentAttentionSpec& s = plan_.spec;
  const int head_dim = s.nope_dim + s.rope_dim;
  Tensor k_rope = l.k_rope;
  // What queries are made of is gone before they attend: of many heads each part is as large as a layer.
  const auto absorbed = [&] {
    const Tensor heads = ops::nlp_create_qkv_heads(queries, s.heads, 0, head_dim).q;
    Tensor q_rope = heads.narrow(3, s.nope_dim, head_dim);
    if (rope_) {
      q_rope = rope_->forward(std::move(q_rope), step);
      k_rope = rope_->forward(std::move(k_rope), step);
      tap_heads(q_rope, plan_.name, "q_rope");
      tap_heads(k_rope, plan_.name, "k_rope");
    }
    const Tensor parts[] = {ops::matmul(heads.narrow(3, 0, s.nope_dim), plan_.k_b.get()), q_rope};
    return ops::concat(parts, 3);
  };
  tap(queries, plan_.name, "q");
  const Tensor q = absorbed();
  const Tensor key_parts[] = {l.kv, k_rope};
  const Tensor& cache = step.state->cache(plan_.name.layer, step.iteration).k;
  fill_cache(cache, ops::concat(key_parts, 3), step);
  const Tensor context = selection ? attend_selected(q, cache, selection, step) : attend_all(q, cache, step);
  Tensor values = ops::nlp_concat_heads(ops::matmul(context, plan_.v_b.get()));
  tap(values, plan_.name, "context");
  return values;
}

Tensor LatentAttention::attend_all(const Tensor& q, const Tensor& cache, const Step& step) const {
  ops::AttentionOptions options{{.scale = plan_.scale,
                                 .sliding_window_size = plan_.spec.window.value_or(0),
                                 .program_config = plan_.decode_program,
                                 .compute_kernel_config = plan_.compute_kernel_config}};
  options.attention_sink = plan_.sinks ? &plan_.sinks.get() : nullptr;
  const std::int64_t width = plan_.spec.kv_lora_rank;
  std::vector<Tensor> contexts;
  if (step.decode_rows > 0)
    contexts.push_back(ops::paged_flash_multi_latent_attention_decode(decode_rows_of(q, step), cache,
                                                                      step.page_table, step.decode_positions,
                                                                      width, options)
                           .swap_axes(1, 2));
  options.program_config = plan_.prefill_program;
  for (const SequenceRows& rows : prefill_sequences(step)) {
    options.chunk_start = rows.context;
    options.page_row = rows.page_row;
    contexts.push_back(
        ops::chunked_flash_mla_prefill(rows_of(q, rows), cache, step.page_table, width, options));
  }
  return contexts.size() == 1 ? contexts.front() : ops::concat(contexts, 2);
}

Tensor LatentAttention::attend_selected(const Tensor& q, const Tensor& cache, const Tensor& selection,
                                        const Step& step) const {
  ops::AttentionOptions options{{.scale = plan_.scale, .compute_kernel_config = plan_.compute_kernel_config}};
  options.attention_sink = plan_.sinks ? &plan_.sinks.get() : nullptr;
  const Step::RowPlaces& places = step.row_places();
  return ops::sparse_sdpa(q, cache, selection, step.page_table, places.positions, places.page_rows,
                          plan_.spec.kv_lora_rank, options);
}

Tensor LatentAttention::output(Tensor context, const Tensor& x, const Step& step) const {
  if (gate_)
    context = gated(std::move(context), gate_->forward(x, step.mode), *plan_.spec.gate, plan_.spec.heads);
  Tensor y = o_.forward(context, step.mode);
  tap(y, plan_.name);
  return y;
}

Tensor LatentAttention::forward(const Tensor& x, const Step& step) const {
  const Latents l = latents(x, step);
  return output(attend(queries(l, step), l, selection(x, l, step), step), x, step);
}

}  // namespace ttt::inline v2
