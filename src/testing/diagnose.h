// The search for the change that makes a network agree with a reference.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ttt/convert/hf_config.h"
#include "ttt/convert/load.h"
#include "ttt/testing/reference.h"

namespace ttt::inline v2::testing {

struct Diagnosis {
  std::vector<std::string> changes;  // one after the other
  bool suffices = false;
  int tried = 0;
  bool out_of_time = false;
};

// Runs hypotheses on the checkpoint, on as few layers as show the difference. `options` hold no cache.
Diagnosis diagnose(const std::filesystem::path&, const Description&, const HfConfig&, const Reference&,
                   const LoadOptions& options, double tolerance, double seconds);

}  // namespace ttt::inline v2::testing
