#include "cpu_device.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>

#include "access.h"
#include "cpu_trace.h"
#include "mesh_device.h"
#include "pack.h"
#include "ttt/base/error.h"
#include "ttt/base/threads.h"

namespace ttt::inline v2::cpu {

namespace {

// Tiles sum in another order than vectors, which serve few rows: where a row may not depend on the rows
// beside it, vectors serve all.
const Kernels& kernels_of(Isa isa, bool deterministic) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2:
      return kernels_avx2;
    case Isa::avx512:
      return kernels_avx512;
    case Isa::avx512_bf16:
      return kernels_avx512_bf16;
    case Isa::amx: {
      static const Kernels kernels_amx = [] {
        Kernels k = kernels_avx512_bf16;
        k.pair_rows = 32;
        k.pair_step = tile_depth;
        k.pair_tiles = 16;
        k.gemm_dp = gemm_amx;
        for (auto& kernel : k.gemm_dp_expand) kernel = nullptr;
        return k;
      }();
      return deterministic ? kernels_avx512_bf16 : kernels_amx;
    }
#endif
    default:
      return kernels_portable;
  }
}

int checked_threads(int requested) {
  constexpr int most = 1024;
  if (requested < 0 || requested > most) {
    throw Error("the cpu backend cannot run " + std::to_string(requested) + " threads",
                "DeviceOptions.threads", "use 0 (what the process may use) to " + std::to_string(most));
  }
  return requested == 0 ? usable_threads() : requested;
}

// Bytes of `rows` rows; Error when the size is no size.
std::size_t checked_bytes(std::int64_t rows, std::size_t row_bytes, const std::string& what) {
  std::size_t bytes = 0;
  if (rows < 0 || __builtin_mul_overflow(static_cast<std::size_t>(rows), row_bytes, &bytes) ||
      bytes > std::size_t{1} << 48) {
    throw Error("the tensor " + what + " is too large");
  }
  return bytes;
}

std::size_t row_bytes(DataType t, std::int64_t n) {
  return is_block_float(t) ? block_row_bytes(n) : static_cast<std::size_t>(n) * bytes_of(t);
}

std::size_t tensor_bytes(const TensorSpec& spec) {
  const std::int64_t n = spec.shape.rank() > 0 ? spec.shape[-1] : 1;
  std::int64_t rows = 1;
  for (int axis = 0; axis + 1 < spec.shape.rank(); ++axis) {
    if (spec.shape[axis] < 0 || __builtin_mul_overflow(rows, spec.shape[axis], &rows)) {
      throw Error("the tensor " + to_string(spec.shape) + " is too large");
    }
  }
  if (n < 0 || n > std::int64_t{1} << 44)
    throw Error("the tensor " + to_string(spec.shape) + " is too large");
  return checked_bytes(rows, row_bytes(spec.dtype, n), to_string(spec.shape));
}

bool in_panels(const WeightSpec& spec) {
  return spec.role == WeightRole::linear || spec.role == WeightRole::experts;
}

Packed packed_of(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) {
  if (!is_float(spec.dtype)) {
    throw Error("a linear weight cannot be " + std::string(name(spec.dtype)), {},
                "use f32, bf16, bfp8_b or bfp4_b");
  }
  const std::int64_t experts = spec.role == WeightRole::experts ? spec.experts : 1;
  if (rows < 0 || cols < 0 || experts < 1 || rows % experts != 0) {
    throw Error("a weight of " + std::to_string(rows) + " x " + std::to_string(cols) + " values is not " +
                std::to_string(experts) + " experts");
  }
  Packed p;
  p.format = static_cast<Format>(spec.dtype);
  p.experts = experts;
  p.in = cols;
  p.out = rows / experts;
  return p;
}

}  // namespace

Scratch::~Scratch() { std::free(memory_); }

std::byte* Scratch::reserve(std::size_t bytes) {
  if (bytes > bytes_) {
    std::free(memory_);
    bytes_ = 0;
    const std::size_t rounded = (bytes + bytes / 4 + 4095) / 4096 * 4096;
    memory_ = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
    if (memory_ == nullptr) throw std::bad_alloc();
    bytes_ = rounded;
  }
  return memory_;
}

