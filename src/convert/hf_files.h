// The files of a Hugging Face folder beside its weights.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/described.h"
#include "convert/json.h"

namespace ttt::inline v2::detail {

// config.json of a network that comes from a GGUF file: what the family read, under Hugging Face's keys, with
// architectures, model_type where the family says it, and the ids of BOS, EOS and padding.
Json hf_config_of_gguf(const Checkpoint&, const Described&, const Target&);
// Says the dtype that the weights run in, and nothing of how they were quantised before.
void set_run_dtype(Json& config, const Target&);

// Tokenizer, chat template, generation_config.json and licences: copies of what is beside a Hugging Face
// checkpoint, made from the metadata of a GGUF file. Returns the names.
std::vector<std::string> write_text_files(
    const Checkpoint&, const std::filesystem::path& out,
    const std::function<void(const std::string& name, std::string_view text)>& write);

}  // namespace ttt::inline v2::detail
