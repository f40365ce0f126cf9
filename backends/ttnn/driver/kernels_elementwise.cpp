// Binary, unary and ternary operations.
#include "kernels.h"

namespace ttt::inline v2::ttnn {

namespace {

std::string_view function_name(BinaryOp op) {
  switch (op) {
    case BinaryOp::add:
      return "add";
    case BinaryOp::subtract:
      return "subtract";
    case BinaryOp::multiply:
      return "multiply";
    case BinaryOp::divide:
      return "divide";
    case BinaryOp::maximum:
      return "maximum";
    case BinaryOp::minimum:
      return "minimum";
    case BinaryOp::eq:
      return "eq";
    case BinaryOp::lt:
      return "lt";
    case BinaryOp::gt:
      return "gt";
    case BinaryOp::le:
      return "le";
    case BinaryOp::ge:
      return "ge";
  }
  return "";
}

// maximum and minimum take no dtype and no activations.
bool is_bound(BinaryOp op) { return op == BinaryOp::maximum || op == BinaryOp::minimum; }

void binary(Context& c) {
  const auto& a = c.as<BinaryAttributes>();
  const Ref x = c.tiled(0), y = c.tiled(1);
  if (is_bound(a.op)) return c.result(c.invoke(function_name(a.op), {x, y}, {{"memory_config", c.memory()}}));
  Library& lib = c.library();
  c.result(c.invoke(function_name(a.op), {x, y},
                    {{"dtype", c.dtype()},
                     {"memory_config", c.memory()},
                     {"activations", lib.activations(a.activation)},
                     {"input_tensor_a_activations", lib.activations(a.lhs_activation)},
                     {"input_tensor_b_activations", lib.activations(a.rhs_activation)}}));
}

bool supports_binary(const OpCall& call) {
  const auto& a = call.as<BinaryAttributes>();
  const DataType x = call.in(0).dtype(), y = call.in(1).dtype();
  if (!is_float(x) || !is_float(y)) return false;
  const bool plain = a.lhs_activation.op == UnaryOp::identity && a.rhs_activation.op == UnaryOp::identity &&
                     a.activation.op == UnaryOp::identity;
  if (is_bound(a.op)) return plain && x == y;
  return Library::has(a.lhs_activation) && Library::has(a.rhs_activation) && Library::has(a.activation);
}

// x sigmoid(1.702 x)
Ref quick_gelu(Context& c, const Ref& x) {
  const Ref scaled = c.invoke("multiply", {x, real(1.702)});
  const Ref gate = c.library().activations({UnaryOp::sigmoid});
  return c.invoke("multiply", {x, scaled}, {{"input_tensor_b_activations", gate}});
}

void unary(Context& c) {
  const Activation& a = c.as<UnaryAttributes>().activation;
  const Ref x = c.tiled(0);
  if (a.op == UnaryOp::quick_gelu) return c.result(quick_gelu(c, x));
  if (a.op == UnaryOp::identity) return c.result(c.invoke("clone", {x}));
  c.result(c.invoke("unary_chain", {x, c.library().activations(a)}, {{"memory_config", c.memory()}}));
}

void where(Context& c) {
  c.result(c.invoke("where", {c.tiled(0), c.tiled(1), c.tiled(2)}, {{"memory_config", c.memory()}}));
}

}  // namespace

bool supports_elementwise(const OpCall& call) {
  switch (call.op) {
    case OpKind::binary:
      return supports_binary(call);
    case OpKind::unary: {
      const Activation& a = call.as<UnaryAttributes>().activation;
      return is_activation(call.in(0).dtype()) && (Library::has(a) || a.op == UnaryOp::quick_gelu);
    }
    default:
      return call.in(0).dtype() == call.in(1).dtype() && call.in(1).dtype() == call.in(2).dtype() &&
             is_activation(call.in(1).dtype());
  }
}

void run_elementwise(Context& c) {
  switch (c.op().op) {
    case OpKind::binary:
      return binary(c);
    case OpKind::unary:
      return unary(c);
    default:
      return where(c);
  }
}

}  // namespace ttt::inline v2::ttnn
