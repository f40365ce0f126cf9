// Operations along rows: norms, softmax, reductions, choices and gathers.
#include "kernels.h"

namespace ttt::inline v2::ttnn {

namespace {

void norm(Context& c) {
  const auto& a = c.as<NormAttributes>();
  Ref weight = c.tiled(1);
  if (weight && a.weight_plus_one) {
    weight = c.form(1, plus_one, [&](const Ref& w) {
      return c.invoke("add", {c.to_layout(w, Layout::tile), real(1)});
    });
  }
  c.result(c.invoke(c.op().op == OpKind::rms_norm ? "rms_norm" : "layer_norm", {c.tiled(0)},
                    {{"epsilon", real(a.epsilon)},
                     {"weight", weight},
                     {"bias", c.tiled(2)},
                     {"residual_input_tensor", c.tiled(3)},
                     {"memory_config", c.memory()},
                     {"compute_kernel_config", c.library().compute_kernel_config(exact)}}));
}

void softmax(Context& c) {
  c.result(c.invoke("softmax", {c.tiled(0), number(c.as<AxisAttributes>().axis)},
                    {{"numeric_stable", boolean(true)},
                     {"memory_config", c.memory()},
                     {"compute_kernel_config", c.library().compute_kernel_config(exact)}}));
}

void embedding(Context& c) {
  const std::int64_t tokens = c.op().in(0).dim(-1);
  const Ref ids = c.reshape(c.typecast(c.row_major(0), DataType::u32), {1, tokens});
  c.result(c.invoke("embedding", {ids, c.operand(1)},
                    {{"layout", c.library().layout(Layout::tile)}, {"memory_config", c.memory()}}));
}

void reduce(Context& c) {
  static constexpr std::string_view functions[] = {"sum", "mean", "max", "min", "prod"};
  const auto& a = c.as<AxisAttributes>();
  const Ref compute = a.reduce == ReduceOp::prod ? Ref() : Ref(c.library().compute_kernel_config(exact));
  c.result(c.invoke(functions[static_cast<std::size_t>(a.reduce)],
                    {c.tiled(0), number(a.axis), boolean(true)},
                    {{"memory_config", c.memory()}, {"compute_kernel_config", compute}}));
}

void topk(Context& c) {
  const Ref pair = c.invoke("topk", {c.tiled(0), number(c.as<AxisAttributes>().k), number(-1)},
                            {{"largest", boolean(true)}, {"sorted", boolean(true)}});
  c.result(Ref::steal(PySequence_GetItem(pair.get(), 0)), 0);
  c.result(Ref::steal(PySequence_GetItem(pair.get(), 1)), 1);
}

void argmax(Context& c) {
  c.result(c.invoke("argmax", {c.row_major(0)}, {{"dim", number(-1)}, {"keepdim", boolean(true)}}));
}

Ref index(Context& c, Layout layout) {
  const Ref ids = c.typecast(c.to_layout(c.operand(1), Layout::row_major), DataType::u32);
  return c.to_layout(ids, layout);
}

void gather(Context& c) {
  c.result(c.invoke("gather", {c.tiled(0), number(c.as<AxisAttributes>().axis), index(c, Layout::tile)}));
}

// TTNN scatters float32 in rows only.
void scatter(Context& c) {
  c.result(c.to_layout(c.invoke("scatter", {c.row_major(0), number(c.as<AxisAttributes>().axis),
                                            index(c, Layout::row_major), c.row_major(2)}),
                       Layout::tile));
}

}  // namespace

bool supports_rows(const OpCall& call) {
  const DataType x = call.in(0).dtype();
  switch (call.op) {
    case OpKind::rms_norm:
    case OpKind::layer_norm:
      return is_activation(x) && call.output_specs[0].dtype == x && (!call.has(3) || call.in(3).dtype() == x);
    case OpKind::embedding:
      return call.in(1).dtype() == DataType::bf16;
    case OpKind::softmax:
    case OpKind::topk:
    case OpKind::argmax:
      return is_activation(x);
    case OpKind::reduce:
    case OpKind::gather:
      return x == DataType::f32 || x == DataType::bf16;
    case OpKind::scatter:
      return is_activation(x) && call.in(2).dtype() == x;
    default:
      return false;
  }
}

void run_rows(Context& c) {
  switch (c.op().op) {
    case OpKind::rms_norm:
    case OpKind::layer_norm:
      return norm(c);
    case OpKind::softmax:
      return softmax(c);
    case OpKind::embedding:
      return embedding(c);
    case OpKind::reduce:
      return reduce(c);
    case OpKind::topk:
      return topk(c);
    case OpKind::argmax:
      return argmax(c);
    case OpKind::gather:
      return gather(c);
    default:
      return scatter(c);
  }
}

}  // namespace ttt::inline v2::ttnn
