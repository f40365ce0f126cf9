#include "ttt/modules/hyper_connections.h"

#include "modules/print.h"

namespace ttt::inline v2 {

HyperConnectionPlan resolve(const HyperConnectionConfig& config, const Target& target) {
  const HyperConnectionSpec& s = config.spec;
  if (s.streams < 1) throw Error(std::to_string(s.streams) + " streams", config.name.path);
  const auto expect = [&](const LazyWeight& weight, const char* name, bool fits) {
    if (!weight || !fits)
      throw Error(std::string(weight ? "misshapen" : "no") + " weight " + name, config.name.path,
                  "check the weight map");
  };
  expect(config.weight, "weight",
         config.weight && config.weight.rows() == s.outputs() && config.weight.cols() % s.streams == 0);
  expect(config.base, "base", config.base && config.base.cols() == s.outputs());
  expect(config.scale, "scale", config.scale && config.scale.cols() == s.scales());
  return {.spec = s,
          .weight = config.weight,
          .base = config.base,
          .scale = config.scale,
          .name = config.name,
          .dtype = target.activation_dtype()};
}

void print(const HyperConnectionPlan& plan, PlanRows& rows) {
  const HyperConnectionSpec& s = plan.spec;
  row(rows, plan.name, "hyper_connection",
      std::to_string(s.streams) + " streams" +
          (s.sinkhorn_iterations > 0 ? ", mixed, " + std::to_string(s.sinkhorn_iterations) + " iterations"
                                     : ""));
}

// The weights decide where everything goes: they stay in float32, as routers do.
HyperConnection::HyperConnection(HyperConnectionPlan plan, const Home& home) : plan_(std::move(plan)) {
  for (LazyWeight* weight : {&plan_.weight, &plan_.base, &plan_.scale})
    *weight = home.bind(*weight, vector_dtype);
}

HyperConnection HyperConnection::from_config(const HyperConnectionConfig& config, const Target& target,
                                             const Home& home) {
  return HyperConnection(resolve(config, target), home);
}

// [1, 1, tokens, streams * dim] -> [1, tokens, streams, dim] f32
static Tensor stacked(const Tensor& streams, std::int64_t n) {
  return ops::typecast(streams, DataType::f32).reshape({1, streams.dim(2), n, streams.dim(3) / n});
}

HyperConnection::Read HyperConnection::read(const Tensor& streams) const {
  const HyperConnectionSpec& s = plan_.spec;
  const std::int64_t n = s.streams, tokens = streams.dim(2);
  const Tensor w = ops::matmul(ops::rms_norm(streams, {.epsilon = s.norm_eps, .dtype = DataType::f32}),
                               plan_.weight.get(), {.transpose_b = true});
  const auto part = [&](std::int64_t begin, std::int64_t end, std::int64_t scale) {
    const Tensor scaled =
        ops::mul(ops::slice(w, -1, begin, end), ops::slice(plan_.scale.get(), -1, scale, scale + 1));
    return ops::add(scaled, ops::slice(plan_.base.get(), -1, begin, end));
  };
  const auto gate = [](Tensor x, float magnitude, float eps) {
    return ops::add(ops::mul(ops::unary(std::move(x), {UnaryOp::sigmoid}), magnitude), eps);
  };
  Read result;
  const Tensor pre = gate(part(0, n, 0), 1, s.eps).reshape({1, tokens, 1, n});
  result.x = ops::matmul(pre, stacked(streams, n)).reshape({1, 1, tokens, streams.dim(3) / n});
  if (s.head) return result;
  result.post = gate(part(n, 2 * n, 1), s.magnitude, s.post_eps).reshape({1, tokens, n, 1});
  if (s.sinkhorn_iterations == 0) return result;
  const auto normalised = [&](const Tensor& x, int axis) {
    return ops::div(x, ops::add(ops::sum(x, axis), s.eps));
  };
  Tensor mix = ops::add(ops::softmax(part(2 * n, 2 * n + n * n, 2).reshape({1, tokens, n, n})), s.eps);
  mix = normalised(mix, 2);
  for (int i = 1; i < s.sinkhorn_iterations; ++i) mix = normalised(normalised(mix, 3), 2);
  result.mix = mix;
  return result;
}

Tensor HyperConnection::write(const Tensor& y, const Read& read, const Tensor& streams) const {
  const std::int64_t n = plan_.spec.streams, tokens = streams.dim(2), dim = y.dim(3);
  const Tensor before = stacked(streams, n);
  const Tensor added = ops::mul(read.post, ops::typecast(y, DataType::f32).reshape({1, tokens, 1, dim}));
  return ops::add(added, read.mix ? ops::matmul(read.mix, before, {.transpose_a = true}) : before,
                  {.dtype = streams.dtype()})
      .reshape(streams.shape());
}

Tensor spread_streams(const Tensor& x, std::int64_t streams) {
  return ops::repeat(ops::typecast(x, DataType::f32), 3, streams);
}

}  // namespace ttt::inline v2
