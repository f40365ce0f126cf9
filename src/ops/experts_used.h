// Experts that the indices of a sparse_matmul name, as far as they can be read here; else as many as could
// be.
#pragma once

#include <cstdint>

#include "ttt/tensor/tensor.h"

namespace ttt::inline v2 {

std::int64_t experts_used(const Tensor& indices, std::int64_t experts);

}  // namespace ttt::inline v2