CpuDevice::CpuDevice(const DeviceOptions& options)
    : isa_(choose_isa(options.isa)),
      deterministic_(options.deterministic),
      kernels_(&kernels_of(isa_, options.deterministic)),
      arena_(std::make_shared<Arena>()),
      pool_(checked_threads(options.threads)) {
  if (options.mesh.devices() != 1) {
    throw Error("one device, not a mesh of " + to_string(options.mesh), "CpuDevice");
  }
  scratch_.resize(static_cast<std::size_t>(pool_.size()) + 1);
}

std::string CpuDevice::description() const {
  std::string text = "cpu: " + std::string(cpu::name(isa_)) + ", " + std::to_string(pool_.size()) +
                     (pool_.size() == 1 ? " thread" : " threads");
  if (deterministic_) text += ", deterministic";
  return text;
}

CpuDevice::~CpuDevice() = default;

void CpuDevice::begin_trace() { recording_ = std::make_unique<CpuTrace>(*this); }

std::unique_ptr<Trace> CpuDevice::end_trace(std::span<const Tensor> inputs, const Tensor& result) {
  std::unique_ptr<CpuTrace> trace = std::move(recording_);
  const bool replayable = traffic_.only(inputs);
  traffic_.clear();
  if (!trace->finish(result) || !replayable) return nullptr;
  return trace;
}

void CpuDevice::drop_trace() noexcept {
  recording_.reset();
  traffic_.clear();
}

Tensor CpuDevice::allocate(const TensorSpec& spec) {
  if (replaying_ != nullptr) {
    if (const std::shared_ptr<Buffer>& result = replaying_->next_result()) return Tensor(result, spec);
  }
  const auto kind = is_block_float(spec.dtype) ? CpuBuffer::Kind::block_rows : CpuBuffer::Kind::plain;
  const bool of_trace = recording_ && recording_->in_call();
  auto buffer =
      std::allocate_shared<CpuBuffer>(ArenaAllocator<CpuBuffer>(arena_), *this,
                                      of_trace ? recording_->arena() : arena_, tensor_bytes(spec), kind);
  if (of_trace) recording_->allocated(buffer);
  return Tensor(std::move(buffer), spec);
}

Tensor CpuDevice::allocate_like(const TensorSpec& spec, const Tensor& like) {
  const int rank = spec.shape.rank();
  Tensor dense = allocate(spec);
  if (rank < 3 || like.contiguous() || like.shape() != spec.shape || is_block_float(spec.dtype)) return dense;
  // Axes from the outermost in memory to the innermost.
  std::array<int, Shape::max_rank> order{};
  for (int i = 0; i < rank; ++i) order[static_cast<std::size_t>(i)] = i;
  std::sort(order.begin(), order.begin() + rank, [&](int a, int b) {
    const bool unit_a = spec.shape[a] == 1, unit_b = spec.shape[b] == 1;
    if (unit_a != unit_b) return unit_a;
    if (unit_a || like.strides()[a] == like.strides()[b]) return a < b;
    return like.strides()[a] > like.strides()[b];
  });
  if (order[static_cast<std::size_t>(rank - 1)] != rank - 1) return dense;
  Shape strides = spec.shape;
  std::int64_t step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    const int axis = order[static_cast<std::size_t>(i)];
    strides[axis] = step;
    step *= spec.shape[axis];
  }
  return Tensor(dense.buffer_ptr(), spec, strides, 0);
}

Tensor CpuDevice::allocate_token_major(const TensorSpec& spec) {
  Tensor dense = allocate(spec);
  const int rank = spec.shape.rank();
  if (rank < 3 || is_block_float(spec.dtype)) return dense;
  Shape strides = dense.strides();
  strides[rank - 3] = spec.shape[-1];
  strides[rank - 2] = spec.shape[-1] * spec.shape[-3];
  return Tensor(dense.buffer_ptr(), spec, strides, 0);
}

void CpuDevice::write(const Tensor& t, std::span<const float> values) {
  if (recording_) traffic_.wrote(t);
  if (is_packed(t))
    throw Error("a packed weight cannot be written", to_string(t.spec()), "bind and load it again");
  const IndexSpace rows(t.shape(), {t.strides()}, true);
  const std::int64_t n = rows.inner();
  if (static_cast<std::int64_t>(values.size()) != t.shape().elements()) {
    throw Error(std::to_string(values.size()) + " values for a tensor " + to_string(t.spec()));
  }
  const Elements to(t);
  for (std::int64_t row = 0; n > 0 && row < rows.outer(); ++row) {
    std::int64_t at = 0;
    rows.begin(row, &at);
    const float* from = values.data() + row * n;
    if (rows.stride(0) == 1 || n == 1) {
      store_values(*kernels_, from, to, at, n);
    } else {
      for (std::int64_t i = 0; i < n; ++i) store_values(*kernels_, from + i, to, at + i * rows.stride(0), 1);
    }
  }
}

