// Weights that a Hugging Face checkpoint keeps as several tensors (packed integers, scales, zero points), as
// one tensor of numbers.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/json.h"
#include "convert/sources.h"
#include "ttt/convert/checkpoint.h"

namespace ttt::inline v2::detail {

// One stored tensor: where its bytes are.
struct RawTensor {
  CheckpointTensor info;
  StoredValues values;
};

// A tensor put together: what the checkpoint lists in place of its parts.
struct VirtualTensor {
  CheckpointTensor info;
  std::function<WeightSourcePtr()> source;
  std::function<WeightSourcePtr()> transposed;  // null: by transposing `source`
  std::vector<std::string> parts;               // stored tensors that are no tensors of their own any more
};

using FindRaw = std::function<const RawTensor*(std::string_view)>;

// The virtual tensor that `part` begins, if it is the part that names it: a *.qweight, *_blocks, or an 8-bit
// float weight with scales. `config`: the quantization_config object, or null. Errors name the tensors whose
// shapes do not belong together.
std::optional<VirtualTensor> assemble(const RawTensor& part, const FindRaw& find, const Json& config);

// Activation scales and the like: they change nothing once weights are numbers again.
bool is_runtime_scale(std::string_view name);

}  // namespace ttt::inline v2::detail
