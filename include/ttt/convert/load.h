// From a path to a model that runs: a Hugging Face folder or a GGUF file, a family from the installed model
// libraries, a device.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/generation_defaults.h"
#include "ttt/convert/weight_map.h"
#include "ttt/hw/target.h"
#include "ttt/model/causal_lm.h"
#include "ttt/model/spec.h"
#include "ttt/ops/backend.h"
#include "ttt/tensor/lazy_weight.h"
#include "ttt/text/chat_template.h"
#include "ttt/text/tokenizer.h"

namespace ttt::inline v2 {

struct LoadOptions {
  std::string backend = "cpu";
  std::string sku;  // empty: the backend's own (cpu, n150)
  Mesh mesh{};
  std::string precision;            // empty: accuracy for float checkpoints, bfp8_b for quantised GGUF files
  std::filesystem::path overrides;  // JSON rows that go on top; empty: none
  int threads = 0;
  bool deterministic = false;
  std::string isa;  // cpu: force an instruction set; empty: as DeviceOptions says
  std::optional<std::filesystem::path>
      cache{};  // of converted weights; unset: WeightCache::default_folder(); empty: none
  std::vector<std::filesystem::path> model_libraries{};  // besides the installed ones and $TTT_MODELS
  std::string config{};  // JSON object whose keys go over those of config.json; empty: none
  int layers = 0;        // run only the first so many, as if the others passed their input on; 0: all
};

struct LoadedModel {
  std::shared_ptr<Backend> device;  // outlives the model
  std::unique_ptr<CausalLM> model;
  WeightCache weight_cache{};            // its warning() says why weights could not be kept
  std::optional<Tokenizer> tokenizer{};  // unset: the checkpoint has none (a golden)
  std::optional<ChatTemplate> chat_template{};
  GenerationDefaults generation{};
  std::string architecture;                // as in config.json
  std::string family;                      // the model file that describes it
  std::filesystem::path library;           // and the library it came from
  std::vector<std::string> unread_keys{};  // of config.json: most ports go wrong by silence there
};

// Error: no such path, no family for the architecture (names the known ones and the nearest), weights that do
// not fit, ...
LoadedModel load(const std::filesystem::path&, const LoadOptions& = {});

// The same with a description of the caller's own in place of a model library's: experiments without a
// compiler. Error: a spec with custom modules, which only a library brings.
LoadedModel load(const std::filesystem::path&, const ModelSpec&, const WeightMap&, const LoadOptions& = {});

// Every id that ends an answer: those that the checkpoint names for generation and those of its tokenizer.
std::vector<std::int32_t> end_ids(const LoadedModel&);

// Spec, weight map and target of a checkpoint without touching a weight or a device. The path may hold
// nothing but a config.json.
struct Description {
  ModelSpec spec;
  std::string architecture, family;
  std::filesystem::path library;
  std::string weight_map_json;
  std::vector<std::string> unread_keys{};
  Target target{};  // what load() resolves plans for
};
Description describe(const std::filesystem::path&, const LoadOptions& = {});
// The same from the text of a config.json alone.
Description describe_config(std::string_view json, const LoadOptions& = {});

// Loads a checkpoint as `description` says: describe() of it, or one whose spec, weight map or target was
// changed.
LoadedModel load(const std::filesystem::path&, const Description& description, const LoadOptions& = {});

// The families that the given and the installed libraries provide.
struct FamilyInfo {
  std::string name;                        // "the_file"
  std::vector<std::string> architectures;  // of config.json
  std::vector<std::string> gguf;           // general.architecture
  bool modules = false;                    // brings modules of its own
  std::filesystem::path library;
};
std::vector<FamilyInfo> families(const std::vector<std::filesystem::path>& model_libraries = {});

}  // namespace ttt::inline v2
