// The recurrent ops, one token after the other: states are tensors, and each line below is the formula in
// ops.h.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "ops/composed.h"
#include "ops/dispatch.h"
#include "ttt/ops/ops.h"

namespace ttt::inline v2::ops::composed {

namespace {

Tensor f32(const Tensor& x) { return typecast(x, DataType::f32); }
Tensor flat(const Tensor& x, const Shape& shape) { return to_contiguous(x).reshape(shape); }

// One sequence's rows, and its row of the state.
class Sequence {
 public:
  Sequence(const OpCall& call, const std::int32_t* segment)
      : state_(call.in(in_place_operand(call.op))),
        first_(segment[0]),
        count_(segment[1]),
        slot_(segment[2]),
        begins_(segment[3] != 0) {
    if (first_ < 0 || count_ < 0 || first_ + count_ > call.in(0).dim(2) || slot_ < 0 ||
        slot_ >= state_.dim(0))
      fail(call, "segment of rows " + std::to_string(first_) + " + " + std::to_string(count_) + ", slot " +
                     std::to_string(slot_));
  }
  std::int64_t first() const { return first_; }
  std::int64_t count() const { return count_; }
  Tensor rows(const Tensor& x) const { return f32(slice(x, 2, first_, first_ + count_)); }
  // Token t of x under another shape.
  Tensor token(const Tensor& x, std::int64_t t, const Shape& shape) const {
    return flat(f32(x.narrow(2, first_ + t, first_ + t + 1)), shape);
  }
  Tensor load(const Shape& shape, float initial = 0) const {
    // A copy: store() writes the row that a view would show.
    if (!begins_) return mul(state_.narrow(0, slot_, slot_ + 1), 1.0f).reshape(shape);
    const std::vector<float> values(static_cast<std::size_t>(shape.elements()), initial);
    return from_host(state_.device(), values, shape, DataType::f32);
  }
  // A cache with one position per block holds the row to write.
  void store(const Tensor& state) const {
    const std::int64_t n = state_.dim(1);
    const std::int32_t position = 0, block = static_cast<std::int32_t>(slot_);
    Device& device = state_.device();
    paged_update_cache(state_.reshape({state_.dim(0), 1, 1, n}), flat(state, {1, 1, 1, n}),
                       from_host(device, std::span(&position, 1), {1}),
                       from_host(device, std::span(&block, 1), {1, 1}));
  }

