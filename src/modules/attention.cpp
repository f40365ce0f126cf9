#include "ttt/modules/attention.h"

#include <cmath>

#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

// The biases of q, k and v one after the other; a missing one among them counts as zeros.
LazyWeight join_biases(const AttentionConfig& c) {
  if (!c.q_bias && !c.k_bias && !c.v_bias) return {};
  const auto zeros_unless = [](const LazyWeight& bias, const LazyWeight& weight) {
    if (bias) return bias;
    return LazyWeight::from_values(std::vector<float>(static_cast<std::size_t>(weight.rows())), 1,
                                   weight.rows(), WeightRole::vector);
  };
  std::vector<LazyWeight> parts{zeros_unless(c.q_bias, c.q), zeros_unless(c.k_bias, c.k),
                                zeros_unless(c.v_bias, c.v)};
  // A vector's values run along its columns: join them as rows of one column, then lay that column down.
  std::vector<WeightSourcePtr> columns;
  std::int64_t total = 0;
  for (const LazyWeight& part : parts) {
    columns.push_back(reshape_source(part.source(), part.cols(), 1));
    total += part.cols();
  }
  return {reshape_source(concat_rows(std::move(columns)), 1, total), WeightRole::vector,
          (c.name / "qkv.bias").path};
}

}  // namespace

std::vector<float> alibi_slopes(int heads) {
  const auto power_of_two = [](int n) {
    std::vector<float> slopes;
    const double start = std::exp2(-8.0 / n);
    for (int i = 1; i <= n; ++i) slopes.push_back(static_cast<float>(std::pow(start, i)));
    return slopes;
  };
  int closest = 1;
  while (closest * 2 <= heads) closest *= 2;
  std::vector<float> slopes = power_of_two(closest);
  const std::vector<float> finer = power_of_two(2 * closest);
  for (int i = 0; static_cast<int>(slopes.size()) < heads; ++i)
    slopes.push_back(finer[static_cast<std::size_t>(2 * i)]);
  return slopes;
}

AttentionPlan resolve(const AttentionConfig& config, const Target& target) {
  const AttentionSpec& spec = config.spec;
  const std::string& where = config.name.path;
  if (spec.heads <= 0 || spec.kv_heads <= 0 || spec.head_dim <= 0 || spec.heads % spec.kv_heads != 0) {
    throw Error(std::to_string(spec.heads) + " heads, " + std::to_string(spec.kv_heads) + " kv heads of " +
                    std::to_string(spec.head_dim) + " dimensions",
                where, "heads must be a positive multiple of kv_heads");
  }
  const auto expect_rows = [&](const LazyWeight& weight, const char* name, std::int64_t rows) {
    if (!weight) throw Error(std::string("no weight ") + name, where, "check the weight map");
    if (weight.rows() != rows)
      throw Error(std::string(name) + " has " + std::to_string(weight.rows()) + " rows, expected " +
                      std::to_string(rows),
                  where, "check the weight map and the number of heads");
  };
  const std::int64_t head_dim = spec.head_dim;
  expect_rows(config.q, "q", spec.heads * head_dim);
  expect_rows(config.k, "k", spec.kv_heads * head_dim);
  expect_rows(config.v, "v", spec.kv_heads * head_dim);

  AttentionPlan plan;
  plan.spec = spec;
  plan.name = config.name;
  plan.qkv = resolve(LinearConfig{.weight = LazyWeight::concat({config.q, config.k, config.v}),
                                  .bias = join_biases(config),
                                  .name = config.name / "qkv"},
                     target);
  plan.o =
      resolve(LinearConfig{.weight = config.o, .bias = config.o_bias, .name = config.name / "o"}, target);
  if (spec.qk_norm != QkNorm::none) {
    const float eps = spec.qk_norm_spec.eps;
    if (spec.qk_norm_spec.kind == NormKind::rms) {
      plan.q_norm =
          resolve(RmsNormConfig{.weight = config.q_norm, .name = config.name / "q_norm", .eps = eps}, target);
      plan.k_norm =
          resolve(RmsNormConfig{.weight = config.k_norm, .name = config.name / "k_norm", .eps = eps}, target);
    } else {
      plan.q_layer_norm = resolve(LayerNormConfig{.weight = config.q_norm,
                                                  .bias = config.q_norm_bias,
                                                  .name = config.name / "q_norm",
                                                  .eps = eps},
                                  target);
      plan.k_layer_norm = resolve(LayerNormConfig{.weight = config.k_norm,
                                                  .bias = config.k_norm_bias,
                                                  .name = config.name / "k_norm",
                                                  .eps = eps},
                                  target);
    }
  }
  if (spec.rope)
    plan.rope = resolve(
        RopeConfig{.spec = *spec.rope, .head_dim = spec.head_dim, .name = config.name / "rope"}, target);
  if (spec.sinks) {
    if (!config.sinks) throw Error("no weight sinks", where, "check the weight map");
    plan.sinks = config.sinks;
  }
  if (spec.alibi) plan.alibi_slopes = alibi_slopes(spec.heads);
  plan.scale = spec.scale.value_or(1 / std::sqrt(static_cast<float>(spec.head_dim)));
  plan.kv_dtype = target.kv_dtype(where);
  plan.compute_kernel_config = target.compute_config(where);
  return plan;
}

