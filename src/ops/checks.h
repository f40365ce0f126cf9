// What the ops' own checks are made of; problems are told by fail() (dispatch.h).
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "ops/dispatch.h"
#include "ttt/ops/ops.h"

namespace ttt::inline v2::ops {

inline std::string str(std::int64_t n) { return std::to_string(n); }
inline std::string str(const Tensor& t) { return to_string(t.shape()) + " " + std::string(name(t.dtype())); }

// Layout and placement are ops' own: tiles for values, rows for integers.
inline TensorSpec spec(Shape shape, DataType dtype, MemoryConfig memory = {}) {
  return {std::move(shape), dtype, is_float(dtype) ? Layout::tile : Layout::row_major, std::move(memory)};
}

inline OpCall make(OpKind op, std::initializer_list<const Tensor*> inputs,
                   OpAttributes attributes = NoAttributes{}) {
  OpCall call;
  call.op = op;
  call.attributes = std::move(attributes);
  std::size_t i = 0;
  for (const Tensor* input : inputs) {
    if (input != nullptr && input->defined()) call.inputs[i] = input;
    ++i;
  }
  return call;
}

inline void require(const OpCall& call, std::initializer_list<const char*> names) {
  int i = 0;
  for (const char* operand : names) {
    if (!call.has(i++)) fail(call, std::string(operand) + " is an undefined tensor");
  }
}

inline void require_rank(const OpCall& call, const Tensor& t, const char* operand, int rank) {
  if (t.shape().rank() != rank)
    fail(call, std::string(operand) + " has the shape " + to_string(t.shape()) + ", not rank " + str(rank));
}

inline void require_float(const OpCall& call, const Tensor& t, const char* operand) {
  if (!is_float(t.dtype())) fail(call, std::string(operand) + " is " + str(t) + ", not floating-point");
}

inline void require_int(const OpCall& call, const Tensor& t, const char* operand) {
  if (t.dtype() != DataType::i32 && t.dtype() != DataType::u32) {
    fail(call, std::string(operand) + " is " + str(t) + ", not i32 or u32");
  }
}

// An operand that holds exactly `n` values along its last axis, as biases and norm weights do.
inline void require_vector(const OpCall& call, int input, const char* operand, std::int64_t n) {
  if (!call.has(input)) return;
  const Tensor& t = call.in(input);
  if (t.shape().rank() < 1 || t.dim(-1) != n || t.shape().elements() != n) {
    fail(call,
         std::string(operand) + " has the shape " + to_string(t.shape()) + ", not [1, 1, 1, " + str(n) + "]");
  }
  require_float(call, t, operand);
}

inline int checked_axis(const OpCall& call, const Tensor& x, int axis) {
  const int i = axis < 0 ? axis + x.shape().rank() : axis;
  if (i < 0 || i >= x.shape().rank())
    fail(call, "axis " + str(axis) + " of a tensor of shape " + to_string(x.shape()));
  return i;
}

inline Tensor finish(OpCall& call, std::initializer_list<const Operand*> operands = {}) {
  for (std::uint32_t i = 0; const Operand* operand : operands) {
    if (operand->reusable()) call.reusable |= 1u << i;
    ++i;
  }
  execute(call);
  for (const Operand* operand : operands) operand->release();
  return std::move(call.outputs[0]);
}

// Axes are aligned at the last one; an extent of 1 is repeated.
inline Shape broadcast(const OpCall& call, const Shape& a, const Shape& b, int keep = 0) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out;
  for (int i = rank; i > keep; --i) {
    const std::int64_t x = i <= a.rank() ? a[-i] : 1, y = i <= b.rank() ? b[-i] : 1;
    if (x != y && x != 1 && y != 1)
      fail(call, "the shapes " + to_string(a) + " and " + to_string(b) + " do not fit together");
    out.push_back(x == 1 ? y : x);
  }
  return out;
}

}  // namespace ttt::inline v2::ops
