// From any checkpoint to a Hugging Face folder whose weights are in their run precision.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace ttt::inline v2 {

struct ConvertOptions {
  std::string precision;  // as LoadOptions::precision; empty: what load() would run the checkpoint in
  std::uint64_t shard_bytes = 5'000'000'000;             // weights beyond it go into several files
  std::vector<std::filesystem::path> model_libraries{};  // besides the installed ones and $TTT_MODELS
  // Called with bytes of weights written and in all; false stops the conversion with an Error.
  std::function<bool(std::uint64_t done, std::uint64_t total)> progress{};
};

struct ConvertResult {
  std::string architecture, family, precision;
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;           // of weights
  std::vector<std::string> files{};  // names in the folder
};

// Writes config.json, the tokenizer, the chat template, generation_config.json and safetensors into the
// folder `out`, which load() and every command take like any other checkpoint and whose config and tokenizer
// transformers and vLLM read.
//
// Tensors have the names and shapes of the family's Hugging Face checkpoints, also those of a GGUF file,
// whose config is described again and must give the same network. Each is stored in the dtype that the plan
// binds it in: F32, BF16, or for block formats U8 in TTNN's tile order (src/convert/tiles.h has the header).
// Where two modules want different dtypes, or a block would be cut, it is stored in the narrowest of BF16 and
// F32 that holds the source exactly, so that loading `out` gives bit for bit the weights that loading `path`
// gives.
//
// Everything is written into a folder beside `out` that is renamed at the end; on an error nothing is left.
// Errors: what load() reports; `out` exists and is not an empty folder, can not be written, or the disk has
// no room; a GGUF vocabulary that no tokenizer.json expresses.
ConvertResult convert_checkpoint(const std::filesystem::path& path, const std::filesystem::path& out,
                                 const ConvertOptions& = {});

}  // namespace ttt::inline v2
