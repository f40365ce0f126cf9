// CausalLM: the whole interface between a model and everything that drives it. One ragged, paged step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ttt/hw/target.h"
#include "ttt/model/spec.h"
#include "ttt/modules/step.h"

namespace ttt::inline v2 {

// The rows of one step. `sequences` of them, each with its own new tokens; any mix of prefill and decode.
struct Batch {
  std::span<const std::int32_t> tokens;  // [total] new token ids of all sequences, one after the other
  std::span<const std::int32_t>
      row_begin;                          // [sequences + 1] where each begins in `tokens`; the last is total
  std::span<const std::int32_t> context;  // [sequences] tokens already in the cache
  std::span<const std::int32_t>
      block_tables;  // [sequences, width] blocks of each sequence, in order; -1 beyond its last
  std::int32_t table_width = 0;
  std::span<const std::int32_t> slots;  // [sequences] slot of recurrent state
  std::span<const std::int32_t>
      logit_rows;  // [wanted] indices into `tokens` whose logits are wanted, ascending

  std::size_t sequences() const { return context.size(); }
};

struct StepOutput {
  std::int64_t rows = 0, vocab = 0;
  HostValues logits;  // [rows, vocab], in the order of Batch::logit_rows
};

struct KvGeometry {
  std::int64_t blocks = 0;  // of block_size positions each, for all sequences together
  std::int64_t block_size = 32;
  std::int64_t slots = 1;  // sequences that exist at the same time
};

// What one layer's cache holds on each device, for whoever plans memory (vLLM's KV cache spec, ttt inspect
// memory).
struct KvLayerSpec {
  int layer = 0, iteration = 0;
  std::int64_t kv_heads = 0, head_dim = 0, v_head_dim = 0, indexer_dim = 0;  // as KvCacheSpec has them
  std::optional<int> window{};
  DataType dtype = DataType::bf16;
  std::size_t bytes_per_position() const;
};

struct Capabilities {
  bool prefix_reuse = true;  // false with recurrent state: a prefix's state can not be shared
  bool speculation = true;   // false with recurrent state: tokens can not be taken back
  bool chunked_prefill = true;
  bool mixed_step = true;  // false: the driver sends prefill and decode rows in steps of their own
};

class CausalLM {
 public:
  CausalLM();
  CausalLM(const CausalLM&) = delete;
  CausalLM& operator=(const CausalLM&) = delete;
  virtual ~CausalLM();

  virtual const ModelSpec& spec() const = 0;
  virtual const Target& target() const = 0;
  virtual Backend& device() const = 0;
  virtual Capabilities capabilities() const = 0;
  virtual std::vector<KvLayerSpec> kv_layers() const = 0;
  virtual std::unique_ptr<State> allocate(const KvGeometry&) const = 0;
  // Runs the rows and returns the logits of those that want them. Errors: a batch that contradicts itself or
  // the state's geometry (the message names the sequence). Not thread-safe for one state.
  virtual StepOutput step(const Batch&, State&) const = 0;
  // Materialises every weight now instead of at first use. progress(done, total) in bytes may be empty.
  virtual void load_weights(const std::function<void(std::size_t, std::size_t)>& progress = {}) const = 0;
  // Bytes of the weights in their run precision.
  virtual std::size_t weight_bytes() const = 0;
  // Everything that was decided, as JSON: modules, dtypes, configs, and which row decided what.
  virtual std::string plan_json() const = 0;
};

}  // namespace ttt::inline v2