void print(const AttentionPlan& plan, PlanRows& rows) {
  const AttentionSpec& s = plan.spec;
  row(rows, plan.name, "heads",
      std::to_string(s.heads) + " q, " + std::to_string(s.kv_heads) + " kv, head_dim " +
          std::to_string(s.head_dim));
  row(rows, plan.name, "scale", text(plan.scale));
  row(rows, plan.name, "kv", name(plan.kv_dtype));
  if (s.window) row(rows, plan.name, "window", std::to_string(*s.window));
  if (s.chunk) row(rows, plan.name, "chunk", std::to_string(*s.chunk));
  if (s.softcap) row(rows, plan.name, "softcap", text(*s.softcap));
  if (s.clip_qkv) row(rows, plan.name, "clip_qkv", text(*s.clip_qkv));
  if (s.sinks) row(rows, plan.name, "sinks", "yes");
  if (s.alibi) row(rows, plan.name, "alibi", "yes");
  print(plan.qkv, rows);
  if (plan.q_norm) print(*plan.q_norm, rows), print(*plan.k_norm, rows);
  if (plan.q_layer_norm) print(*plan.q_layer_norm, rows), print(*plan.k_layer_norm, rows);
  if (plan.rope) print(*plan.rope, rows);
  print(plan.o, rows);
}

Attention::Attention(AttentionPlan plan, const Home& home)
    : plan_(std::move(plan)), qkv_(plan_.qkv, home), o_(plan_.o, home) {
  if (plan_.q_norm) q_norm_.emplace(*plan_.q_norm, home), k_norm_.emplace(*plan_.k_norm, home);
  if (plan_.q_layer_norm)
    q_layer_norm_.emplace(*plan_.q_layer_norm, home), k_layer_norm_.emplace(*plan_.k_layer_norm, home);
  if (plan_.rope) rope_.emplace(*plan_.rope);
  plan_.sinks = home.bind(plan_.sinks, vector_dtype);
  if (!plan_.alibi_slopes.empty())
    alibi_ = from_host(home.backend(), plan_.alibi_slopes,
                       {1, 1, 1, static_cast<std::int64_t>(plan_.alibi_slopes.size())}, DataType::f32);
}

Attention::Attention(const AttentionSpec& spec, LazyWeight q, LazyWeight k, LazyWeight v, LazyWeight o,
                     const Target& target, const Home& home)
    : Attention(
          resolve(
              AttentionConfig{
                  .spec = spec, .q = std::move(q), .k = std::move(k), .v = std::move(v), .o = std::move(o)},
              target),
          home) {}

Attention Attention::from_config(const AttentionConfig& config, const Target& target, const Home& home) {
  return Attention(resolve(config, target), home);
}

Attention::Heads Attention::heads(const Tensor& x, const Step& step) const {
  const AttentionSpec& s = plan_.spec;
  const auto tap_heads = [&](const Tensor& t, std::string_view part) {
    if (debug::tapping()) tap(ops::nlp_concat_heads(t), plan_.name, part);
  };
  Tensor qkv = qkv_.forward(x, step.mode);
  if (s.clip_qkv) qkv = ops::clamp(std::move(qkv), -*s.clip_qkv, *s.clip_qkv);
  if (s.qk_norm == QkNorm::full_width) {
    const std::int64_t q_width = std::int64_t{s.heads} * s.head_dim,
                       kv_width = std::int64_t{s.kv_heads} * s.head_dim;
    const Tensor q = ops::slice(qkv, -1, 0, q_width), k = ops::slice(qkv, -1, q_width, q_width + kv_width);
    const Tensor parts[] = {q_norm_ ? q_norm_->forward(q) : q_layer_norm_->forward(q),
                            k_norm_ ? k_norm_->forward(k) : k_layer_norm_->forward(k),
                            ops::slice(qkv, -1, q_width + kv_width, q_width + 2 * kv_width)};
    qkv = ops::concat(parts, -1);
  }
  auto [q, k, v] = ops::nlp_create_qkv_heads(qkv, s.heads, s.kv_heads, s.head_dim);
  tap_heads(q, s.qk_norm == QkNorm::full_width ? "q_norm" : "q");
  tap_heads(k, s.qk_norm == QkNorm::full_width ? "k_norm" : "k");
  tap_heads(v, "v");
  const auto norm = [&] {
    if (s.qk_norm != QkNorm::per_head) return;
    q = q_norm_ ? q_norm_->forward(q) : q_layer_norm_->forward(q);
    k = k_norm_ ? k_norm_->forward(k) : k_layer_norm_->forward(k);
    tap_heads(q, "q_norm");
    tap_heads(k, "k_norm");
  };
  if (!s.qk_norm_after_rope) norm();
  if (rope_) {
    q = rope_->forward(std::move(q), step);
    k = rope_->forward(std::move(k), step);
    tap_heads(q, "q_rope");
    tap_heads(k, "k_rope");
  }
  if (s.qk_norm_after_rope) norm();
  return {std::move(q), std::move(k), std::move(v)};
}

