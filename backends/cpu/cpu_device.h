// The CPU device: memory, weights and the dispatch of calls to kernels.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "isa.h"
#include "kernels.h"
#include "thread_pool.h"
#include "ttt/ops/backend.h"
#include "ttt/ops/trace.h"

namespace ttt::inline v2::cpu {

// A weight of role linear or experts in panels (layout.h).
struct Packed {
  Format format = Format::f32;
  std::int64_t experts = 1, in = 0, out = 0;
  std::int64_t tiles() const { return round_up(in, tile_depth) / tile_depth; }  // of one panel
  std::int64_t panels() const { return round_up(out, panel_width) / panel_width; }
  std::size_t panel_bytes() const { return static_cast<std::size_t>(tiles()) * packed_tile_bytes(format); }
  std::size_t expert_bytes() const { return static_cast<std::size_t>(panels()) * panel_bytes(); }
};

class CpuBuffer final : public Buffer {
 public:
  enum class Kind : std::uint8_t {
    plain,       // elements in row-major order
    block_rows,  // block-float rows (layout.h)
    packed,      // panels
  };
  CpuBuffer(Device& device, std::shared_ptr<Arena> arena, std::size_t bytes, Kind kind)
      : Buffer(device), arena_(std::move(arena)), bytes_(bytes), kind_(kind), raw_(arena_->allocate(bytes)) {}
  // Memory of someone else, which `owner` keeps alive.
  CpuBuffer(Device& device, std::span<const std::byte> memory, std::shared_ptr<const void> owner, Kind kind,
            Packed packed = {})
      : Buffer(device),
        owner_(std::move(owner)),
        bytes_(memory.size()),
        kind_(kind),
        packed_(packed),
        raw_(const_cast<std::byte*>(memory.data())) {}  // tensors over it are only read
  // The memory of another one, which must outlive this.
  struct Alias {};
  CpuBuffer(const CpuBuffer& of, Alias)
      : Buffer(of.device()),
        bytes_(of.bytes_),
        kind_(of.kind_),
        packed_(of.packed_),
        raw_(of.raw_),
        owned_(of.owned_) {}
  ~CpuBuffer() override {
    if (arena_) arena_->release(raw_, bytes_);
  }

  std::size_t bytes() const override { return bytes_; }
  std::byte* data() override { return kind_ == Kind::plain ? raw_ : nullptr; }
  std::byte* raw() const { return raw_; }
  Kind kind() const { return kind_; }
  const Packed& packed() const { return packed_; }
  bool owned() const { return owned_; }  // of a tensor of its own: a kernel may write over it
  const Arena* arena() const { return arena_.get(); }

