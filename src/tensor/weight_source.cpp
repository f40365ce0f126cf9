#include "ttt/tensor/weight_source.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <utility>

#include "tensor/hash.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

WeightSource::~WeightSource() = default;

void check_rows(const WeightSource& source, std::int64_t begin, std::int64_t count) {
  if (begin < 0 || count < 0 || begin > source.rows() || count > source.rows() - begin) {
    throw Error("rows [" + std::to_string(begin) + ", +" + std::to_string(count) + ") of a weight with " +
                    std::to_string(source.rows()) + " rows",
                source.describe());
  }
}

namespace {

enum class Tag : std::uint64_t { values = 1, concat, gather, slice, transpose, affine, reshape, pad };

std::uint64_t combine(Tag tag, std::initializer_list<std::uint64_t> parts) {
  detail::Hasher hash;
  hash.add(static_cast<std::uint64_t>(tag));
  for (std::uint64_t part : parts) hash.add(part);
  return hash.value();
}

// rows * cols, checked against what memory can address.
std::int64_t checked_elements(std::int64_t rows, std::int64_t cols, const std::string& where) {
  std::int64_t count = 0, bytes = 0;
  if (rows < 0 || cols < 0 || __builtin_mul_overflow(rows, cols, &count) ||
      __builtin_mul_overflow(count, 4, &bytes)) {
    throw Error("a weight of " + std::to_string(rows) + " x " + std::to_string(cols) + " values", where);
  }
  return count;
}

void require(const WeightSourcePtr& source, const char* operation) {
  if (!source) throw Error(std::string(operation) + " of no weight");
}

std::span<const std::byte> row_span(std::span<const std::byte> all, std::int64_t rows, std::int64_t begin,
                                    std::int64_t count) {
  if (all.empty() || rows == 0) return {};
  const std::size_t row_bytes = all.size() / static_cast<std::size_t>(rows);
  return all.subspan(static_cast<std::size_t>(begin) * row_bytes,
                     static_cast<std::size_t>(count) * row_bytes);
}

class ValueSource final : public WeightSource {
 public:
  ValueSource(std::vector<float> values, std::int64_t rows, std::int64_t cols, std::string name)
      : values_(std::move(values)), rows_(rows), cols_(cols), name_(std::move(name)) {
    if (static_cast<std::int64_t>(values_.size()) != checked_elements(rows, cols, name_)) {
      throw Error(std::to_string(values_.size()) + " values for a weight of " + std::to_string(rows) + " x " +
                      std::to_string(cols),
                  name_);
    }
    fingerprint_ = combine(Tag::values, {static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols),
                                         detail::hash_bytes(std::as_bytes(std::span(values_)))});
    bf16_ = std::all_of(values_.begin(), values_.end(),
                        [](float v) { return (std::bit_cast<std::uint32_t>(v) & 0xFFFFu) == 0; });
  }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    std::copy_n(values_.data() + begin * cols_, count * cols_, out);
  }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  std::string describe() const override { return name_; }
  std::span<const std::byte> mapped(DataType type) const override {
    return type == DataType::f32 ? std::as_bytes(std::span(values_)) : std::span<const std::byte>();
  }
  bool exact_in(DataType type) const override {
    return type == DataType::f32 || (type == DataType::bf16 && bf16_);
  }

 private:
  std::vector<float> values_;
  std::int64_t rows_, cols_;
  std::string name_;
  std::uint64_t fingerprint_ = 0;
  bool bf16_ = false;
};