AttentionAttributes Attention::attributes(const SDPAProgramConfig& program) const {
  const AttentionSpec& s = plan_.spec;
  return {.scale = plan_.scale,
          .sliding_window_size = s.window.value_or(0),
          .chunk_size = s.chunk.value_or(0),
          .softcap = s.softcap.value_or(0.0f),
          .program_config = program,
          .compute_kernel_config = plan_.compute_kernel_config};
}

Tensor Attention::attend_prefill(const Heads& h, const Step& step) const {
  const KvCache& cache = step.state->cache(plan_.name.layer, step.iteration);
  ops::AttentionOptions options{attributes(plan_.prefill_program)};
  options.attention_sink = plan_.sinks ? &plan_.sinks.get() : nullptr;
  options.alibi_slopes = alibi_ ? &alibi_ : nullptr;
  std::vector<Tensor> contexts;
  for (auto i = static_cast<std::size_t>(step.decode_rows); i < step.sequences.size(); ++i) {
    const SequenceRows& rows = step.sequences[i];
    const auto part = [&](const Tensor& t) { return t.narrow(2, rows.first, rows.first + rows.count); };
    ops::paged_fill_cache(cache.k, part(h.k), step.page_table, rows.page_row, rows.context);
    ops::paged_fill_cache(cache.v, part(h.v), step.page_table, rows.page_row, rows.context);
    options.chunk_start = rows.context;
    options.page_row = rows.page_row;
    contexts.push_back(ops::nlp_concat_heads(
        ops::chunked_scaled_dot_product_attention(part(h.q), cache.k, cache.v, step.page_table, options)));
  }
  return contexts.size() == 1 ? contexts.front() : ops::concat(contexts, 2);
}

Tensor Attention::attend_decode(const Heads& h, const Step& step) const {
  const KvCache& cache = step.state->cache(plan_.name.layer, step.iteration);
  ops::AttentionOptions options{attributes(plan_.decode_program)};
  options.attention_sink = plan_.sinks ? &plan_.sinks.get() : nullptr;
  options.alibi_slopes = alibi_ ? &alibi_ : nullptr;
  // Decode takes [1, batch, heads, head_dim].
  const auto part = [&](const Tensor& t) { return t.narrow(2, 0, step.decode_rows).swap_axes(1, 2); };
  ops::paged_update_cache(cache.k, part(h.k), step.decode_positions, step.page_table);
  ops::paged_update_cache(cache.v, part(h.v), step.decode_positions, step.page_table);
  const Tensor context = ops::paged_scaled_dot_product_attention_decode(
      part(h.q), cache.k, cache.v, step.page_table, step.decode_positions, options);
  return ops::nlp_concat_heads(context.swap_axes(1, 2));
}

Tensor Attention::output(const Tensor& context, const Step& step) const {
  tap(context, plan_.name, "context");
  Tensor y = o_.forward(context, step.mode);
  tap(y, plan_.name);
  return y;
}

Tensor Attention::prefill(const Tensor& x, const Step& step) const {
  return output(attend_prefill(heads(x, step), step), step);
}
Tensor Attention::decode(const Tensor& x, const Step& step) const {
  return output(attend_decode(heads(x, step), step), step);
}

Tensor Attention::forward(const Tensor& x, const Step& step) const {
  if (step.decode_rows == step.tokens) return decode(x, step);
  if (step.decode_rows == 0) return prefill(x, step);
  const Heads h = heads(x, step);
  const Tensor parts[] = {attend_decode(h, step), attend_prefill(h, step)};
  return output(ops::concat(parts, 2), step);
}

}  // namespace ttt::inline v2
