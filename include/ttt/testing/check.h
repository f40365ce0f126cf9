// From a checkpoint to an answer in stages, each passed or failed with its reason and, where a run can tell,
// its cause: what somebody who adds a model runs until it says yes (docs/add_a_model.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/registry.h"

namespace ttt::inline v2::testing {

enum class Outcome : std::uint8_t { passed, failed, skipped };

struct CheckStage {
  std::string name;  // "config", "weights", "shapes", "forward", "first layer", "all layers", "logits",
                     // "greedy tokens", "bf16", "chat"
  Outcome outcome = Outcome::passed;
  std::string detail{};  // what was found, one line
  std::string cause{};   // what to look at; of a failure only
};

struct CheckOptions {
  LoadOptions load{};                        // its precision is f32, where numbers are compared
  std::filesystem::path reference{};         // empty: golden.safetensors of the folder, where there is one
  double tolerance = 2e-3;                   // of a float32 logit, absolute
  double search_seconds = 60;                // for the cause of a difference; 0: it is not looked for
  std::optional<Description> description{};  // in place of what the family says of the checkpoint
  std::function<void(std::string_view stage)> progress{};
};

struct CheckResult {
  std::filesystem::path path;
  std::string architecture, family;
  std::vector<CheckStage> stages{};
  std::string diverges{};  // the first module that differs from the reference: "layers.0.attn.q_rope"
  // Single changes, found by running them, that bring the network to the reference one after the other;
  // empty: nothing differs, or none was found.
  std::vector<std::string> changes{};
  bool changes_suffice = false;          // with them all logits agree
  Addition addition{};                   // what the network adds to the test set of the other architectures
  std::optional<GoldenResult> golden{};  // of the comparison with the reference
  bool passed() const;
  const CheckStage* stage(std::string_view name) const;
};

// Stages that need what an earlier one found missing are skipped. Errors: no such path, no reference of that
// name.
CheckResult check(const std::filesystem::path&, const CheckOptions& = {});

// The first three stages for names and shapes alone: JSON with "config" (of a config.json, "architecture"
// beside it where it lacks "architectures") and "tensors", {name: shape}. Error when it is no such listing.
CheckResult check_names(std::string_view json, const LoadOptions& = {});

}  // namespace ttt::inline v2::testing
