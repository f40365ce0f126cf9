// What is timed: users with prompts of arbitrary ids, decoded greedily.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "testing/driver.h"

namespace ttt::inline v2::testing {

class Workload {
 public:
  // Error: more tokens than the model's context, or sizes below 1.
  Workload(const CausalLM& model, int users, int prompt_tokens, int new_tokens, int step_tokens);

  void prefill(std::size_t user);  // the user's prompt, in pieces of step_tokens
  void prefill_all();              // of all users, from nothing
  void decode();                   // one token of every user
  void reset() { driver_.reset(); }

  const std::vector<std::vector<std::int32_t>>& prompts() const { return prompts_; }
  std::size_t kv_bytes() const { return driver_.kv_bytes(); }

 private:
  std::vector<std::vector<std::int32_t>> prompts_;  // of each user
  Driver driver_;
  std::size_t step_tokens_;
  std::vector<std::int32_t> next_;
  std::vector<std::span<const std::int32_t>> tokens_;
};

}  // namespace ttt::inline v2::testing
