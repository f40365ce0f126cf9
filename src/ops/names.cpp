#include <array>
#include <cstddef>

#include "ttt/ops/op_call.h"

namespace ttt::inline v2 {

namespace {

template <std::size_t N, class E>
std::string_view look_up(const std::array<std::string_view, N>& names, E value) {
  const auto i = static_cast<std::size_t>(value);
  return i < N ? names[i] : "invalid";
}

constexpr std::array<std::string_view, static_cast<std::size_t>(OpKind::count_)> op_names = {
    "linear",
    "matmul",
    "sparse_matmul",
    "rms_norm",
    "layer_norm",
    "softmax",
    "embedding",
    "rotary_embedding",
    "scaled_dot_product_attention",
    "chunked_scaled_dot_product_attention",
    "paged_scaled_dot_product_attention_decode",
    "chunked_flash_mla_prefill",
    "paged_flash_multi_latent_attention_decode",
    "sparse_sdpa",
    "indexer_score_dsa",
    "paged_update_cache",
    "paged_fill_cache",
    "nlp_create_qkv_heads",
    "nlp_concat_heads",
    "binary",
    "unary",
    "where",
    "reduce",
    "topk",
    "argmax",
    "gather",
    "scatter",
    "concat",
    "slice",
    "pad",
    "permute",
    "repeat",
    "typecast",
    "to_contiguous",
    "to_memory_config",
    "all_gather",
    "reduce_scatter",
    "all_reduce",
    "mesh_partition",
    "causal_conv1d",
    "selective_scan",
    "gated_delta_rule",
    "linear_recurrence",
};

constexpr std::array<std::string_view, 31> unary_names = {
    "identity",   "silu",       "gelu",       "gelu_tanh", "relu", "relu2",     "tanh",  "sigmoid",
    "quick_gelu", "softplus",   "exp",        "log",       "sqrt", "rsqrt",     "neg",   "abs",
    "square",     "reciprocal", "sin",        "cos",       "elu",  "hardswish", "xielu", "clamp",
    "add_scalar", "mul_scalar", "pow_scalar", "floor",     "sign", "log1p",     "expm1"};
constexpr std::array<std::string_view, 11> binary_names = {
    "add", "subtract", "mul", "div", "maximum", "minimum", "eq", "lt", "gt", "le", "ge"};
constexpr std::array<std::string_view, 5> reduce_names = {"sum", "mean", "max", "min", "prod"};

}  // namespace

std::string_view name(OpKind op) { return look_up(op_names, op); }
std::string_view name(UnaryOp op) { return look_up(unary_names, op); }
std::string_view name(BinaryOp op) { return look_up(binary_names, op); }
std::string_view name(ReduceOp op) { return look_up(reduce_names, op); }

int in_place_operand(OpKind op) {
  switch (op) {
    case OpKind::paged_update_cache:
    case OpKind::paged_fill_cache:
      return 0;
    case OpKind::causal_conv1d:
      return 3;
    case OpKind::selective_scan:
      return 7;
    case OpKind::gated_delta_rule:
      return 5;
    case OpKind::linear_recurrence:
      return 2;
    default:
      return -1;
  }
}

std::string_view label(const OpCall& call) {
  if (const auto* binary = std::get_if<BinaryAttributes>(&call.attributes);
      binary && call.op == OpKind::binary) {
    return name(binary->op);
  }
  if (const auto* unary = std::get_if<UnaryAttributes>(&call.attributes); unary && call.op == OpKind::unary) {
    return name(unary->activation.op);
  }
  if (const auto* axis = std::get_if<AxisAttributes>(&call.attributes); axis && call.op == OpKind::reduce) {
    return name(axis->reduce);
  }
  return name(call.op);
}

}  // namespace ttt::inline v2
