#include "kernels.h"

#include "ttt/base/error.h"

namespace ttt::inline v2::ttnn {

namespace {

enum class Family { none, matrix, attention, elementwise, rows, shape };

Family family(OpKind op) {
  switch (op) {
    case OpKind::linear:
    case OpKind::matmul:
    case OpKind::sparse_matmul:
      return Family::matrix;
    case OpKind::rotary_embedding:
    case OpKind::scaled_dot_product_attention:
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::paged_scaled_dot_product_attention_decode:
    case OpKind::chunked_flash_mla_prefill:
    case OpKind::paged_flash_multi_latent_attention_decode:
    case OpKind::paged_update_cache:
    case OpKind::paged_fill_cache:
    case OpKind::nlp_create_qkv_heads:
    case OpKind::nlp_concat_heads:
      return Family::attention;
    case OpKind::binary:
    case OpKind::unary:
    case OpKind::ternary:
      return Family::elementwise;
    case OpKind::rms_norm:
    case OpKind::layer_norm:
    case OpKind::softmax:
    case OpKind::embedding:
    case OpKind::reduce:
    case OpKind::topk:
    case OpKind::argmax:
    case OpKind::gather:
    case OpKind::scatter:
      return Family::rows;
    case OpKind::concat:
    case OpKind::slice:
    case OpKind::pad:
    case OpKind::permute:
    case OpKind::repeat:
    case OpKind::typecast:
    case OpKind::to_contiguous:
    case OpKind::to_memory_config:
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_reduce:
    case OpKind::mesh_partition:
      return Family::shape;
    default:
      return Family::none;  // the recurrences: composed
  }
}

}  // namespace

bool TtnnDevice::supports(const OpCall& call) const {
  switch (family(call.op)) {
    case Family::matrix:
      return supports_matrix(call);
    case Family::attention:
      return supports_attention(call);
    case Family::elementwise:
      return supports_elementwise(call);
    case Family::rows:
      return supports_rows(call);
    case Family::shape:
      return supports_shape(call);
    case Family::none:
      break;
  }
  return false;
}

void TtnnDevice::run(OpCall& call) {
  if (waiting_.waits()) return waiting_.call(call);
  const Gil gil;
  Context context(*this, call);
  try {
    switch (family(call.op)) {
      case Family::matrix:
        return run_matrix(context);
      case Family::attention:
        return run_attention(context);
      case Family::elementwise:
        return run_elementwise(context);
      case Family::rows:
        return run_rows(context);
      case Family::shape:
        return run_shape(context);
      case Family::none:
        break;
    }
  } catch (const Error& error) {
    throw Error("[" + std::string(label(call)) + "] " + error.problem(), operands(call), error.fix());
  }
  throw Error("[" + std::string(label(call)) + "] TTNN has no such operation");
}

Ref Context::operand(int i) { return call_.has(i) ? device_.materialise(call_.in(i)) : Ref(); }
Ref Context::tiled(int i) { return call_.has(i) ? to_layout(operand(i), Layout::tile) : Ref(); }
Ref Context::row_major(int i) { return call_.has(i) ? to_layout(operand(i), Layout::row_major) : Ref(); }

Ref Context::to_layout(Ref x, Layout layout) {
  const Ref& wanted = library().layout(layout);
  if (x.attr("layout").get() == wanted.get()) return x;
  return invoke("to_layout", {x, wanted});
}

Ref Context::typecast(Ref x, DataType type) {
  const Ref& wanted = library().dtype(type);
  if (x.attr("dtype").get() == wanted.get()) return x;
  return invoke("typecast", {x, wanted});
}

Ref Context::reshape(Ref x, const Shape& shape) {
  if (to_shape(x.attr("shape")) == shape) return x;
  return invoke("reshape", {x, tuple(shape)});
}

Ref Context::to_memory_config(Ref x, const MemoryConfig& config) {
  return invoke("to_memory_config", {x, library().memory_config(config)});
}

void Context::result(Ref x, int output) {
  TensorSpec whole = spec(output);
  x = typecast(reshape(std::move(x), whole.shape), whole.dtype);
  call_.outputs[static_cast<std::size_t>(output)] =
      Tensor(std::make_shared<TtnnBuffer>(device_, whole, std::move(x)), whole);
}

}  // namespace ttt::inline v2::ttnn
