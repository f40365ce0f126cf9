// What a mixer sees of a step: which rows belong to which sequence, their positions, and the state that the
// sequences keep.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ttt/ops/backend.h"
#include "ttt/tensor/tensor.h"

namespace ttt::inline v2 {

enum class Mode : std::uint8_t { prefill, decode };

// A KV cache in blocks of `block_size` positions; page tables say which blocks a sequence owns.
struct KvCache {
  Tensor k{};        // [blocks, kv_heads, block_size, head_dim]
  Tensor v{};        // [blocks, kv_heads, block_size, v_head_dim]; undefined where k holds latents
  Tensor indexer{};  // keys of an indexer, [blocks, 1, block_size, indexer_dim]; undefined without one
};

// Storage of all sequences: paged KV caches and recurrent state, one entry per (layer, iteration). The caller
// of CausalLM::step owns the block tables and slots; this owns the memory.
class State {
 public:
  using Key = std::pair<int, int>;  // layer, iteration (0 unless the network runs a layer more than once)

  std::map<Key, KvCache> kv;
  // Recurrent state by name: [slots, elements] float32, one row per sequence slot.
  std::map<Key, std::map<std::string, Tensor>> recurrent;

  std::int64_t blocks = 0, block_size = 0, slots = 0;

  // What CausalLM::step keeps for later steps on this state.
  std::shared_ptr<void> traces;

  const KvCache& cache(int layer, int iteration = 0) const { return kv.at({layer, iteration}); }
  const Tensor& slots_of(int layer, const std::string& name, int iteration = 0) const {
    return recurrent.at({layer, iteration}).at(name);
  }
};

// How often this thread has looked at RowValues.
std::uint64_t looks_at_rows();

namespace detail {
void look_at_rows();
}

// What differs between two steps of the same shape, as a vector. Where a device records a step to replay it,
// what a module decides on the host by these values would hold for that step alone, so a step is not replayed
// when they were looked at. Step::input() is the way to make tensors of them that can be.
template <class T>
class RowValues {
 public:
  RowValues() = default;
  RowValues(std::vector<T> values) : values_(std::move(values)) { detail::look_at_rows(); }
  RowValues(std::initializer_list<T> values) : RowValues(std::vector<T>(values)) {}

  std::size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  void reserve(std::size_t n) { values_.reserve(n); }
  void resize(std::size_t n) { values_.resize(n); }
  void clear() { values_.clear(); }
  void push_back(T value) { all().push_back(std::move(value)); }
  const T* data() const { return all().data(); }
  const T* begin() const { return all().data(); }
  const T* end() const { return values_.data() + values_.size(); }
  T* begin() { return all().data(); }
  T* end() { return values_.data() + values_.size(); }
  const T& operator[](std::size_t i) const { return all()[i]; }
  T& operator[](std::size_t i) { return all()[i]; }
  const T& front() const { return all().front(); }
  const T& back() const { return all().back(); }

 private:
  const std::vector<T>& all() const {
    detail::look_at_rows();
    return values_;
  }
  std::vector<T>& all() {
    detail::look_at_rows();
    return values_;
  }
  std::vector<T> values_;
};

struct StepInput;

// Consecutive rows of a step that continue one sequence.
struct SequenceRows {
  std::int64_t first = 0, count = 0;  // rows of the step
  std::int64_t context = 0;           // tokens of the sequence before the first of these rows
  std::int64_t slot = 0;              // of recurrent state
  std::int64_t page_row = 0;          // of the page table
};

// One forward of the network over `tokens` rows of any sequences. Rows are ordered: first the sequences that
// bring one token (decode), then those that bring more (prefill), so that each kind is one range.
struct Step {
  Mode mode =
      Mode::prefill;  // decode when every sequence brings one token: picks the plan of token-wise modules
  std::int64_t tokens = 0;
  std::int64_t decode_rows = 0;         // rows [0, decode_rows) are one sequence each
  RowValues<SequenceRows> sequences{};  // all of them; the first decode_rows have count 1
  Tensor ids;                           // [1, 1, 1, tokens] u32
  RowValues<std::int32_t> positions{};  // absolute position of every row
  Tensor decode_positions;              // [decode_rows] i32; undefined without decode rows
  Tensor page_table;                    // [sequences, width] i32; undefined when no module has a KV cache
  Tensor
      segments;  // [sequences, 4] i32 as the recurrent ops take it; undefined when no module has such state
  State* state = nullptr;
  Backend* device = nullptr;
  int iteration = 0;  // of a layer that runs more than once
  Tensor embedding;   // what the first layer got

  // A tensor of values that the host makes of this step's positions and sequences: by `fill`, which gets them
  // all zero. Where the step is recorded, `fill` makes those of the steps that replay it too, so it must hold
  // as long as the module.
  template <class T>
  using Fill = std::function<void(const Step&, std::span<T> values)>;
  Tensor input(const Shape&, DataType, const Fill<float>&) const;
  Tensor input(const Shape&, const Fill<std::int32_t>&) const;  // i32
  std::vector<StepInput>* inputs = nullptr;                     // of a step that is recorded

  // Values that layers pass to later layers, by name.
  mutable std::map<std::string, Tensor> slots{};
  // cos and sin rows of this step by the rotary module's key; filled on first use.
  mutable std::map<std::string, std::pair<Tensor, Tensor>> rope_rows{};

  // Where each row stands, for ops that take rows of any sequences; filled on first use.
  struct RowPlaces {
    Tensor positions;  // [tokens] i32
    Tensor page_rows;  // [tokens] i32, rows of the page table
  };
  const RowPlaces& row_places() const;
  mutable RowPlaces row_places_{};
};

// A tensor that Step::input() made.
struct StepInput {
  Tensor tensor;
  std::function<void(const Step&)> write;  // the values of that step
};

}  // namespace ttt::inline v2