class ConcatSource final : public WeightSource {
 public:
  explicit ConcatSource(std::vector<WeightSourcePtr> parts) : parts_(std::move(parts)) {
    starts_.push_back(0);
    detail::Hasher hash;
    hash.add(static_cast<std::uint64_t>(Tag::concat));
    for (const WeightSourcePtr& part : parts_) {
      require(part, "concat_rows");
      if (part->cols() != parts_[0]->cols()) {
        throw Error("weights of " + std::to_string(parts_[0]->cols()) + " and " +
                        std::to_string(part->cols()) + " columns cannot stand one above the other",
                    parts_[0]->describe() + " and " + part->describe());
      }
      starts_.push_back(starts_.back() + part->rows());
      checked_elements(starts_.back(), part->cols(), part->describe());
      hash.add(part->fingerprint()).add(static_cast<std::uint64_t>(part->rows()));
    }
    fingerprint_ = hash.value();
  }
  std::int64_t rows() const override { return starts_.back(); }
  std::int64_t cols() const override { return parts_[0]->cols(); }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), begin);
    for (auto i = static_cast<std::size_t>(after - starts_.begin()) - 1; count > 0; ++i) {
      const std::int64_t n = std::min(count, starts_[i + 1] - begin);
      if (n > 0) parts_[i]->read(begin - starts_[i], n, out);
      begin += n, count -= n, out += n * cols();
    }
  }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  std::string describe() const override {
    if (parts_.size() > 4) {
      return parts_.front()->describe() + " .. " + parts_.back()->describe() + " (" +
             std::to_string(parts_.size()) + " weights)";
    }
    std::string text;
    for (const WeightSourcePtr& part : parts_) text += (text.empty() ? "" : " + ") + part->describe();
    return text;
  }
  // Parts that follow one another in memory, as stacked experts of one file do, are mapped as one.
  std::span<const std::byte> mapped(DataType type) const override {
    std::span<const std::byte> all;
    for (const WeightSourcePtr& part : parts_) {
      if (part->rows() == 0) continue;
      const std::span<const std::byte> next = part->mapped(type);
      if (next.empty() || (!all.empty() && all.data() + all.size() != next.data())) return {};
      all = all.empty() ? next : std::span(all.data(), all.size() + next.size());
    }
    return all;
  }
  bool exact_in(DataType type) const override {
    return std::all_of(parts_.begin(), parts_.end(),
                       [&](const WeightSourcePtr& part) { return part->exact_in(type); });
  }
  void release() const override {
    for (const WeightSourcePtr& part : parts_) part->release();
  }

 private:
  std::vector<WeightSourcePtr> parts_;
  std::vector<std::int64_t> starts_;
  std::uint64_t fingerprint_ = 0;
};

class GatherSource final : public WeightSource {
 public:
  GatherSource(WeightSourcePtr source, std::vector<std::int64_t> order)
      : source_(std::move(source)), order_(std::move(order)) {
    for (std::int64_t row : order_) check_rows(*source_, row, 1);
    checked_elements(rows(), cols(), source_->describe());
    fingerprint_ =
        combine(Tag::gather, {source_->fingerprint(), detail::hash_bytes(std::as_bytes(std::span(order_)))});
  }
  std::int64_t rows() const override { return static_cast<std::int64_t>(order_.size()); }
  std::int64_t cols() const override { return source_->cols(); }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    while (count > 0) {
      const std::int64_t n = run(begin, count);
      source_->read(order_[static_cast<std::size_t>(begin)], n, out);
      begin += n, count -= n, out += n * cols();
    }
  }
  std::uint64_t fingerprint() const override { return fingerprint_; }
  std::string describe() const override { return "rows of " + source_->describe(); }
  std::span<const std::byte> mapped(DataType type) const override {
    if (order_.empty() || run(0, rows()) != rows()) return {};
    return row_span(source_->mapped(type), source_->rows(), order_[0], rows());
  }
  bool exact_in(DataType type) const override { return source_->exact_in(type); }
  void release() const override { source_->release(); }

 private:
  // How many rows from `begin` on, at most `count`, are neighbours in the source too.
  std::int64_t run(std::int64_t begin, std::int64_t count) const {
    std::int64_t n = 1;
    while (n < count &&
           order_[static_cast<std::size_t>(begin + n)] == order_[static_cast<std::size_t>(begin + n - 1)] + 1)
      ++n;
    return n;
  }
  WeightSourcePtr source_;
  std::vector<std::int64_t> order_;
  std::uint64_t fingerprint_ = 0;
};

