#include "convert/sources.h"

#include <algorithm>
#include <cmath>

#include "tensor/hash.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::detail {

namespace {

class StridedSource final : public WeightSource {
 public:
  StridedSource(WeightSourcePtr source, RowLoops loops)
      : source_(std::move(source)), loops_(std::move(loops)), rows_(loops_.rows()) {
    std::int64_t last = loops_.offset;
    for (const RowLoops::Loop& loop : loops_.loops) last += (loop.count - 1) * loop.stride;
    if (rows_ > 0 && (loops_.offset < 0 || last >= source_->rows()))
      throw Error("row " + std::to_string(last) + " of " + std::to_string(source_->rows()),
                  source_->describe());
  }

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return source_->cols(); }

  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    // Rows of the last loop that follow one another are read at once.
    const RowLoops::Loop inner = loops_.loops.empty() ? RowLoops::Loop{} : loops_.loops.back();
    while (count > 0) {
      const std::int64_t within = begin % inner.count;
      const std::int64_t run = inner.stride == 1 ? std::min(count, inner.count - within) : 1;
      source_->read(row(begin), run, out);
      begin += run;
      count -= run;
      out += run * cols();
    }
  }

  std::uint64_t fingerprint() const override {
    Hasher hash;
    hash.add("strided").add(source_->fingerprint()).add(static_cast<std::uint64_t>(loops_.offset));
    for (const RowLoops::Loop& loop : loops_.loops)
      hash.add(static_cast<std::uint64_t>(loop.count)).add(static_cast<std::uint64_t>(loop.stride));
    return hash.value();
  }
  std::string describe() const override { return "rows of " + source_->describe(); }
  bool exact_in(DataType type) const override { return source_->exact_in(type); }
  void release() const override { source_->release(); }

  std::span<const std::byte> mapped(DataType type) const override {
    if (loops_.loops.size() != 1 || loops_.loops[0].stride != 1 || source_->rows() == 0 ||
        is_block_float(type))
      return {};
    const std::span<const std::byte> all = source_->mapped(type);
    const std::size_t row_bytes = all.size() / static_cast<std::size_t>(source_->rows());
    return all.empty() ? all
                       : all.subspan(static_cast<std::size_t>(loops_.offset) * row_bytes,
                                     static_cast<std::size_t>(rows_) * row_bytes);
  }

 private:
  std::int64_t row(std::int64_t index) const {
    std::int64_t at = loops_.offset;
    for (std::size_t i = loops_.loops.size(); i-- > 0;) {
      at += index % loops_.loops[i].count * loops_.loops[i].stride;
      index /= loops_.loops[i].count;
    }
    return at;
  }

  WeightSourcePtr source_;
  RowLoops loops_;
  std::int64_t rows_;
};

float apply(UnaryOp op, float x) {
  switch (op) {
    case UnaryOp::exp:
      return std::exp(x);
    case UnaryOp::log:
      return std::log(x);
    case UnaryOp::neg:
      return -x;
    case UnaryOp::reciprocal:
      return 1 / x;
    case UnaryOp::sqrt:
      return std::sqrt(x);
    case UnaryOp::rsqrt:
      return 1 / std::sqrt(x);
    case UnaryOp::square:
      return x * x;
    case UnaryOp::abs:
      return std::abs(x);
    case UnaryOp::tanh:
      return std::tanh(x);
    case UnaryOp::sigmoid:
      return 1 / (1 + std::exp(-x));
    case UnaryOp::softplus:
      return x > 20 ? x : std::log1p(std::exp(x));
    default:
      return x;
  }
}

class MapSource final : public WeightSource {
 public:
  MapSource(WeightSourcePtr source, UnaryOp op) : source_(std::move(source)), op_(op) {}
  std::int64_t rows() const override { return source_->rows(); }
  std::int64_t cols() const override { return source_->cols(); }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    source_->read(begin, count, out);
    const std::int64_t n = count * cols();
    for (std::int64_t i = 0; i < n; ++i) out[i] = apply(op_, out[i]);
  }
  std::uint64_t fingerprint() const override {
    return Hasher().add("map").add(source_->fingerprint()).add(static_cast<std::uint64_t>(op_)).value();
  }
  std::string describe() const override { return "a function of " + source_->describe(); }
  bool exact_in(DataType type) const override {
    return (op_ == UnaryOp::neg || op_ == UnaryOp::abs) && source_->exact_in(type);
  }
  void release() const override { source_->release(); }

 private:
  WeightSourcePtr source_;
  UnaryOp op_;
};