 private:
  std::shared_ptr<Arena> arena_;
  std::shared_ptr<const void> owner_;
  std::size_t bytes_;
  Kind kind_;
  Packed packed_;
  std::byte* raw_;
  bool owned_ = arena_ != nullptr;
};

// Memory that one thread needs inside a call; it grows and stays.
class Scratch {
 public:
  Scratch() = default;
  Scratch(Scratch&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch();
  std::byte* reserve(std::size_t bytes);  // 64-byte aligned; contents undefined; earlier pointers die

 private:
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

// Which weights followed which in the last steps: what the next product will read can be fetched while this
// one ends. Only addresses are kept; an entry that is overwritten or stale costs a fetch, no more.
class WeightOrder {
 public:
  struct Piece {
    const std::byte* begin = nullptr;
    std::size_t stride = 0, bytes = 0;  // of the first piece of each thread
  };
  // Notes that `now` follows the weights of the last call; what followed `now` the last time.
  Piece follow(const Piece& now) {
    if (last_ != nullptr) *last_ = {last_key_, now};
    last_key_ = now.begin;
    last_ = &entries_[(reinterpret_cast<std::uintptr_t>(now.begin) >> 6) * 0x9E3779B97F4A7C15u >> 54];
    return last_->key == now.begin ? last_->next : Piece{};
  }

 private:
  struct Entry {
    const std::byte* key = nullptr;
    Piece next;
  };
  std::array<Entry, 1024> entries_{};
  const std::byte* last_key_ = nullptr;
  Entry* last_ = nullptr;
};

class CpuTrace;

class CpuDevice final : public Backend, public Tracer {
 public:
  explicit CpuDevice(const DeviceOptions&);
  ~CpuDevice() override;

  std::string_view name() const override { return "cpu"; }
  std::string description() const override;
  Tensor allocate(const TensorSpec&) override;
  void write(const Tensor&, std::span<const float>) override;
  void write(const Tensor&, std::span<const std::int32_t>) override;
  void read(const Tensor&, std::span<float>) override;
  void read(const Tensor&, std::span<std::int32_t>) override;
  std::string packing(const WeightSpec&) const override;
  std::size_t packed_bytes(const WeightSpec&, std::int64_t rows, std::int64_t cols) const override;
  void pack(const WeightSource&, const WeightSpec&, std::span<std::byte> out) override;
  Tensor adopt(const WeightSpec&, std::int64_t rows, std::int64_t cols, std::span<const std::byte> packed,
               std::shared_ptr<const void> owner) override;
  std::size_t allocated_bytes() const override { return arena_->live_bytes(); }
  std::size_t peak_bytes() const override { return arena_->peak_bytes(); }
  void run(OpCall&) override;
  bool supports(const OpCall&) const override;

  bool can_trace() const override { return true; }
  // Of wider steps the kernels' work hides what a call costs.
  std::int64_t most_traced_rows() const override { return 8; }
  void begin_trace() override;
  std::unique_ptr<Trace> end_trace(std::span<const Tensor> inputs, const Tensor& result) override;
  void drop_trace() noexcept override;

  void run_kernel(OpCall&);
  void set_replaying(CpuTrace* trace) { replaying_ = trace; }
  const std::shared_ptr<Arena>& arena() const { return arena_; }
  const Kernels& kernels() const { return *kernels_; }
  ThreadPool& pool() { return pool_; }
  WeightOrder& weight_order() { return weight_order_; }
  bool deterministic() const { return deterministic_; }
  Isa isa() const { return isa_; }
  std::byte* scratch(int thread, std::size_t bytes) {
    return scratch_[static_cast<std::size_t>(thread)].reserve(bytes);
  }
  // For what the calling thread prepares and all threads read.
  std::byte* shared_scratch(std::size_t bytes) { return scratch_.back().reserve(bytes); }

  // Memory order of `like` (a dense permutation of its axes whose last axis is innermost), else row-major.
  Tensor allocate_like(const TensorSpec&, const Tensor& like);
  // [.., a, b, n] in the memory order [.., b, a, n]: heads beside each other within a token.
  Tensor allocate_token_major(const TensorSpec&);

 private:
  Isa isa_;
  bool deterministic_;
  const Kernels* kernels_;
  std::shared_ptr<Arena> arena_;
  ThreadPool pool_;
  WeightOrder weight_order_;
  std::vector<Scratch> scratch_;
  std::unique_ptr<CpuTrace> recording_;
  HostTraffic traffic_;  // while it records
  CpuTrace* replaying_ = nullptr;
};

inline CpuBuffer& cpu_buffer(const Tensor& t) { return static_cast<CpuBuffer&>(t.buffer()); }
inline bool is_packed(const Tensor& t) { return cpu_buffer(t).kind() == CpuBuffer::Kind::packed; }

// Ops, one family per file. Each fills call.outputs.
void run_linear(CpuDevice&, OpCall&);
void run_matmul(CpuDevice&, OpCall&);
void run_sparse_matmul(CpuDevice&, OpCall&);
void run_attention(CpuDevice&, OpCall&);         // scaled_dot_product_attention, chunked_ (also of latents)
void run_attention_decode(CpuDevice&, OpCall&);  // paged_..._decode (also of latents)
void run_sparse_sdpa(CpuDevice&, OpCall&);
void run_indexer_score_dsa(CpuDevice&, OpCall&);
void run_paged_update_cache(CpuDevice&, OpCall&);
void run_paged_fill_cache(CpuDevice&, OpCall&);
void run_binary(CpuDevice&, OpCall&);
void run_unary(CpuDevice&, OpCall&);
void run_ternary(CpuDevice&, OpCall&);
void run_typecast(CpuDevice&, OpCall&);
void run_norm(CpuDevice&, OpCall&);  // rms_norm, layer_norm
void run_softmax(CpuDevice&, OpCall&);
void run_rotary_embedding(CpuDevice&, OpCall&);
void run_reduce(CpuDevice&, OpCall&);
void run_topk(CpuDevice&, OpCall&);
void run_argmax(CpuDevice&, OpCall&);
void run_embedding(CpuDevice&, OpCall&);
void run_gather(CpuDevice&, OpCall&);
void run_scatter(CpuDevice&, OpCall&);
void run_concat(CpuDevice&, OpCall&);
void run_slice(CpuDevice&, OpCall&);
void run_pad(CpuDevice&, OpCall&);
void run_permute(CpuDevice&, OpCall&);
void run_repeat(CpuDevice&, OpCall&);
void run_to_contiguous(CpuDevice&, OpCall&);
void run_create_qkv_heads(CpuDevice&, OpCall&);
void run_concat_heads(CpuDevice&, OpCall&);
void run_recurrent(CpuDevice&,
                   OpCall&);  // causal_conv1d, selective_scan, gated_delta_rule, linear_recurrence
bool supports_recurrent(const OpCall&);

}  // namespace ttt::inline v2::cpu
