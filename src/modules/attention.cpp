#include "ttt/modules/attention.h"

#include <algorithm>
#include <cmath>

#include "modules/fused.h"
#include "modules/parallel.h"
#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

std::int64_t value_dim(const AttentionSpec& s) { return s.v_head_dim > 0 ? s.v_head_dim : s.head_dim; }

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

bool divides(const AttentionSpec& spec, const Mesh& mesh) {
  const int devices = mesh.cols;
  return spec.heads % devices == 0 && (spec.kv_heads % devices == 0 || devices % spec.kv_heads == 0);
}

AttentionSpec on_device(const AttentionSpec& spec, const Mesh& mesh) {
  AttentionSpec part = spec;
  part.heads = spec.heads / mesh.cols;
  part.kv_heads = std::max(spec.kv_heads / mesh.cols, 1);
  return part;
}

AttentionPlan resolve(const AttentionConfig& config, const Target& target) {
  const AttentionSpec& spec = config.spec;
  const std::string& where = config.name.path;
  if (spec.heads <= 0 || spec.kv_heads <= 0 || spec.head_dim <= 0 || spec.heads % spec.kv_heads != 0) {
    throw Error(std::to_string(spec.heads) + " heads, " + std::to_string(spec.kv_heads) + " kv heads of " +
                    std::to_string(spec.head_dim) + " dimensions",
                where, "heads must be a positive multiple of kv_heads");
  }
  expect_rows(config.q, "q", std::int64_t{spec.heads} * spec.head_dim, config.name);
  if (!spec.kv_of_layer) {
    expect_rows(config.k, "k", std::int64_t{spec.kv_heads} * spec.head_dim, config.name);
    expect_rows(config.v, "v", spec.kv_heads * value_dim(spec), config.name);
  }
  if (!divides(spec, target.mesh)) {
    throw Error(std::to_string(spec.heads) + " heads and " + std::to_string(spec.kv_heads) +
                    " kv heads do not divide among " + std::to_string(target.mesh.cols) + " devices",
                where, "choose a mesh that divides the network");
  }

  AttentionPlan plan;
  plan.spec = on_device(spec, target.mesh);
  plan.name = config.name;
  const ShardAxis units = over(target.mesh, unit_axis);
  const std::int64_t copies = plan.spec.kv_heads * units.parts / spec.kv_heads;  // of each kv head
  const auto kv = [&](const LazyWeight& w) { return repeat_heads(w, spec.kv_heads, copies); };
  std::vector<Projection> projections{{config.q, config.q_bias}};
  if (!spec.kv_of_layer) {
    projections.push_back({kv(config.k), kv(config.k_bias)});
    projections.push_back({kv(config.v), kv(config.v_bias)});
  }
  LinearConfig qkv = fused(projections, config.name / "qkv", units.parts);
  qkv.parallel = Parallel::column;
  plan.qkv = resolve(qkv, target);
  plan.o = resolve(
      LinearConfig{
          .weight = config.o, .bias = config.o_bias, .name = config.name / "o", .parallel = Parallel::row},
      target);
  if (spec.qk_norm != QkNorm::none) {
    const bool own = spec.qk_norm == QkNorm::per_head_weights, full = spec.qk_norm == QkNorm::full_width;
    const auto norm = [&](const LazyWeight& weight, const LazyWeight& bias, const char* name) {
      return resolve(NormConfig{.spec = spec.qk_norm_spec,
                                .weight = own ? LazyWeight{} : weight,
                                .bias = bias,
                                .name = config.name / name,
                                .mesh_axis = full ? unit_axis : -1},
                     target);
    };
    plan.q_norm = norm(config.q_norm, config.q_norm_bias, "q_norm");
    if (!spec.kv_of_layer)
      plan.k_norm = norm(full ? kv(config.k_norm) : config.k_norm,
                         full ? kv(config.k_norm_bias) : config.k_norm_bias, "k_norm");
    if (own) plan.q_head_weights = config.q_norm, plan.k_head_weights = kv(config.k_norm);
  }
  if (spec.v_norm && !spec.kv_of_layer)
    plan.v_norm = resolve(NormConfig{.spec = *spec.v_norm, .name = config.name / "v_norm"}, target);
  if (spec.rope)
    plan.rope = resolve(
        RopeConfig{.spec = *spec.rope, .head_dim = spec.head_dim, .name = config.name / "rope"}, target);
  if (spec.sinks) {
    if (!config.sinks) throw Error("no weight sinks", where, "check the weight map");
    plan.sinks = config.sinks;
  }
  if (spec.gate)
    plan.gate = resolve_gate(*spec.gate, config.gate, config.gate_bias, spec.heads, value_dim(spec),
                             config.name, target);
  if (spec.alibi != 0) {
    plan.alibi_slopes = alibi_slopes(spec.heads);
    for (float& slope : plan.alibi_slopes) slope *= spec.alibi;
  }
  plan.scale = spec.scale.value_or(1 / std::sqrt(static_cast<float>(spec.head_dim)));
  plan.kv_dtype = target.kv_dtype(where);
  plan.compute_kernel_config = target.compute_config(where);
  plan.prefill_program = hw::choose_sdpa(target.sku, 2048, spec.head_dim);
  plan.decode_program = hw::choose_sdpa_decode(target.sku, {.heads = plan.spec.heads,
                                                            .kv_heads = plan.spec.kv_heads,
                                                            .head_dim = spec.head_dim,
                                                            .cache = plan.kv_dtype});
  return plan;
}

