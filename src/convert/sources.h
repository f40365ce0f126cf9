// Weight sources that bindings and checkpoints are made of, beside those of tensor/weight_source.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ttt/convert/mapped_file.h"
#include "ttt/convert/storage_type.h"
#include "ttt/ops/op_call.h"
#include "ttt/tensor/weight_source.h"

namespace ttt::inline v2::detail {

// Rows of a source as nested loops name them: offset + i0 stride0 + i1 stride1 + ..., the last loop fastest.
struct RowLoops {
  struct Loop {
    std::int64_t count = 1, stride = 1;
  };
  std::int64_t offset = 0;
  std::vector<Loop> loops{};

  std::int64_t rows() const;
  // The same rows with loops that step through each other's range merged, loops of one step dropped.
  RowLoops simplified() const;
};
WeightSourcePtr strided_rows(WeightSourcePtr source, const RowLoops&);

// f(x) of every value. `op`: exp, log, neg, reciprocal, sqrt, rsqrt, square, abs, tanh, sigmoid, softplus.
WeightSourcePtr map_values(WeightSourcePtr source, UnaryOp op);

// Values as a file stores them.
struct StoredValues {
  std::shared_ptr<const void> owner;  // keeps `bytes` alive
  const MappedFile* file = nullptr;   // the same, for release(); may be null
  std::span<const std::byte> bytes;
  std::uint64_t offset = 0;  // of `bytes` in the file
  StorageType type = StorageType::f32;
  std::int64_t rows = 0, cols = 0;
  std::uint64_t fingerprint = 0;
  std::string name;  // for messages
};
WeightSourcePtr stored_source(StoredValues);

// Values that are computed when they are read: fill(begin, count, out) gives rows [begin, begin + count).
struct ComputedValues {
  std::int64_t rows = 0, cols = 0;
  std::uint64_t fingerprint = 0;
  std::string name;
  bool exact_in_bf16 = false;
  std::function<void(std::int64_t begin, std::int64_t count, float* out)> fill;
};
WeightSourcePtr computed_source(ComputedValues);

}  // namespace ttt::inline v2::detail
