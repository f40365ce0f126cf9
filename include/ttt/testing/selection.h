// Which tests a question is about: a model, a platform, a module, a change, a new checkpoint. The test set is
// that of the registry: every module instance of the full-size configurations at its real shape on each
// platform, and those of the golden configurations, which are small, in float32 against their oracle.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ttt/testing/networks.h"

namespace ttt::inline v2::testing {

struct SelectionOptions {
  std::filesystem::path model{};          // instances of this checkpoint, in place of the registry's
  std::string family{};                   // of this family's networks
  std::vector<std::string> skus{};        // platforms; empty: cpu
  std::string precision = "performance";  // of the full-size configurations
  std::string module{};              // of this module: "attention", "custom.NAME", "custom" for all of them
  std::string changed{};             // a git range: what the change can break
  std::vector<std::string> files{};  // the same by names below the source folder
  std::filesystem::path added{};     // a checkpoint: what it adds to the set of the others
  std::filesystem::path build{};     // the build tree; empty: the one that holds this program
  std::vector<std::filesystem::path> model_libraries{};  // besides the installed ones and $TTT_MODELS
};

struct SelectedInstance {
  ModuleInstance instance;
  std::shared_ptr<const Network> network;  // the first that has it
  Target target{};                         // of the platform, without the model's own rows
  bool golden = false;                     // of a golden configuration: against the oracle in float32
  std::string
      reason;  // "layers.0.attn of LlamaForCausalLM, 32 times"; of a change: the file and how it gets there
};
// A case of ctest.
struct SelectedCase {
  std::string name;  // as ctest lists it
  std::string reason;
};
struct Selection {
  std::vector<SelectedInstance> instances{};
  std::size_t of_instances = 0;       // in the whole set
  std::vector<SelectedCase> cases{};  // only of a change
  std::size_t of_cases = 0;
  std::vector<std::string> notes{};  // files that no test depends on, and the like
};

// Conditions are joined by "and". Errors: unknown names, a range that git does not know, no build tree where
// a change needs one.
Selection select_tests(const SelectionOptions&);

// The build tree that this program runs from; empty: it was installed.
std::filesystem::path own_build_folder();

// Runs them by ctest, `jobs` at the same time; its exit status, 0 when all pass.
int run_cases(const std::vector<SelectedCase>&, const std::filesystem::path& build, int jobs);

// Regular expression for ctest -R that matches these cases and no others; empty without any.
std::string ctest_pattern(const std::vector<SelectedCase>&);

}  // namespace ttt::inline v2::testing