void CpuDevice::write(const Tensor& t, std::span<const std::int32_t> values) {
  if (recording_) traffic_.wrote(t);
  const IndexSpace rows(t.shape(), {t.strides()}, true);
  if (static_cast<std::int64_t>(values.size()) != t.shape().elements() || is_block_float(t.dtype()) ||
      is_packed(t)) {
    throw Error(std::to_string(values.size()) + " integers for a tensor " + to_string(t.spec()));
  }
  const Elements to(t);
  for (std::int64_t row = 0; row < rows.outer(); ++row) {
    std::int64_t at = 0;
    rows.begin(row, &at);
    for (std::int64_t i = 0; i < rows.inner(); ++i) {
      const std::int32_t value = values[static_cast<std::size_t>(row * rows.inner() + i)];
      if (t.dtype() == DataType::u32) {
        std::memcpy(to.at(at + i * rows.stride(0)), &value,
                    4);  // the bits, as the header of Tensor reads them back
      } else {
        const auto wide = static_cast<double>(value);
        store_values(&wide, to, at + i * rows.stride(0), 1);
      }
    }
  }
}

void CpuDevice::read(const Tensor& t, std::span<float> values) {
  if (recording_) traffic_.read();
  if (static_cast<std::int64_t>(values.size()) != t.shape().elements()) {
    throw Error(std::to_string(values.size()) + " values of a tensor " + to_string(t.spec()));
  }
  if (is_packed(t)) {
    const Packed& p = cpu_buffer(t).packed();
    const std::int64_t expert_values = p.in * p.out;
    if (expert_values == 0) return;
    const std::int64_t first = t.offset() / expert_values, experts = t.shape().elements() / expert_values;
    const std::int64_t panels = p.panels();
    pool_.parallel_for(experts * panels, 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::vector<float> outputs(static_cast<std::size_t>(panel_width * p.in));
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t e = i / panels, panel = i % panels, n0 = panel * panel_width;
        const std::int64_t count = std::min<std::int64_t>(panel_width, p.out - n0);
        unpack_panel(p,
                     cpu_buffer(t).raw() + static_cast<std::size_t>(first + e) * p.expert_bytes() +
                         static_cast<std::size_t>(panel) * p.panel_bytes(),
                     count, outputs.data(), p.in);
        for (std::int64_t k = 0; k < p.in; ++k) {
          for (std::int64_t n = 0; n < count; ++n) {
            values[static_cast<std::size_t>((e * p.in + k) * p.out + n0 + n)] =
                outputs[static_cast<std::size_t>(n * p.in + k)];
          }
        }
      }
    });
    return;
  }
  const IndexSpace rows(t.shape(), {t.strides()}, true);
  const Elements from(t);
  for (std::int64_t row = 0; row < rows.outer(); ++row) {
    std::int64_t at = 0;
    rows.begin(row, &at);
    load_values(*kernels_, from, at, rows.stride(0), rows.inner(), values.data() + row * rows.inner());
  }
}

void CpuDevice::read(const Tensor& t, std::span<std::int32_t> values) {
  if (recording_) traffic_.read();
  if (static_cast<std::int64_t>(values.size()) != t.shape().elements() || is_block_float(t.dtype())) {
    throw Error(std::to_string(values.size()) + " integers of a tensor " + to_string(t.spec()));
  }
  const IndexSpace rows(t.shape(), {t.strides()}, true);
  const Elements from(t);
  for (std::int64_t row = 0; row < rows.outer(); ++row) {
    std::int64_t at = 0;
    rows.begin(row, &at);
    for (std::int64_t i = 0; i < rows.inner(); ++i) {
      values[static_cast<std::size_t>(row * rows.inner() + i)] =
          static_cast<std::int32_t>(load_index(from, at + i * rows.stride(0)));
    }
  }
}

std::string CpuDevice::packing(const WeightSpec& spec) const {
  // One arrangement for all instruction sets. Rows of floats are as in memory everywhere.
  if (in_panels(spec)) return "cpu-panels32-1";
  return is_block_float(spec.dtype) ? "cpu-block-rows-1" : "rows";
}

