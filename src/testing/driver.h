// Sequences of equal standing over one model: the block tables and lengths that CausalLM::step asks of its
// caller.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ttt/model/causal_lm.h"
#include "ttt/runtime/sampler.h"

namespace ttt::inline v2::testing {

enum class Want : std::uint8_t { all_rows, last_rows, nothing };

class Driver {
 public:
  // Memory for `sequences` of `length` tokens each. Blocks of the sequences are interleaved, so that a table
  // is never the identity.
  Driver(const CausalLM& model, std::size_t sequences, std::size_t length, int block_size = 32);

  // One step: the given tokens of each sequence; a sequence with none is left out.
  StepOutput feed(std::span<const std::span<const std::int32_t>> tokens, Want);
  // The same for the only sequence.
  StepOutput feed(std::span<const std::int32_t> tokens, Want want) {
    return feed(std::span(&tokens, 1), want);
  }
  // Forgets all tokens.
  void reset();
  // Takes back the last `count` tokens of every sequence; recurrent state has seen them all the same.
  void forget(std::size_t count);

  std::size_t length(std::size_t sequence) const { return static_cast<std::size_t>(lengths_[sequence]); }
  std::size_t kv_bytes() const { return kv_bytes_; }

 private:
  const CausalLM& model_;
  std::unique_ptr<State> state_;
  std::vector<std::int32_t> lengths_;  // [sequences]
  std::vector<std::int32_t> tables_;   // [sequences, width_]
  std::int32_t width_ = 0;
  std::size_t kv_bytes_ = 0;
};

// Longest sequence that the model accepts; 0: it does not say.
std::size_t max_context(const CausalLM&);

// Error unless the model's device computes numbers.
void require_numbers(const CausalLM&, const char* what);

}  // namespace ttt::inline v2::testing
