// A checkpoint on disk, whatever its format: a Hugging Face folder (safetensors, one file or sharded) or a
// GGUF file (one or split).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/binding.h"
#include "ttt/convert/generation_defaults.h"
#include "ttt/convert/hf_config.h"
#include "ttt/convert/storage_type.h"
#include "ttt/tensor/weight_source.h"
#include "ttt/text/chat_template.h"
#include "ttt/text/tokenizer.h"

namespace ttt::inline v2 {

enum class CheckpointFormat : std::uint8_t { safetensors, gguf };
std::string_view name(CheckpointFormat);

struct CheckpointTensor {
  std::string name{};
  std::vector<std::int64_t> shape{};  // outermost first, as Hugging Face has it (GGUF counts the other way)
  StorageType type = StorageType::f32;
  std::string scheme{};  // "" as stored; else how it is dequantised on load: "fp8 128x128", "mxfp4", "gptq 4
                         // bits", "awq 4 bits", "bfp8_b"
  std::uint32_t file = 0;               // index into Checkpoint::files()
  std::uint64_t offset = 0, bytes = 0;  // of the stored values in that file
};

// A pair of a GgufKeys list: the Hugging Face key that describe() reads, and the GGUF metadata key that holds
// its value. "{arch}" in the latter is the file's general.architecture.
struct GgufKey {
  std::string hf, gguf;
};

// Opening maps files and reads headers only. Immutable and thread-safe; copies share; sources keep the
// mapping alive.
class Checkpoint {
 public:
  // A folder, a .safetensors file, the .index.json of a sharded one, or a .gguf file (any part of a split
  // one). A folder that holds no weights but one .gguf file is that file; a folder with nothing but a
  // config.json has no tensors. Errors: nothing there that is a checkpoint; a damaged file; PyTorch .bin
  // files (the message has the command that converts them).
  static Checkpoint open(const std::filesystem::path&);

  CheckpointFormat format() const;
  const std::filesystem::path& path() const;                // as given
  const std::vector<std::filesystem::path>& files() const;  // of weights

  const std::vector<CheckpointTensor>& tensors() const;  // in the files' order
  const CheckpointTensor* find(std::string_view name) const;
  std::vector<NamedShape> shapes() const;  // for bind_weights()
  // The values as a matrix: [1, n] of a vector, the leading axes in one of a tensor with more than two. Error
  // for an unknown name.
  WeightSourcePtr source(std::string_view name) const;
  // The same with the last two axes exchanged, without a copy where the values are stored so already.
  WeightSourcePtr transposed_source(std::string_view name) const;
  const std::string& precision() const;  // that convert_checkpoint() wrote the weights in, else ""
  bool quantised() const;                // most of the weights are stored in fewer than 16 bits per value
  std::uint64_t fingerprint() const;     // of all files: headers, sizes, times

  // The config as Hugging Face spells it. Of a GGUF file it is made from the metadata: `keys` go over
  // default_gguf_keys(). Each call gives a fresh record of what was read. Error when a folder has no
  // config.json.
  HfConfig config(std::span<const GgufKey> keys = {}) const;
  std::string config_json(std::span<const GgufKey> keys = {}) const;
  std::string architecture() const;  // "architectures"[0] of config.json; general.architecture of a GGUF file
  std::string metadata_json()
      const;  // GGUF metadata, or __metadata__ of safetensors; long arrays as {"type", "count"}

  bool has_tokenizer() const;
  Tokenizer tokenizer() const;                       // Error when there is none
  Vocabulary vocabulary() const;                     // of a GGUF file; Error for other formats
  std::optional<std::string> chat_template() const;  // its text; of several, the one named "default"
  SpecialTokens special_tokens() const;              // as templates read them
  GenerationDefaults generation() const;

  // One row per tensor: name, shape, type, bytes, file. For `ttt inspect weights`.
  std::string table() const;
  std::string to_json(int indent = 2) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// What the metadata of every GGUF decoder spells the same: sizes, heads, rope, norms.
std::span<const GgufKey> default_gguf_keys();

}  // namespace ttt::inline v2
