// From a Batch to the Step that modules see: checked, ordered with the decode rows first, its small tensors
// on the device.
#pragma once

#include <cstdint>
#include <vector>

#include "ttt/model/causal_lm.h"

namespace ttt::inline v2 {

struct BuiltStep {
  Step step;
  std::vector<std::int32_t> row_of_token;  // row of the step that token i of the batch became
  // What the host puts together, kept with its memory for the next step.
  std::vector<std::size_t> order{};
  std::vector<std::int32_t> ids{}, table{}, decode_positions{}, segments{};
};

struct StepLimits {
  std::int32_t vocab = 0;
  std::int64_t max_positions = 0;  // 0: none (rotary and position-free networks go as far as the cache does)
  bool paged = true;               // some layer has a KV cache
  bool recurrent = false;          // some layer keeps state per slot
  // Page tables of 2^n columns: steps of few shapes, for a device that records them.
  bool rounded_tables = false;
};

// Columns of the page table on the device.
std::int32_t page_columns(std::int32_t table_width, const StepLimits&);

// Error naming the sequence when the batch contradicts itself or the state's geometry. Of a step of the same
// shape that `built` holds already the tensors are written anew.
void build_step(const Batch&, State&, Backend&, const StepLimits&, BuiltStep& built);

}  // namespace ttt::inline v2
