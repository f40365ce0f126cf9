// How an OpCall becomes calls of ttnn. A kernel is two functions: whether TTNN computes exactly this call,
// and the calls.
#pragma once

#include <initializer_list>

#include "device.h"

namespace ttt::inline v2::ttnn {

// One call under way: operands as ttnn.Tensor, results back into the call.
class Context {
 public:
  Context(TtnnDevice& device, OpCall& call) : device_(device), call_(call) {}

  TtnnDevice& device() { return device_; }
  Library& library() { return device_.library(); }
  const OpCall& op() const { return call_; }
  template <class T>
  const T& as() const {
    return call_.as<T>();
  }

  Ref operand(int i);  // in the layout that it has
  Ref tiled(int i);    // undefined where the operand is absent
  Ref row_major(int i);
  Ref to_layout(Ref x, Layout);
  Ref typecast(Ref x, DataType);
  Ref reshape(Ref x, const Shape&);
  Ref to_memory_config(Ref x, const MemoryConfig&);
  // A form of operand i, kept with its buffer where the operand is the whole of it.
  template <class Make>
  Ref form(int i, int key, Make&& make) {
    const Tensor& t = call_.in(i);
    auto& buffer = static_cast<TtnnBuffer&>(t.buffer());
    if (t.shape().elements() != buffer.whole().shape.elements() || !t.contiguous()) return make(operand(i));
    return buffer.derived(key, [&] { return make(operand(i)); });
  }
  Ref invoke(std::string_view function, std::initializer_list<Ref> arguments,
             std::initializer_list<Keyword> keywords = {}) {
    return ttnn::call(library().function(function), arguments, keywords);
  }

  const TensorSpec& spec(int output = 0) const {
    return call_.output_specs[static_cast<std::size_t>(output)];
  }
  Ref dtype(int output = 0) { return library().dtype(spec(output).dtype); }
  Ref memory(int output = 0) { return library().memory_config(spec(output).memory); }
  // Hands a result over, in the shape and dtype that the call promises.
  void result(Ref x, int output = 0);

 private:
  TtnnDevice& device_;
  OpCall& call_;
};

// Forms that a buffer keeps (Context::form).
// first_choices: and the number of choices behind it.
enum Form : int {
  plus_one,
  rope_half,
  rope_interleaved,
  sink_prefill,
  sink_decode,
  no_experts,
  first_choices
};

// Norms and reductions are computed as exactly as the matrix unit can.
inline constexpr ComputeKernelConfig exact{
    .math_fidelity = MathFidelity::hifi4, .math_approx_mode = false, .fp32_dest_acc_en = true};

constexpr bool is_activation(DataType t) { return t == DataType::bf16 || t == DataType::f32; }
constexpr bool whole_tiles(std::int64_t n) { return n % 32 == 0; }

// By family, each in a file of its own.
bool supports_matrix(const OpCall&);
void run_matrix(Context&);
bool supports_attention(const OpCall&);
void run_attention(Context&);
bool supports_elementwise(const OpCall&);
void run_elementwise(Context&);
bool supports_rows(const OpCall&);
void run_rows(Context&);
bool supports_shape(const OpCall&);
void run_shape(Context&);

}  // namespace ttt::inline v2::ttnn
