// What a mixer sees of a step: which rows belong to which sequence, their positions, and the state that the
// sequences keep.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
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

  const KvCache& cache(int layer, int iteration = 0) const { return kv.at({layer, iteration}); }
  const Tensor& slots_of(int layer, const std::string& name, int iteration = 0) const {
    return recurrent.at({layer, iteration}).at(name);
  }
};

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
  std::int64_t decode_rows = 0;           // rows [0, decode_rows) are one sequence each
  std::vector<SequenceRows> sequences{};  // all of them; the first decode_rows have count 1
  Tensor ids;                             // [1, 1, 1, tokens] u32
  std::vector<std::int32_t> positions{};  // absolute position of every row
  Tensor decode_positions;                // [decode_rows] i32; undefined without decode rows
  Tensor page_table;                      // [sequences, width] i32; undefined when no module has a KV cache
  Tensor
      segments;  // [sequences, 4] i32 as the recurrent ops take it; undefined when no module has such state
  State* state = nullptr;
  Backend* device = nullptr;
  int iteration = 0;  // of a layer that runs more than once
  Tensor embedding;   // what the first layer got
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

}  // namespace ttt::inline v2