class StoredSource final : public WeightSource {
 public:
  explicit StoredSource(StoredValues values) : v_(std::move(values)) {
    const BlockSize block = block_size(v_.type);
    row_bytes_ = static_cast<std::size_t>(v_.cols / block.values) * static_cast<std::size_t>(block.bytes);
  }
  std::int64_t rows() const override { return v_.rows; }
  std::int64_t cols() const override { return v_.cols; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    to_float(v_.type, v_.bytes.data() + static_cast<std::size_t>(begin) * row_bytes_,
             static_cast<std::size_t>(count * v_.cols), out);
  }
  std::uint64_t fingerprint() const override { return v_.fingerprint; }
  std::string describe() const override { return v_.name; }
  bool exact_in(DataType type) const override { return ttt::exact_in(v_.type, type); }
  std::span<const std::byte> mapped(DataType type) const override {
    const bool same = (type == DataType::bf16 && v_.type == StorageType::bf16) ||
                      (type == DataType::f32 && v_.type == StorageType::f32);
    const bool aligned = reinterpret_cast<std::uintptr_t>(v_.bytes.data()) %
                             element_size(type == DataType::bf16 ? type : DataType::f32) ==
                         0;
    return same && aligned ? v_.bytes : std::span<const std::byte>();
  }
  void release() const override {
    if (v_.file != nullptr) v_.file->forget(v_.offset, v_.bytes.size());
  }

 private:
  StoredValues v_;
  std::size_t row_bytes_;
};

class ComputedSource final : public WeightSource {
 public:
  explicit ComputedSource(ComputedValues values) : v_(std::move(values)) {}
  std::int64_t rows() const override { return v_.rows; }
  std::int64_t cols() const override { return v_.cols; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    v_.fill(begin, count, out);
  }
  std::uint64_t fingerprint() const override { return v_.fingerprint; }
  std::string describe() const override { return v_.name; }
  bool exact_in(DataType type) const override {
    return type == DataType::f32 || (type == DataType::bf16 && v_.exact_in_bf16);
  }

 private:
  ComputedValues v_;
};

}  // namespace

std::int64_t RowLoops::rows() const {
  std::int64_t n = 1;
  for (const Loop& loop : loops) n *= loop.count;
  return n;
}

RowLoops RowLoops::simplified() const {
  RowLoops out{offset, {}};
  for (const Loop& loop : loops) {
    if (loop.count == 1) continue;
    if (!out.loops.empty() && out.loops.back().stride == loop.count * loop.stride) {
      out.loops.back() = {out.loops.back().count * loop.count, loop.stride};
    } else {
      out.loops.push_back(loop);
    }
  }
  if (out.loops.empty()) out.loops.push_back({1, 1});
  return out;
}

WeightSourcePtr strided_rows(WeightSourcePtr source, const RowLoops& loops) {
  RowLoops simple = loops.simplified();
  const bool all = simple.offset == 0 && simple.loops.size() == 1 && simple.loops[0].stride == 1 &&
                   simple.loops[0].count == source->rows();
  if (all) return source;
  return std::make_shared<StridedSource>(std::move(source), std::move(simple));
}

WeightSourcePtr map_values(WeightSourcePtr source, UnaryOp op) {
  if (op == UnaryOp::identity) return source;
  return std::make_shared<MapSource>(std::move(source), op);
}

WeightSourcePtr stored_source(StoredValues values) {
  return std::make_shared<StoredSource>(std::move(values));
}
WeightSourcePtr computed_source(ComputedValues values) {
  return std::make_shared<ComputedSource>(std::move(values));
}

}  // namespace ttt::inline v2::detail
