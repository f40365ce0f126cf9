// What a model file says: two pure functions and the names under which checkpoints ask for them.
//
//   static ModelSpec describe(const HfConfig& c) { .. }
//   static WeightMap weights(const ModelSpec&) { .. }
//   static const Family registered("the_family", {"TheForCausalLM"}, describe, weights);
//
// A model library is any number of such files. It is linked with ttt::model_sdk and exports one C function
// that speaks JSON, so it keeps working with every later 2.x; see docs/add_a_model.md.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ttt/convert/hf_config.h"
#include "ttt/convert/weight_map.h"
#include "ttt/hw/target.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2 {

struct CustomModules;

// How GGUF files spell the family: their converters rename keys and tensors, permute q and k, add 1 to norms.
struct GgufPart {
  std::string architecture;  // general.architecture
  // Keys of config.json that describe() reads and that are not among the common ones, with the GGUF key each
  // comes from;
  // "{arch}" stands for the architecture.
  std::vector<std::pair<std::string, std::string>> config{};
  // Keys of config.json that such files never say: JSON object.
  std::string constants = "{}";
  // Where families share an architecture: a GGUF key that this one's files have and the others' lack.
  std::string key{};
  WeightMap (*weights)(const ModelSpec&) = nullptr;  // unset: gguf_decoder_names()
};

struct ModelEntry {
  std::vector<std::string> architectures;  // config.json "architectures"; the first one is the family's own
  ModelSpec (*describe)(const HfConfig&) = nullptr;
  WeightMap (*weights)(const ModelSpec&) = nullptr;  // unset: hf_decoder_names()
  std::vector<GgufPart> gguf{};
  std::vector<std::string> ignore{};          // keys of config.json that change nothing here
  std::vector<Override> overrides{};          // on top of the recipe, below the user's own
  void (*modules)(CustomModules&) = nullptr;  // adds the family's own modules (level 2)
};

// Makes an entry known to the library that the file is linked into.
class Family {
 public:
  Family(std::string name, ModelEntry entry);
  // The usual entry; `ignore`: keys of config.json that change nothing here.
  Family(std::string name, std::vector<std::string> architectures, ModelSpec (*describe)(const HfConfig&),
         WeightMap (*weights)(const ModelSpec&) = nullptr, std::vector<std::string> ignore = {})
      : Family(std::move(name), {.architectures = std::move(architectures),
                                 .describe = describe,
                                 .weights = weights,
                                 .ignore = std::move(ignore)}) {}
};

}  // namespace ttt::inline v2
