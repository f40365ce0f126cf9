// A run of a model beside a reference: every intermediate that both have, in the order of execution.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/model/causal_lm.h"
#include "ttt/testing/reference.h"

namespace ttt::inline v2::testing {

struct TapResult {
  std::string tap;  // "layers.3.attn.q_rope"
  double error = 0, pcc = 0;
  bool good = false;
};

// "layers.3.attn.q_rope": a tap's name with the layer that a listener gets beside it.
std::string full_name(std::string_view tap, int layer);

// What an intermediate must reach: required_pcc where that is above 0, else errors within `tolerance` of its
// root mean square, or of 1 where that is smaller.
struct TapBound {
  double tolerance = 2e-3, required_pcc = 0;
};

// Runs the prompt of the reference, without the output head.
std::vector<TapResult> compare_taps(const CausalLM&, const Reference&, const TapBound&);

// The first that is not good.
std::optional<TapResult> first_bad(const std::vector<TapResult>&);
// "layers.3.attn (largest error 0.12, PCC 0.98)".
std::string to_string(const TapResult&);
// Three significant digits.
std::string short_number(double);

}  // namespace ttt::inline v2::testing
