// A model file to start from, written from a checkpoint: the nearest known family by what its config and its
// tensors make of this one, and what could not be decided as questions in the text.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"

namespace ttt::inline v2::testing {

struct Scaffold {
  std::string text;                      // of NAME.cpp
  std::string architecture;              // that it registers
  std::string nearest;                   // the family that it starts from
  std::vector<std::string> questions{};  // each stands in the text behind the word QUESTION
  std::size_t problems = 0;              // tensors and weights that still do not fit
};

// `path`: a Hugging Face folder, with tensors or a config.json alone. `name`: an identifier, of the family
// and its file. Errors: no identifier; a GGUF file; no family at all that can read the config.
Scaffold scaffold(const std::filesystem::path&, std::string_view name, const LoadOptions& = {});

}  // namespace ttt::inline v2::testing