class SliceSource final : public WeightSource {
 public:
  SliceSource(WeightSourcePtr source, std::int64_t begin, std::int64_t end)
      : source_(std::move(source)), begin_(begin), end_(end) {}
  std::int64_t rows() const override { return source_->rows(); }
  std::int64_t cols() const override { return end_ - begin_; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    const std::int64_t width = source_->cols();
    const std::int64_t step = std::clamp<std::int64_t>(
        (std::int64_t{1} << 18) / std::max<std::int64_t>(width, 1), 1, std::max<std::int64_t>(count, 1));
    std::vector<float> block(static_cast<std::size_t>(std::min(step, count) * width));
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t n = std::min(step, count - done);
      source_->read(begin + done, n, block.data());
      for (std::int64_t r = 0; r < n; ++r, out += cols())
        std::copy_n(block.data() + r * width + begin_, cols(), out);
      done += n;
    }
  }
  std::uint64_t fingerprint() const override {
    return combine(Tag::slice, {source_->fingerprint(), static_cast<std::uint64_t>(begin_),
                                static_cast<std::uint64_t>(end_)});
  }
  std::string describe() const override {
    return "columns " + std::to_string(begin_) + " to " + std::to_string(end_) + " of " + source_->describe();
  }
  bool exact_in(DataType type) const override { return source_->exact_in(type); }
  void release() const override { source_->release(); }

 private:
  WeightSourcePtr source_;
  std::int64_t begin_, end_;
};

class PadSource final : public WeightSource {
 public:
  PadSource(WeightSourcePtr source, std::int64_t cols) : source_(std::move(source)), cols_(cols) {
    checked_elements(source_->rows(), cols_, source_->describe());
  }
  std::int64_t rows() const override { return source_->rows(); }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    const std::int64_t width = source_->cols();
    source_->read(begin, count, out);
    // From the last row on, so that none is overwritten before it moved.
    for (std::int64_t r = count - 1; r >= 0; --r) {
      std::memmove(out + r * cols_, out + r * width, static_cast<std::size_t>(width) * sizeof(float));
      std::fill_n(out + r * cols_ + width, cols_ - width, 0.0f);
    }
  }
  std::uint64_t fingerprint() const override {
    return combine(Tag::pad, {source_->fingerprint(), static_cast<std::uint64_t>(cols_)});
  }
  std::string describe() const override { return source_->describe(); }
  bool exact_in(DataType type) const override { return source_->exact_in(type); }
  void release() const override { source_->release(); }

 private:
  WeightSourcePtr source_;
  std::int64_t cols_;
};

