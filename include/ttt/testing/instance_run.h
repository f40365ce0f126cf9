// One module instance by itself: built from its spec with made-up weights, run, compared with its oracle,
// timed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ttt/testing/check.h"
#include "ttt/testing/selection.h"

namespace ttt::inline v2::testing {

struct InstanceOptions {
  std::string backend = "cpu";  // null and ttnn (without a card): validity alone
  int threads = 0;
  int rows = 0;  // of a prefill, and the context of a decode step; 0: 128, of goldens 21
  std::size_t memory = std::size_t{1} << 30;  // bytes of float32 weights that an instance may have
  int repeats = 0;                            // timed samples; 0: none are taken
  double sample_seconds = 2e-3;  // an instance runs so often that a sample takes at least this long
};

struct InstanceResult {
  Outcome outcome = Outcome::passed;
  std::string detail{};           // why it failed or was skipped, one line
  double pcc = 0;                 // with the oracle: the composed operations in float32 on the same weights
  double error = 0;               // largest, in units of the oracle's root mean square
  double required_pcc = 0;        // by the number formats; an expectation may ask for more
  std::vector<double> seconds{};  // of one run, one per sample
  std::uint64_t bytes = 0, flops = 0;  // of one run, as the operands' sizes say
};

// Errors of building and running are failures of the instance. On a backend that does not compute, or on a
// mesh, the layer that has the instance is built and run; it passes when nothing is refused.
InstanceResult run_instance(const SelectedInstance&, const InstanceOptions& = {});

// What an instance must correlate with its oracle without an expectation, by the coarsest of its formats.
double default_pcc(const ModuleInstance&);

}  // namespace ttt::inline v2::testing
