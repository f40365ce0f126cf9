// What a checkpoint says about generating: generation_config.json or the GGUF metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace ttt::inline v2 {

// Ids that end an answer, and sampling values where the checkpoint gives any.
struct GenerationDefaults {
  std::vector<std::int32_t> eos_ids{};
  std::optional<float> temperature{}, top_p{}, min_p{}, repetition_penalty{};
  std::optional<int> top_k{};
};

}  // namespace ttt::inline v2
