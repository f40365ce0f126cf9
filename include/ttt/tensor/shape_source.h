// Weights that are shapes: for devices that compute nothing (Device::computes), where a model is planned from
// its configuration alone.
#pragma once

#include "ttt/tensor/weight_source.h"

namespace ttt::inline v2 {

// Reading it is an Error.
WeightSourcePtr make_shape(std::int64_t rows, std::int64_t cols);

}  // namespace ttt::inline v2