std::size_t CpuDevice::packed_bytes(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) const {
  const std::string what = std::to_string(rows) + " x " + std::to_string(cols);
  if (!in_panels(spec)) {
    if (rows < 0 || cols < 0 || cols > std::int64_t{1} << 40)
      throw Error("the weight " + what + " is too large");
    return checked_bytes(rows, row_bytes(spec.dtype, cols), what);
  }
  const Packed p = packed_of(spec, rows, cols);
  if (cols > std::int64_t{1} << 40 || rows > std::int64_t{1} << 40)
    throw Error("the weight " + what + " is too large");
  return checked_bytes(p.experts * p.panels(), p.panel_bytes(), what);
}

void CpuDevice::pack(const WeightSource& source, const WeightSpec& spec, std::span<std::byte> out) {
  const std::int64_t rows = source.rows(), cols = source.cols();
  if (out.size() != packed_bytes(spec, rows, cols)) {
    throw Error("a weight of " + std::to_string(out.size()) + " packed bytes", source.describe(),
                "ask packed_bytes() for its size");
  }
  // A source may throw (a damaged file); the first error leaves when all threads have stopped.
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto guarded = [&](auto&& work) {
    try {
      work();
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  if (in_panels(spec)) {
    const Packed p = packed_of(spec, rows, cols);
    const std::int64_t panels = p.panels();
    pool_.parallel_for(p.experts * panels, 1, [&](std::int64_t begin, std::int64_t end, int) {
      guarded([&] {
        std::vector<float> slab(static_cast<std::size_t>(std::min<std::int64_t>(panel_width, p.out) * cols));
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t first = i % panels * panel_width,
                             count = std::min<std::int64_t>(panel_width, p.out - first);
          source.read(i / panels * p.out + first, count, slab.data());
          pack_panel(p, slab.data(), cols, count, out.data() + static_cast<std::size_t>(i) * p.panel_bytes());
        }
      });
    });
  } else {
    if (const std::span<const std::byte> same = source.mapped(spec.dtype);
        same.size() == out.size() && !is_block_float(spec.dtype)) {
      std::copy(same.begin(), same.end(), out.begin());
      return;
    }
    constexpr std::int64_t slab_values = 1 << 18;
    const std::int64_t step = std::max<std::int64_t>(1, slab_values / std::max<std::int64_t>(cols, 1));
    pool_.parallel_for(rows, step, [&](std::int64_t begin, std::int64_t end, int) {
      guarded([&] {
        std::vector<float> slab(static_cast<std::size_t>(std::min(step, end - begin) * cols));
        Elements to;
        to.base = out.data();
        to.dtype = spec.dtype;
        to.row = cols;
        for (std::int64_t row = begin; row < end; row += step) {
          const std::int64_t count = std::min(step, end - row);
          source.read(row, count, slab.data());
          for (std::int64_t i = 0; i < count; ++i)
            store_values(*kernels_, slab.data() + i * cols, to, (row + i) * cols, cols);
        }
      });
    });
  }
  if (failure) std::rethrow_exception(failure);
}

Tensor CpuDevice::adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols,
                        std::span<const std::byte> packed, std::shared_ptr<const void> owner) {
  if (packed.size() != packed_bytes(spec, rows, cols)) {
    throw Error("a weight of " + std::to_string(rows) + " x " + std::to_string(cols) + " values in " +
                    std::to_string(packed.size()) + " bytes",
                {}, "delete the weight cache");
  }
  TensorSpec tensor{.shape = weight_shape(spec, rows, cols), .dtype = spec.dtype, .memory = spec.memory};
  if (in_panels(spec)) {
    return Tensor(std::make_shared<CpuBuffer>(*this, packed, std::move(owner), CpuBuffer::Kind::packed,
                                              packed_of(spec, rows, cols)),
                  tensor);
  }
  const auto kind = is_block_float(spec.dtype) ? CpuBuffer::Kind::block_rows : CpuBuffer::Kind::plain;
  return Tensor(std::make_shared<CpuBuffer>(*this, packed, std::move(owner), kind), tensor);
}