class TransposeSource final : public WeightSource {
 public:
  explicit TransposeSource(WeightSourcePtr source) : source_(std::move(source)) {}
  std::int64_t rows() const override { return source_->cols(); }
  std::int64_t cols() const override { return source_->rows(); }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    if (count == 0 || cols() == 0) return;
    if (const auto values = source_->mapped(DataType::f32); !values.empty()) {
      pick<float>(values.data(), begin, count, out);
    } else if (const auto halves = source_->mapped(DataType::bf16); !halves.empty()) {
      pick<BFloat16>(halves.data(), begin, count, out);
    } else {
      read_panels(begin, count, out);
    }
  }
  std::uint64_t fingerprint() const override { return combine(Tag::transpose, {source_->fingerprint()}); }
  std::string describe() const override { return "transpose of " + source_->describe(); }
  bool exact_in(DataType type) const override { return source_->exact_in(type); }
  void release() const override {
    {
      const std::lock_guard lock(mutex_);
      panel_ = {};
      panel_end_ = panel_begin_;
    }
    source_->release();
  }

 private:
  // Blocks of rows keep both the reads and the writes within the cache. The file may place values at odd
  // addresses.
  template <class T>
  void pick(const std::byte* values, std::int64_t begin, std::int64_t count, float* out) const {
    const std::int64_t height = source_->rows(), width = source_->cols();
    constexpr std::int64_t block = 64;
    for (std::int64_t r0 = 0; r0 < height; r0 += block) {
      const std::int64_t r1 = std::min(height, r0 + block);
      for (std::int64_t c = 0; c < count; ++c) {
        const std::byte* from = values + static_cast<std::size_t>(r0 * width + begin + c) * sizeof(T);
        for (std::int64_t r = r0; r < r1; ++r, from += static_cast<std::size_t>(width) * sizeof(T)) {
          T value;
          std::memcpy(&value, from, sizeof(T));
          out[c * height + r] = static_cast<float>(value);
        }
      }
    }
  }

  void read_panels(std::int64_t begin, std::int64_t count, float* out) const {
    constexpr std::int64_t panel_values = std::int64_t{16} << 20;
    const std::int64_t height = source_->rows(), width = source_->cols();
    const std::int64_t panel_rows = std::clamp<std::int64_t>(panel_values / height, 1, width);
    while (count > 0) {
      const std::lock_guard lock(mutex_);
      if (begin < panel_begin_ || begin >= panel_end_)
        load_panel(begin / panel_rows * panel_rows, panel_rows);
      const std::int64_t n = std::min(count, panel_end_ - begin);
      std::copy_n(panel_.data() + (begin - panel_begin_) * height, n * height, out);
      begin += n, count -= n, out += n * height;
    }
  }

  void load_panel(std::int64_t begin, std::int64_t panel_rows) const {
    const std::int64_t height = source_->rows(), width = source_->cols();
    const std::int64_t n = std::min(panel_rows, width - begin);
    panel_end_ = panel_begin_;
    panel_.resize(static_cast<std::size_t>(n * height));
    const std::int64_t step = std::clamp<std::int64_t>((std::int64_t{1} << 18) / width, 1, height);
    std::vector<float> block(static_cast<std::size_t>(step * width));
    for (std::int64_t r0 = 0; r0 < height; r0 += step) {
      const std::int64_t rows_read = std::min(step, height - r0);
      source_->read(r0, rows_read, block.data());
      for (std::int64_t c = 0; c < n; ++c) {
        for (std::int64_t r = 0; r < rows_read; ++r) {
          panel_[static_cast<std::size_t>(c * height + r0 + r)] =
              block[static_cast<std::size_t>(r * width + begin + c)];
        }
      }
    }
    panel_begin_ = begin, panel_end_ = begin + n;
  }

  WeightSourcePtr source_;
  mutable std::mutex mutex_;
  mutable std::vector<float> panel_;
  mutable std::int64_t panel_begin_ = 0, panel_end_ = 0;
};

class AffineSource final : public WeightSource {
 public:
  AffineSource(WeightSourcePtr source, float scale, float offset)
      : source_(std::move(source)), scale_(scale), offset_(offset) {}
  std::int64_t rows() const override { return source_->rows(); }
  std::int64_t cols() const override { return source_->cols(); }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    source_->read(begin, count, out);
    for (std::int64_t i = 0; i < count * cols(); ++i) out[i] = out[i] * scale_ + offset_;
  }
  std::uint64_t fingerprint() const override {
    return combine(Tag::affine, {source_->fingerprint(), std::bit_cast<std::uint32_t>(scale_),
                                 std::bit_cast<std::uint32_t>(offset_)});
  }
  std::string describe() const override {
    std::string text = source_->describe();
    if (scale_ != 1) text += " times " + std::to_string(scale_);
    if (offset_ != 0) text += " plus " + std::to_string(offset_);
    return text;
  }
  bool exact_in(DataType type) const override { return type == DataType::f32; }
  void release() const override { source_->release(); }

 private:
  WeightSourcePtr source_;
  float scale_, offset_;
};

