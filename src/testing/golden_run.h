// One model beside one reference, as evaluate_golden() and check() run it.
#pragma once

#include "ttt/model/causal_lm.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/reference.h"

namespace ttt::inline v2::testing {

// Fills in a run whose precision and required PCC are set. What goes wrong while running is its failure.
void run_golden(const CausalLM&, const Reference&, const GoldenOptions&, GoldenRun&);

// "transformers 5.23.0".
std::string made_by(const Reference&);

}  // namespace ttt::inline v2::testing
