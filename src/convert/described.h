// What a family says of a checkpoint: the steps that load(), describe() and convert_checkpoint() share.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "convert/library.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/load.h"
#include "ttt/convert/weight_map.h"
#include "ttt/hw/target.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2::detail {

struct FoundFamily {
  std::shared_ptr<const ModelLibrary> library;
  const ModelLibrary::FamilyEntry* family = nullptr;  // null: the caller gave spec and weight map
  const ModelLibrary::Gguf* gguf = nullptr;           // for GGUF files

  CustomModules modules() const {
    return family != nullptr && family->modules ? library->modules() : CustomModules{};
  }
};

struct Described {
  FoundFamily found;
  nlohmann::ordered_json config;  // as the family read it
  ModelSpec spec;
  WeightMap weights;
  std::vector<Override> overrides{};
  std::vector<std::string> unread{};
};

// Error: no family for the architecture, a config that the family refuses.
Described describe(const Checkpoint&, const LoadOptions&);
// Spec, weight map and overrides of a config; `gguf`: the architecture whose names the map is for, "" for
// those of Hugging Face.
Described describe(const FoundFamily&, nlohmann::ordered_json config, const std::string& source,
                   const std::string& gguf);
// What is in force: options, then what the checkpoint was converted to, then the default of its kind.
Target make_target(const Checkpoint&, const Described&, const LoadOptions&);

}  // namespace ttt::inline v2::detail
