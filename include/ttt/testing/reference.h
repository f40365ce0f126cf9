// A reference file: what transformers computed for a checkpoint (docs/references.md has the schema;
// tools/reference writes it).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/debug/statistics.h"

namespace ttt::inline v2::testing {

// Immutable; copies share. Tensors that the file does not have are empty.
class Reference {
 public:
  // Error: not a safetensors file, no input_ids, shapes that contradict each other.
  static Reference open(const std::filesystem::path&);

  const std::filesystem::path& path() const;
  const std::vector<std::int32_t>& input_ids() const;     // [prompt]
  const std::vector<std::int32_t>& continuation() const;  // greedy tokens after the prompt
  std::int64_t vocab() const;                             // of the logits; 0 without them
  const std::vector<float>& logits() const;               // [prompt, vocab]
  const std::vector<float>& decode_logits()
      const;  // [continuation, vocab]: row i after continuation[i] was fed
  const std::vector<std::int32_t>& top5_ids() const;  // [prompt, 5], best first
  // What the reference's own bfloat16 logits correlate with its float32 ones; unset: the file does not say.
  std::optional<double> bf16_pcc() const;
  std::string metadata(std::string_view key) const;  // "" when absent
  std::string precision() const;                     // that it was computed in, as ours are called: "f32"

  // The intermediate under a tap's name ("embed", "layers.3", "layers.3.attn.q", "norm"): `rows` of it, the
  // last ones of the prompt, row-major. hidden_states.K stand under the names of the taps that they are.
  // Unset: the file has none of that name.
  struct Intermediate {
    std::vector<float> values;
    std::int64_t rows = 0, features = 0;
  };
  std::optional<Intermediate> intermediate(std::string_view tap) const;
  std::vector<std::string> taps() const;  // that intermediate() knows, "logits" among them

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

using debug::max_abs_error;
using debug::pcc;

}  // namespace ttt::inline v2::testing