 private:
  const Tensor& state_;
  std::int64_t first_, count_, slot_;
  bool begins_;
};

// Results of all sequences in the order of their rows. `run` returns those of one.
void for_sequences(OpCall& call, const std::function<Tensor(const Sequence&)>& run) {
  const Tensor& segments = call.in(in_place_operand(call.op) + 1);
  const std::vector<std::int32_t> values = to_host_int(segments);
  std::vector<std::pair<std::int64_t, Tensor>> parts;
  for (std::size_t s = 0; s * 4 < values.size(); ++s) {
    const Sequence sequence(call, values.data() + s * 4);
    if (sequence.count() > 0) parts.emplace_back(sequence.first(), run(sequence));
  }
  std::ranges::sort(parts, {}, [](const auto& part) { return part.first; });
  std::vector<Tensor> ordered;
  for (auto& part : parts) ordered.push_back(std::move(part.second));
  const Tensor y = ordered.size() == 1 ? ordered.front() : concat(ordered, 2);
  if (y.shape() != call.output_specs[0].shape) fail(call, "the segments do not cover the rows");
  call.outputs[0] = typecast(y, call.output_specs[0].dtype);
}

Tensor tokens_of(std::vector<Tensor> rows) { return rows.size() == 1 ? rows.front() : concat(rows, 2); }

void causal_conv1d(OpCall& call) {
  const Tensor &x = call.in(0), &weight = call.in(1);
  const std::int64_t channels = x.dim(3), kernel = weight.dim(3);
  const auto& a = call.as<RecurrentAttributes>();
  for_sequences(call, [&](const Sequence& s) {
    Tensor inputs = s.rows(x);
    if (kernel > 1) {
      const Tensor parts[] = {s.load({1, 1, kernel - 1, channels}), inputs};
      inputs = concat(parts, 2);
      s.store(slice(inputs, 2, s.count(), s.count() + kernel - 1));
    }
    Tensor y;
    for (std::int64_t i = 0; i < kernel; ++i) {
      const Tensor w = flat(f32(slice(weight, 3, i, i + 1)), {1, 1, 1, channels});
      const Tensor product = mul(slice(inputs, 2, i, i + s.count()), w);
      y = y ? add(y, product) : product;
    }
    if (call.has(2)) y = add(y, flat(f32(call.in(2)), {1, 1, 1, channels}));
    return a.activation.op == UnaryOp::identity ? y : unary(y, a.activation);
  });
}

void selective_scan(OpCall& call) {
  const auto& at = call.as<RecurrentAttributes>();
  const Tensor &x = call.in(0), &b = call.in(3), &c = call.in(4);
  const std::int64_t g = at.groups, r = at.heads / g, p = x.dim(3) / at.heads, n = b.dim(3) / g;
  const auto per_head = [&](int i) {
    return flat(f32(call.in(i)), {g, r, 1, call.in(i).shape().elements() / at.heads});
  };
  const Tensor a = call.has(2) ? per_head(2) : Tensor(), d = call.has(5) ? per_head(5) : Tensor(),
               bias = call.has(6) ? per_head(6) : Tensor();
  for_sequences(call, [&](const Sequence& s) {
    Tensor state = s.load({g, r, p, n});
    std::vector<Tensor> rows;
    for (std::int64_t t = 0; t < s.count(); ++t) {
      const Tensor xt = s.token(x, t, {g, r, p, 1});
      Tensor dt;
      if (call.has(1)) {
        dt = s.token(call.in(1), t, {g, r, 1, 1});
        if (bias) dt = add(dt, bias);
        if (at.softplus) dt = unary(dt, {UnaryOp::softplus});
        if (at.dt_min) dt = clamp(dt, *at.dt_min, INFINITY);
        if (at.dt_max) dt = clamp(dt, -INFINITY, *at.dt_max);
      }
      if (dt || a) state = mul(state, unary(dt && a ? mul(dt, a) : dt ? dt : a, {UnaryOp::exp}));
      const Tensor input = dt && at.scale_input ? mul(xt, dt) : xt;
      state = add(state, mul(input, s.token(b, t, {g, 1, 1, n})));
      Tensor y = sum(mul(state, s.token(c, t, {g, 1, 1, n})), 3);
      if (d) y = add(y, mul(d, xt));
      rows.push_back(flat(y, {1, 1, 1, x.dim(3)}));
    }
    s.store(state);
    return tokens_of(std::move(rows));
  });
}

void gated_delta_rule(OpCall& call) {
  const auto& at = call.as<RecurrentAttributes>();
  const Tensor &q = call.in(0), &k = call.in(1), &v = call.in(2), &g = call.in(3), &beta = call.in(4);
  const std::int64_t kh = at.groups, r = at.heads / kh, kd = q.dim(3) / kh, vd = v.dim(3) / at.heads;
  const float scale = at.scale != 0 ? at.scale : 1 / std::sqrt(static_cast<float>(kd));
  const auto direction = [&](const Tensor& x) {
    if (!at.l2norm_eps) return x;
    return mul(x, unary(add(sum(mul(x, x), 2), *at.l2norm_eps), {UnaryOp::rsqrt}));
  };
  for_sequences(call, [&](const Sequence& s) {
    Tensor state = s.load({kh, r, kd, vd});
    std::vector<Tensor> rows;
    for (std::int64_t t = 0; t < s.count(); ++t) {
      const Tensor qt = mul(direction(s.token(q, t, {kh, 1, kd, 1})), scale),
                   kt = direction(s.token(k, t, {kh, 1, kd, 1})), vt = s.token(v, t, {kh, r, 1, vd});
      const Tensor decay = s.token(g, t, {kh, r, g.dim(3) == at.heads ? 1 : kd, 1});
      state = mul(state, unary(decay, {UnaryOp::exp}));
      const Tensor error = mul(subtract(vt, sum(mul(state, kt), 2)), s.token(beta, t, {kh, r, 1, 1}));
      state = add(state, mul(kt, error));
      rows.push_back(flat(sum(mul(state, qt), 2), {1, 1, 1, v.dim(3)}));
    }
    s.store(state);
    return tokens_of(std::move(rows));
  });
}

void linear_recurrence(OpCall& call) {
  const auto& at = call.as<RecurrentAttributes>();
  const Tensor &a = call.in(0), &b = call.in(1);
  const Shape row{1, 1, 1, a.dim(3)};
  for_sequences(call, [&](const Sequence& s) {
    Tensor h = s.load(row, at.initial);
    std::vector<Tensor> rows;
    for (std::int64_t t = 0; t < s.count(); ++t) {
      if (at.exclusive) rows.push_back(h);
      const Tensor at_t = s.token(a, t, row), bt = s.token(b, t, row);
      h = at.max_plus ? maximum(add(at_t, h), bt) : add(mul(at_t, h), bt);
      if (!at.exclusive) rows.push_back(h);
    }
    s.store(h);
    return tokens_of(std::move(rows));
  });
}

}  // namespace

void recurrent(OpCall& call) {
  switch (call.op) {
    case OpKind::causal_conv1d:
      return causal_conv1d(call);
    case OpKind::selective_scan:
      return selective_scan(call);
    case OpKind::gated_delta_rule:
      return gated_delta_rule(call);
    default:
      return linear_recurrence(call);
  }
}

}  // namespace ttt::inline v2::ops::composed