void print(const AttentionPlan& plan, PlanRows& rows) {
  const AttentionSpec& s = plan.spec;
  row(rows, plan.name, "heads",
      std::to_string(s.heads) + " q, " + std::to_string(s.kv_heads) + " kv, head_dim " +
          std::to_string(s.head_dim) +
          (s.v_head_dim > 0 ? ", v_head_dim " + std::to_string(s.v_head_dim) : ""));
  row(rows, plan.name, "scale", text(plan.scale));
  row(rows, plan.name, "kv",
      s.kv_of_layer ? "of layer " + std::to_string(*s.kv_of_layer) : std::string(name(plan.kv_dtype)));
  if (s.window) row(rows, plan.name, "window", std::to_string(*s.window));
  if (s.chunk) row(rows, plan.name, "chunk", std::to_string(*s.chunk));
  if (s.softcap) row(rows, plan.name, "softcap", text(*s.softcap));
  if (s.clip_qkv) row(rows, plan.name, "clip_qkv", text(*s.clip_qkv));
  if (s.sinks) row(rows, plan.name, "sinks", "yes");
  if (s.alibi != 0) row(rows, plan.name, "alibi", text(s.alibi));
  if (s.temperature)
    row(rows, plan.name, "temperature", text(s.temperature->scale) + " per " + text(s.temperature->length));
  print(plan.qkv, rows);
  for (const auto* norm : {&plan.q_norm, &plan.k_norm, &plan.v_norm}) {
    if (*norm) print(**norm, rows);
  }
  if (plan.rope) print(*plan.rope, rows);
  if (plan.gate) print(*plan.gate, rows);
  print(plan.o, rows);
}