namespace {

bool plain_float(const Tensor& t) { return t.dtype() == DataType::f32 || t.dtype() == DataType::bf16; }
bool plain(const Tensor& t) { return !is_block_float(t.dtype()) && !is_packed(t); }
bool dense_rows(const Tensor& t) { return t.shape().rank() == 0 || t.dim(-1) <= 1 || t.strides()[-1] == 1; }

bool all_plain(const OpCall& call) {
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i) && !plain(call.in(i))) return false;
  }
  for (int i = 0; i < call.outputs_count; ++i) {
    if (is_block_float(call.output_specs[static_cast<std::size_t>(i)].dtype)) return false;
  }
  return true;
}

bool last_axis(const OpCall& call) {
  const int axis = call.as<AxisAttributes>().axis;
  return axis == -1 || axis == call.in(0).shape().rank() - 1;
}

}  // namespace

bool CpuDevice::supports(const OpCall& call) const {
  const auto floats = [&](std::initializer_list<int> inputs) {
    for (const int i : inputs) {
      if (call.has(i) && !(plain(call.in(i)) && plain_float(call.in(i)) && dense_rows(call.in(i))))
        return false;
    }
    return call.outputs_count == 0 || !is_block_float(call.output_specs[0].dtype);
  };
  const auto cache = [](const Tensor& t) {
    return !is_packed(t) && t.contiguous() && (t.offset() == 0 || plain(t)) &&
           (t.dtype() == DataType::f32 || t.dtype() == DataType::bf16 || is_block_float(t.dtype()));
  };
  const auto whole = [](const Tensor& w) { return is_packed(w) && w.contiguous(); };
  // A linear weight, or one expert of a stack.
  const auto one_matrix = [&](const Tensor& w) {
    return whole(w) && w.shape().elements() == w.dim(-1) * w.dim(-2);
  };
  // As many matrices as x has batches.
  const auto matrix_per_batch = [&](const Tensor& x, const Tensor& w) {
    return whole(w) && w.offset() == 0 && x.shape().rank() == 4 && x.dim(0) == 1 && x.dim(1) == w.dim(1) &&
           w.dim(1) == cpu_buffer(w).packed().experts;
  };
  switch (call.op) {
    case OpKind::linear:
      return floats({0, 2}) &&
             (is_packed(call.in(1)) ? one_matrix(call.in(1)) : plain(call.in(1)) && plain_float(call.in(1)));
    case OpKind::matmul:
      if (is_packed(call.in(1))) {
        const auto& attributes = call.as<LinearAttributes>();
        return floats({0}) && (one_matrix(call.in(1)) || matrix_per_batch(call.in(0), call.in(1))) &&
               !attributes.transpose_a && !attributes.transpose_b;
      }
      return all_plain(call) && plain_float(call.in(0)) && plain_float(call.in(1));
    case OpKind::sparse_matmul:
      return floats({0, 3}) && whole(call.in(1)) && call.in(1).offset() == 0 &&
             call.in(1).dim(-3) == cpu_buffer(call.in(1)).packed().experts;
    case OpKind::rms_norm:
    case OpKind::layer_norm:
      return floats({0, 1, 2, 3});
    case OpKind::softmax:
      return floats({0}) && last_axis(call);
    case OpKind::embedding:
      return !is_packed(call.in(1)) && dense_rows(call.in(1)) && !is_block_float(call.output_specs[0].dtype);
    case OpKind::rotary_embedding:
      return floats({0, 1, 2});
    case OpKind::scaled_dot_product_attention:
      return floats({0, 1, 2, 3, 4, 5});
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::paged_scaled_dot_product_attention_decode:
      return floats({0, 3, 4, 5}) && cache(call.in(1)) && cache(call.in(2));
    case OpKind::chunked_flash_mla_prefill:
    case OpKind::paged_flash_multi_latent_attention_decode:
      return floats({0, 4, 5}) && cache(call.in(1));
    case OpKind::sparse_sdpa:
      return floats({0, 4}) && cache(call.in(1)) && plain(call.in(2));
    case OpKind::indexer_score_dsa:
      return floats({0, 2}) && cache(call.in(1));
    case OpKind::paged_update_cache:
    case OpKind::paged_fill_cache:
      return plain(call.in(1)) && plain_float(call.in(1)) && dense_rows(call.in(1)) && cache(call.in(0));
    case OpKind::typecast:
      return true;
    case OpKind::to_contiguous:
      return call.in(0).contiguous() || plain(call.in(0));
    case OpKind::nlp_create_qkv_heads:
    case OpKind::nlp_concat_heads:
      return all_plain(call) && dense_rows(call.in(0));
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_reduce:
    case OpKind::mesh_partition:
      return true;
    case OpKind::topk:
    case OpKind::argmax:
      return all_plain(call) && last_axis(call);
    case OpKind::binary:
    case OpKind::unary:
    case OpKind::ternary:
    case OpKind::reduce:
    case OpKind::gather:
    case OpKind::scatter:
    case OpKind::concat:
    case OpKind::slice:
    case OpKind::pad:
    case OpKind::permute:
    case OpKind::repeat:
      return all_plain(call);
    case OpKind::causal_conv1d:
    case OpKind::selective_scan:
    case OpKind::gated_delta_rule:
    case OpKind::linear_recurrence:
      return supports_recurrent(call);
    default:
      return false;
  }
}

