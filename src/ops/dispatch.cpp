#include "ops/dispatch.h"

#include <string>
#include <vector>

#include "ops/composed.h"
#include "ttt/debug/check.h"
#include "ttt/ops/ops.h"
#include "ttt/perf/zone.h"

namespace ttt::inline v2 {

std::string operands(const OpCall& call) {
  std::string text;
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i)) text += (text.empty() ? "" : "; ") + to_string(call.in(i).spec());
  }
  return text;
}

}  // namespace ttt::inline v2

namespace ttt::inline v2::ops {

void fail(const OpCall& call, std::string_view problem, std::string_view where, std::string_view fix) {
  throw Error("[" + std::string(label(call)) + "] " + std::string(problem), where, fix);
}

Backend& backend_of(const OpCall& call) {
  Device* device = nullptr;
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (!call.has(i)) continue;
    if (device == nullptr) device = &call.in(i).device();
    if (device != &call.in(i).device()) {
      fail(call, "operands on two devices",
           device->description() + " and " + call.in(i).device().description());
    }
  }
  auto* backend = dynamic_cast<Backend*>(device);
  if (backend == nullptr)
    fail(call, "the operands' device runs no operations", device ? device->name() : "no device");
  return *backend;
}

namespace {

// Operands replaced by converted ones, which live as long as this.
class Substitute {
 public:
  explicit Substitute(const OpCall& call) : call_(call) { call_.reusable = 0; }
  void set(int i, Tensor t) {
    held_[static_cast<std::size_t>(i)] = std::move(t);
    call_.inputs[static_cast<std::size_t>(i)] = &held_[static_cast<std::size_t>(i)];
    changed_ = true;
  }
  OpCall& call() { return call_; }
  bool changed() const { return changed_; }

 private:
  OpCall call_;
  std::array<Tensor, OpCall::max_inputs> held_;
  bool changed_ = false;
};

bool in_place(const OpCall& call, int i) { return i == in_place_operand(call.op); }

bool try_contiguous(Backend& backend, OpCall& call) {
  if (call.op == OpKind::to_contiguous) return false;
  Substitute other(call);
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i) && !in_place(call, i) && !call.in(i).contiguous())
      other.set(i, to_contiguous(call.in(i)));
  }
  if (!other.changed() || !backend.supports(other.call())) return false;
  backend.run(other.call());
  call.outputs = std::move(other.call().outputs);
  return true;
}

// A linear with a bias or an activation that the kernel does not know: the plain product in float32, then the
// rest.
bool try_plain_linear(Backend& backend, OpCall& call) {
  const auto& attributes = call.as<LinearAttributes>();
  if (!call.has(2) && attributes.activation.op == UnaryOp::identity &&
      call.output_specs[0].dtype == DataType::f32)
    return false;
  OpCall plain = call;
  plain.inputs[2] = nullptr;
  plain.reusable = 0;
  std::get<LinearAttributes>(plain.attributes).activation = {};
  plain.output_specs[0].dtype = DataType::f32;
  if (!backend.supports(plain)) return false;
  backend.run(plain);
  Tensor y = std::move(plain.outputs[0]);
  if (call.has(2)) y = add(std::move(y), typecast(call.in(2), DataType::f32));
  if (attributes.activation.op != UnaryOp::identity) y = unary(std::move(y), attributes.activation);
  call.outputs[0] = typecast(std::move(y), call.output_specs[0].dtype);
  return true;
}

bool is_index(const OpCall& call, int i) {
  return (call.op == OpKind::gather || call.op == OpKind::scatter) && i == 1;
}

// A primitive on operands for which the backend has no kernel: in float32, which every backend has, and
// rounded at the end.
bool try_float32(Backend& backend, OpCall& call) {
  switch (call.op) {
    case OpKind::typecast:
    case OpKind::to_contiguous:
    case OpKind::paged_update_cache:
    case OpKind::paged_fill_cache:
      return false;
    default:
      break;
  }
  Substitute wide(call);
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (!call.has(i) || is_index(call, i)) continue;
    const Tensor& t = call.in(i);
    if (t.dtype() != DataType::f32) {
      wide.set(i, typecast(t, DataType::f32));
    } else if (!t.contiguous()) {
      wide.set(i, to_contiguous(t));
    }
  }
  for (int i = 0; i < call.outputs_count; ++i) {
    const bool indices = call.op == OpKind::topk && i == 1;
    TensorSpec& spec = wide.call().output_specs[static_cast<std::size_t>(i)];
    if (!indices) spec.dtype = DataType::f32, spec.layout = Layout::tile;
  }
  if (!backend.supports(wide.call())) return false;
  backend.run(wide.call());
  for (int i = 0; i < call.outputs_count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    call.outputs[at] = typecast(std::move(wide.call().outputs[at]), call.output_specs[at].dtype);
  }
  return true;
}

// Results without elements need no kernel, so that kernels need not think of them.
bool try_empty(Backend& backend, OpCall& call) {
  for (int i = 0; i < call.outputs_count; ++i) {
    if (call.output_specs[static_cast<std::size_t>(i)].shape.elements() != 0) return false;
  }
  if (call.outputs_count == 0 && call.in(1).shape().elements() != 0) return false;
  for (int i = 0; i < call.outputs_count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    call.outputs[at] = backend.allocate(call.output_specs[at]);
  }
  return true;
}

void run(Backend& backend, OpCall& call) {
  if (try_empty(backend, call)) return;
  if (composed::forced() && composed::has(call)) return composed::run(call);
  if (backend.supports(call)) return backend.run(call);
  if (try_contiguous(backend, call)) return;
  if (call.op == OpKind::linear && try_plain_linear(backend, call)) return;
  if (composed::has(call)) return composed::run(call);
  if (try_float32(backend, call)) return;
  fail(call, "the " + std::string(backend.name()) + " backend has no kernel for these operands",
       operands(call));
}

}  // namespace

void execute(OpCall& call) {
  Backend& backend = backend_of(call);
  perf::Zone zone(label(call));
  if (zone.active()) {
    const OpCost work = cost(call);
    zone.add(work.bytes, work.flops);
  }
  run(backend, call);
  if (debug::checking()) [[unlikely]] {
    debug::detail::check(label(call), call.inputs,
                         std::span(call.outputs).first(static_cast<std::size_t>(call.outputs_count)));
  }
}

}  // namespace ttt::inline v2::ops
