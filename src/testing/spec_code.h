// A spec as the describe() of a model file: what the helpers of decoder_spec.h say, and statements for what
// differs.
#pragma once

#include <string>
#include <vector>

#include "ttt/convert/hf_config.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2::testing {

struct SpecCode {
  std::string text;                    // static ModelSpec describe(const HfConfig&) {..}
  std::vector<std::string> questions;  // that stand in it
};

// `known`: the spec that the nearest family gives; fields in which `spec` differs from it are guesses.
// Numbers are looked up among those of the config.
SpecCode spec_code(const ModelSpec& spec, const ModelSpec& known, const HfConfig& config);

// "0.25f", "1e-05f", "3.0f".
std::string cpp_float(float);

}  // namespace ttt::inline v2::testing
