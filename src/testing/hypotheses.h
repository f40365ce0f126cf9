// What ports typically get wrong: single changes of a description, each of which a run can confirm or refute.
#pragma once

#include <string>
#include <vector>

#include "ttt/convert/hf_config.h"
#include "ttt/convert/load.h"

namespace ttt::inline v2::testing {

struct Hypothesis {
  std::string cause;  // "RoPE layout: interleaved pairs instead of halves (all layers)"
  std::string area;   // "attn", "ffn", "norm", "embed" or "head": where it would show
  Description changed;
};

// Candidates for numbers stem from the config; `layer`: the first one that diverges, or -1. Those of `area`
// first.
std::vector<Hypothesis> hypotheses(const Description&, const HfConfig& config, int layer,
                                   std::string_view area);

// Changes of the weight map that could make tensors fit that do not: axes exchanged.
std::vector<Hypothesis> shape_hypotheses(const Description&);

}  // namespace ttt::inline v2::testing