Attention::Attention(AttentionPlan plan, const Home& home)
    : plan_(std::move(plan)), qkv_(plan_.qkv, home), o_(plan_.o, home) {
  if (plan_.q_norm) q_norm_.emplace(*plan_.q_norm, home);
  if (plan_.k_norm) k_norm_.emplace(*plan_.k_norm, home);
  if (plan_.v_norm) v_norm_.emplace(*plan_.v_norm, home);
  if (plan_.rope) rope_.emplace(*plan_.rope);
  if (plan_.gate) gate_.emplace(*plan_.gate, home);
  const ShardAxis& units = plan_.o.sharding.cols;
  plan_.q_head_weights = home.bind(plan_.q_head_weights, vector_dtype, {}, {.rows = units});
  plan_.k_head_weights = home.bind(plan_.k_head_weights, vector_dtype, {}, {.rows = units});
  plan_.sinks = home.bind(plan_.sinks, vector_dtype, {}, {.cols = units});
  if (!plan_.alibi_slopes.empty()) {
    const Tensor slopes =
        from_host(home.backend(), plan_.alibi_slopes,
                  {1, 1, 1, static_cast<std::int64_t>(plan_.alibi_slopes.size())}, DataType::f32);
    alibi_ = units.mesh_axis < 0 ? slopes : ops::mesh_partition(slopes, -1, units.mesh_axis);
  }
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

ops::QkvHeads Attention::heads(const Tensor& x, const Step& step) const {
  const AttentionSpec& s = plan_.spec;
  const bool own_kv = !s.kv_of_layer;
  const bool full_width = s.qk_norm == QkNorm::full_width;
  const auto tap_heads = [&](const Tensor& t, std::string_view part) {
    if (debug::tapping() && t) tap(ops::nlp_concat_heads(t), plan_.name, part);
  };
  Tensor qkv = qkv_.forward(x, step.mode);
  if (s.clip_qkv) qkv = ops::clamp(std::move(qkv), -*s.clip_qkv, *s.clip_qkv);
  if (full_width) {
    const std::int64_t q_width = std::int64_t{s.heads} * s.head_dim;
    std::vector<Tensor> parts{q_norm_->forward(ops::slice(qkv, -1, 0, q_width))};
    if (own_kv) {
      const std::int64_t k_end = q_width + std::int64_t{s.kv_heads} * s.head_dim;
      parts.push_back(k_norm_->forward(ops::slice(qkv, -1, q_width, k_end)));
      parts.push_back(ops::slice(qkv, -1, k_end, qkv.dim(-1)));
    }
    qkv = ops::concat(parts, -1);
  }
  auto [q, k, v] = ops::nlp_create_qkv_heads(qkv, s.heads, own_kv ? s.kv_heads : 0, s.head_dim, s.v_head_dim);
  tap_heads(q, full_width ? "q_norm" : "q");
  tap_heads(k, full_width ? "k_norm" : "k");
  tap_heads(v, "v");
  if (v_norm_) v = v_norm_->forward(v);
  const auto norm = [&](Tensor& t, const std::optional<Norm>& n, const LazyWeight& weights,
                        std::string_view part) {
    if (!n) return;
    t = n->forward(t);
    if (weights)
      t = ops::mul(std::move(t), weights.get().reshape({1, t.dim(1), 1, t.dim(3)}), {.dtype = x.dtype()});
    tap_heads(t, part);
  };
  const auto norms = [&] {
    if (s.qk_norm == QkNorm::none || full_width) return;
    norm(q, q_norm_, plan_.q_head_weights, "q_norm");
    norm(k, k_norm_, plan_.k_head_weights, "k_norm");
  };
  if (!s.qk_norm_after_rope) norms();
  if (rope_) {
    q = rope_->forward(std::move(q), step);
    if (own_kv) k = rope_->forward(std::move(k), step);
    tap_heads(q, "q_rope");
    tap_heads(k, "k_rope");
  }
  if (s.qk_norm_after_rope) norms();
  if (s.temperature) q = ops::mul(std::move(q), temperatures(step), {.dtype = x.dtype()});
  return {std::move(q), std::move(k), std::move(v)};
}

Tensor Attention::temperatures(const Step& step) const {
  return step.input({1, 1, step.tokens, 1}, DataType::f32,
                    [t = *plan_.spec.temperature](const Step& s, std::span<float> factors) {
                      for (std::size_t i = 0; i < factors.size(); ++i)
                        factors[i] =
                            1 + t.scale * std::log1p(std::floor(
                                              (static_cast<float>(s.positions[i]) + t.offset) / t.length));
                    });
}

Tensor Attention::output(Tensor context, const Tensor& x, const Step& step) const {
  tap(context, plan_.name, "context");
  if (gate_)
    context = gated(std::move(context), gate_->forward(x, step.mode), *plan_.spec.gate, plan_.spec.heads);
  Tensor y = o_.forward(context, step.mode);
  tap(y, plan_.name);
  return y;
}

Tensor Attention::forward(const Tensor& x, const Step& step, const SequenceMask& mask) const {
  const AttentionSpec& s = plan_.spec;
  const auto [q, k, v] = heads(x, step);
  const KvCache& cache = step.state->cache(s.kv_of_layer.value_or(plan_.name.layer), step.iteration);
  return output(attend(q, k, v, cache, step,
                       {.attributes = {.scale = plan_.scale,
                                       .sliding_window_size = s.window.value_or(0),
                                       .chunk_size = s.chunk.value_or(0),
                                       .softcap = s.softcap.value_or(0.0f),
                                       .compute_kernel_config = plan_.compute_kernel_config},
                        .prefill_program = plan_.prefill_program,
                        .decode_program = plan_.decode_program,
                        .sinks = plan_.sinks ? plan_.sinks.get() : Tensor(),
                        .alibi_slopes = alibi_,
                        .mask = mask}),
                x, step);
}

}  // namespace ttt::inline v2
