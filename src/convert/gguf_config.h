// A GGUF file's metadata as the config.json that Hugging Face would have.
#pragma once

#include <span>

#include "convert/json.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/gguf.h"

namespace ttt::inline v2::detail {

Json gguf_config(const GgufFile& file, std::span<const GgufKey> keys);
// All metadata; lists of more than 64 entries as {"type", "count"}.
Json gguf_metadata(const GgufFile& file);
// Text of any encoding as valid UTF-8.
std::string clean(std::string_view text);

}  // namespace ttt::inline v2::detail