void CpuDevice::run(OpCall& call) {
  if (!recording_) [[likely]]
    return run_kernel(call);
  recording_->begin_call();
  run_kernel(call);
  recording_->end_call(call);
}

void CpuDevice::run_kernel(OpCall& call) {
  switch (call.op) {
    case OpKind::linear:
      return run_linear(*this, call);
    case OpKind::matmul:
      return is_packed(call.in(1)) ? run_linear(*this, call) : run_matmul(*this, call);
    case OpKind::sparse_matmul:
      return run_sparse_matmul(*this, call);
    case OpKind::rms_norm:
    case OpKind::layer_norm:
      return run_norm(*this, call);
    case OpKind::softmax:
      return run_softmax(*this, call);
    case OpKind::embedding:
      return run_embedding(*this, call);
    case OpKind::rotary_embedding:
      return run_rotary_embedding(*this, call);
    case OpKind::scaled_dot_product_attention:
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::chunked_flash_mla_prefill:
      return run_attention(*this, call);
    case OpKind::paged_scaled_dot_product_attention_decode:
    case OpKind::paged_flash_multi_latent_attention_decode:
      return run_attention_decode(*this, call);
    case OpKind::sparse_sdpa:
      return run_sparse_sdpa(*this, call);
    case OpKind::indexer_score_dsa:
      return run_indexer_score_dsa(*this, call);
    case OpKind::paged_update_cache:
      return run_paged_update_cache(*this, call);
    case OpKind::paged_fill_cache:
      return run_paged_fill_cache(*this, call);
    case OpKind::nlp_create_qkv_heads:
      return run_create_qkv_heads(*this, call);
    case OpKind::nlp_concat_heads:
      return run_concat_heads(*this, call);
    case OpKind::binary:
      return run_binary(*this, call);
    case OpKind::unary:
      return run_unary(*this, call);
    case OpKind::ternary:
      return run_ternary(*this, call);
    case OpKind::reduce:
      return run_reduce(*this, call);
    case OpKind::topk:
      return run_topk(*this, call);
    case OpKind::argmax:
      return run_argmax(*this, call);
    case OpKind::gather:
      return run_gather(*this, call);
    case OpKind::scatter:
      return run_scatter(*this, call);
    case OpKind::concat:
      return run_concat(*this, call);
    case OpKind::slice:
      return run_slice(*this, call);
    case OpKind::pad:
      return run_pad(*this, call);
    case OpKind::permute:
      return run_permute(*this, call);
    case OpKind::repeat:
      return run_repeat(*this, call);
    case OpKind::typecast:
      return run_typecast(*this, call);
    case OpKind::to_contiguous:
      return run_to_contiguous(*this, call);
    case OpKind::causal_conv1d:
    case OpKind::selective_scan:
    case OpKind::gated_delta_rule:
    case OpKind::linear_recurrence:
      return run_recurrent(*this, call);
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_reduce:
    case OpKind::mesh_partition:
      call.outputs[0] = call.in(0);
      return;  // one device
    default:
      break;
  }
  throw Error("the cpu backend has no kernel for " + std::string(ttt::name(call.op)));
}

}  // namespace ttt::inline v2::cpu

extern "C" TTT_EXPORT int ttt_backend_version() { return ttt::backend_abi_version; }
extern "C" TTT_EXPORT void ttt_backend_open(const ttt::DeviceOptions& options,
                                            std::shared_ptr<ttt::Backend>& out) {
  if (options.mesh == ttt::Mesh{}) {
    out = std::make_shared<ttt::cpu::CpuDevice>(options);
  } else {
    out = std::make_shared<ttt::cpu::MeshDevice>(options);
  }
}
