// Where the values of a weight come from: a checkpoint, a generator, another weight. Read in rows, on demand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ttt/tensor/dtype.h"

namespace ttt::inline v2 {

// A matrix [rows, cols] as Hugging Face stores it: a linear layer is [out, in], a table [entries, dim], a
// vector [1, n], stacked experts [experts * out, in].
class WeightSource {
 public:
  virtual ~WeightSource();
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  // Rows [begin, begin + count) as float32, row-major, into out[count * cols]. Thread-safe.
  virtual void read(std::int64_t begin, std::int64_t count, float* out) const = 0;
  // Identifies the values: checkpoint file (its header and size), byte offset, dtype, operations applied.
  virtual std::uint64_t fingerprint() const = 0;
  // For messages: "model.layers.0.self_attn.q_proj.weight in model.safetensors".
  virtual std::string describe() const = 0;
  // All the rows in the given dtype where they lie in memory so already (a mapped file), else empty. Stays
  // valid with the source.
  virtual std::span<const std::byte> mapped(DataType) const { return {}; }
  // True when every value is exactly representable in `dtype`, as far as the storage type tells.
  virtual bool exact_in(DataType) const { return false; }
  // Drops what reading has kept in memory (panels, pages of a mapped file). Called once a weight was
  // converted; reading again works.
  virtual void release() const {}
};

using WeightSourcePtr = std::shared_ptr<const WeightSource>;

// Error unless rows [begin, begin + count) exist; for implementations of read().
void check_rows(const WeightSource&, std::int64_t begin, std::int64_t count);

// Values given by the caller, for tests and embedded use.
WeightSourcePtr make_source(std::vector<float> values, std::int64_t rows, std::int64_t cols,
                            std::string name = "values");
// The sources one above the other. All have the same number of columns.
WeightSourcePtr concat_rows(std::vector<WeightSourcePtr> parts);
// The rows of `source` that `order` names, in that order.
WeightSourcePtr gather_rows(WeightSourcePtr source, std::vector<std::int64_t> order);
// Columns [begin, end) of every row.
WeightSourcePtr slice_cols(WeightSourcePtr source, std::int64_t begin, std::int64_t end);
// Columns of zeros behind, `cols` in all.
WeightSourcePtr pad_cols(WeightSourcePtr source, std::int64_t cols);
// A row of the result is a column of `source`: from mapped f32 or bf16 values it is picked directly; else
// reading works through panels of at most 64 MiB of float32, each made by one pass over the source and kept
// until release().
WeightSourcePtr transpose(WeightSourcePtr source);
// Every value times `scale`, plus `offset`.
WeightSourcePtr affine(WeightSourcePtr source, float scale, float offset);
// The same values under another [rows, cols]; rows * cols is kept.
WeightSourcePtr reshape_source(WeightSourcePtr source, std::int64_t rows, std::int64_t cols);

}  // namespace ttt::inline v2
