// Checks of the recurrent ops; what they compute is in composed_recurrent.cpp.
#include <string>

#include "ops/dispatch.h"
#include "ttt/ops/ops.h"

namespace ttt::inline v2::ops {

namespace {

std::string str(std::int64_t n) { return std::to_string(n); }

class Checked {
 public:
  Checked(OpKind op, std::initializer_list<const Tensor*> inputs, RecurrentAttributes attributes) {
    call.op = op;
    call.attributes = attributes;
    std::size_t i = 0;
    for (const Tensor* input : inputs) {
      if (input != nullptr && input->defined()) call.inputs[i] = input;
      ++i;
    }
  }

  // Rows [1, 1, tokens, width]; width 0: any. Returns the width.
  std::int64_t rows(int i, const char* name, std::int64_t tokens, std::int64_t width = 0) {
    const Tensor& t = operand(i, name);
    const Shape& s = t.shape();
    if (s.rank() != 4 || s[0] != 1 || s[1] != 1 || (tokens >= 0 && s[2] != tokens) ||
        (width > 0 && s[3] != width)) {
      fail(call, std::string(name) + " has the shape " + to_string(s) + ", not [1, 1, " +
                     (tokens >= 0 ? str(tokens) : "tokens") + ", " + (width > 0 ? str(width) : "width") +
                     "]");
    }
    if (!is_float(t.dtype())) fail(call, std::string(name) + " is not floating-point");
    return s[3];
  }
  void values(int i, const char* name, std::int64_t n) {
    if (!call.has(i)) return;
    const Tensor& t = call.in(i);
    if (t.shape().elements() != n || !is_float(t.dtype()))
      fail(call,
           std::string(name) + " has the shape " + to_string(t.shape()) + ", not " + str(n) + " values");
  }
  void state(int i, std::int64_t elements) {
    const Tensor& t = operand(i, "state");
    if (t.shape().rank() != 2 || t.dim(1) != elements || t.dtype() != DataType::f32 || !t.contiguous())
      fail(call, "state is " + to_string(t.spec()) + ", not [slots, " + str(elements) + "] f32");
    const Tensor& segments = operand(i + 1, "segments");
    if (segments.shape().rank() != 2 || segments.dim(1) != 4 || segments.dtype() != DataType::i32)
      fail(call, "segments are " + to_string(segments.spec()) + ", not [sequences, 4] i32");
  }
  // n / parts, which must be whole.
  std::int64_t share(std::int64_t n, std::int64_t parts, const char* what) {
    if (parts <= 0 || n % parts != 0) fail(call, str(n) + " " + what + " in " + str(parts) + " parts");
    return n / parts;
  }
  Tensor run(std::int64_t tokens, std::int64_t width) {
    call.output_specs[0] = {{1, 1, tokens, width}, call.in(0).dtype(), Layout::tile, {}};
    execute(call);
    return std::move(call.outputs[0]);
  }

  OpCall call;

 private:
  const Tensor& operand(int i, const char* name) {
    if (!call.has(i)) fail(call, std::string(name) + " is an undefined tensor");
    return call.in(i);
  }
};

}  // namespace

Tensor causal_conv1d(const Tensor& x, const Tensor& weight, const Tensor* bias, const Tensor& state,
                     const Tensor& segments, Activation activation) {
  Checked op(OpKind::causal_conv1d, {&x, &weight, bias, &state, &segments}, {.activation = activation});
  const std::int64_t channels = op.rows(0, "x", -1), kernel = op.rows(1, "weight", channels);
  op.values(2, "bias", channels);
  op.state(3, (kernel - 1) * channels);
  return op.run(x.dim(2), channels);
}

Tensor selective_scan(const Tensor& x, const Tensor& b, const Tensor& c, const Tensor& state,
                      const Tensor& segments, std::int64_t heads, std::int64_t groups,
                      const SelectiveScanOptions& o) {
  Checked op(OpKind::selective_scan, {&x, o.dt, o.a, &b, &c, o.d, o.dt_bias, &state, &segments},
             {.heads = heads,
              .groups = groups,
              .softplus = o.softplus,
              .dt_min = o.dt_min,
              .dt_max = o.dt_max,
              .scale_input = o.scale_input});
  const std::int64_t width = op.rows(0, "x", -1), tokens = x.dim(2);
  op.share(heads, groups, "heads");
  const std::int64_t head_dim = op.share(width, heads, "channels of x");
  const std::int64_t n = op.share(op.rows(3, "b", tokens), groups, "columns of b");
  op.rows(4, "c", tokens, groups * n);
  if (op.call.has(1)) op.rows(1, "dt", tokens, heads);
  if (op.call.has(2)) op.values(2, "a", o.a->shape().elements() == heads ? heads : heads * n);
  op.values(5, "d", heads);
  op.values(6, "dt_bias", heads);
  op.state(7, heads * head_dim * n);
  return op.run(tokens, width);
}

Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                        const Tensor& beta, const Tensor& state, const Tensor& segments, std::int64_t heads,
                        std::int64_t key_heads, const DeltaRuleOptions& o) {
  Checked op(OpKind::gated_delta_rule, {&q, &k, &v, &g, &beta, &state, &segments},
             {.heads = heads, .groups = key_heads, .scale = o.scale, .l2norm_eps = o.l2norm_eps});
  const std::int64_t q_width = op.rows(0, "q", -1), tokens = q.dim(2), v_width = op.rows(2, "v", tokens);
  op.rows(1, "k", tokens, q_width);
  op.share(heads, key_heads, "heads");
  const std::int64_t key_dim = op.share(q_width, key_heads, "columns of q"),
                     value_dim = op.share(v_width, heads, "columns of v");
  op.rows(4, "beta", tokens, heads);
  op.rows(3, "g", tokens, g.shape().rank() == 4 && g.dim(3) == heads ? heads : heads * key_dim);
  op.state(5, heads * key_dim * value_dim);
  return op.run(tokens, v_width);
}

Tensor linear_recurrence(const Tensor& a, const Tensor& b, const Tensor& state, const Tensor& segments,
                         const RecurrenceOptions& o) {
  Checked op(OpKind::linear_recurrence, {&a, &b, &state, &segments},
             {.max_plus = o.max_plus, .exclusive = o.exclusive, .initial = o.initial});
  const std::int64_t channels = op.rows(0, "a", -1), tokens = a.dim(2);
  op.rows(1, "b", tokens, channels);
  op.state(2, channels);
  return op.run(tokens, channels);
}

}  // namespace ttt::inline v2::ops