class ReshapeSource final : public WeightSource {
 public:
  ReshapeSource(WeightSourcePtr source, std::int64_t rows, std::int64_t cols)
      : source_(std::move(source)), rows_(rows), cols_(cols) {
    const std::int64_t count = checked_elements(source_->rows(), source_->cols(), source_->describe());
    if (checked_elements(rows, cols, source_->describe()) != count) {
      throw Error("a weight of " + std::to_string(source_->rows()) + " x " + std::to_string(source_->cols()) +
                      " values cannot be read as " + std::to_string(rows) + " x " + std::to_string(cols),
                  source_->describe());
    }
  }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    const std::int64_t width = source_->cols();
    std::int64_t first = begin * cols_, values = count * cols_;
    if (values == 0) return;
    // A ragged row of the source at either end goes through a buffer, whole rows are read in place.
    std::vector<float> row;
    const auto part = [&](std::int64_t from, std::int64_t n) {
      row.resize(static_cast<std::size_t>(width));
      source_->read(from / width, 1, row.data());
      std::copy_n(row.data() + from % width, n, out);
      first += n, values -= n, out += n;
    };
    if (first % width != 0) part(first, std::min(values, width - first % width));
    if (const std::int64_t whole = values / width; whole > 0) {
      source_->read(first / width, whole, out);
      first += whole * width, values -= whole * width, out += whole * width;
    }
    if (values > 0) part(first, values);
  }
  std::uint64_t fingerprint() const override {
    return combine(Tag::reshape, {source_->fingerprint(), static_cast<std::uint64_t>(rows_),
                                  static_cast<std::uint64_t>(cols_)});
  }
  std::string describe() const override { return source_->describe(); }
  std::span<const std::byte> mapped(DataType type) const override {
    return is_block_float(type) ? std::span<const std::byte>() : source_->mapped(type);
  }
  bool exact_in(DataType type) const override { return !is_block_float(type) && source_->exact_in(type); }
  void release() const override { source_->release(); }

 private:
  WeightSourcePtr source_;
  std::int64_t rows_, cols_;
};

}  // namespace

WeightSourcePtr make_source(std::vector<float> values, std::int64_t rows, std::int64_t cols,
                            std::string name) {
  return std::make_shared<ValueSource>(std::move(values), rows, cols, std::move(name));
}

WeightSourcePtr concat_rows(std::vector<WeightSourcePtr> parts) {
  if (parts.empty()) throw Error("concat_rows of no weight");
  require(parts[0], "concat_rows");
  if (parts.size() == 1) return parts[0];
  return std::make_shared<ConcatSource>(std::move(parts));
}

WeightSourcePtr gather_rows(WeightSourcePtr source, std::vector<std::int64_t> order) {
  require(source, "gather_rows");
  return std::make_shared<GatherSource>(std::move(source), std::move(order));
}

WeightSourcePtr slice_cols(WeightSourcePtr source, std::int64_t begin, std::int64_t end) {
  require(source, "slice_cols");
  if (begin < 0 || begin > end || end > source->cols()) {
    throw Error("columns [" + std::to_string(begin) + ", " + std::to_string(end) + ") of a weight with " +
                    std::to_string(source->cols()) + " columns",
                source->describe());
  }
  if (begin == 0 && end == source->cols()) return source;
  return std::make_shared<SliceSource>(std::move(source), begin, end);
}

WeightSourcePtr pad_cols(WeightSourcePtr source, std::int64_t cols) {
  require(source, "pad_cols");
  if (cols < source->cols())
    throw Error(
        "a weight of " + std::to_string(source->cols()) + " columns padded to " + std::to_string(cols),
        source->describe());
  if (cols == source->cols()) return source;
  return std::make_shared<PadSource>(std::move(source), cols);
}

WeightSourcePtr transpose(WeightSourcePtr source) {
  require(source, "transpose");
  return std::make_shared<TransposeSource>(std::move(source));
}

WeightSourcePtr affine(WeightSourcePtr source, float scale, float offset) {
  require(source, "affine");
  if (scale == 1 && offset == 0) return source;
  return std::make_shared<AffineSource>(std::move(source), scale, offset);
}

WeightSourcePtr reshape_source(WeightSourcePtr source, std::int64_t rows, std::int64_t cols) {
  require(source, "reshape_source");
  if (rows == source->rows() && cols == source->cols()) return source;
  return std::make_shared<ReshapeSource>(std::move(source), rows, cols);
}

}  // namespace ttt::inline v2
