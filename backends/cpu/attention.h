// Attention in one pass over the keys (Milakov and Gimelshein 2018; Dao et al. 2022), over contiguous and
// paged keys: the arithmetic of some rows of queries against one split of the keys.
//
// The arithmetic of one query row is fixed by absolute positions alone: keys go in blocks of 64, blocks in
// splits of 512; a split starts from nothing and splits are merged in ascending order. Inside a block scores
// sum over head_dim and values over keys in ascending order (Kernels::gemm; scores of bf16 queries and keys
// by gemm_dp where there is one). So a row's result is the same in a prefill, in a chunk of one, in a decode
// step, with any number of threads. The query heads that share a key head are rows of one product: keys and
// values are read once for them, and stay in bf16 until they are in registers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "access.h"

namespace ttt::inline v2::cpu {

constexpr std::int64_t split_keys = 512;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Rows of keys or values of one head by position.
struct KeyRows {
  Elements elements{};
  std::int64_t dim = 0;
  std::int64_t head = 0;
  // Contiguous: element of (head, position). Paged: pages of `block` positions.
  std::int64_t head_stride = 0, position_stride = 0;
  bool paged = false;
  std::int64_t block = 0, blocks = 0, heads = 0;
  Elements table{};
  std::int64_t table_element = 0, table_stride = 0, table_width = 0;
  const std::int32_t* chosen = nullptr;  // paged: key i stands at position chosen[i]; null: at i

  // Rows beside each other in memory, from the element of the first one; -1: pages that the table does not
  // name, which are zeros.
  struct Run {
    std::int64_t element = 0, rows = 0;
  };
  // The run that begins with key i; at most `most` rows.
  Run run_of(std::int64_t i, std::int64_t most) const {
    if (!paged) {
      const bool dense = position_stride == dim && !is_block_float(elements.dtype);
      return {head * head_stride + i * position_stride, dense ? most : 1};
    }
    const std::int64_t position = chosen != nullptr ? chosen[i] : i;
    const std::int64_t page = position / block, inside = position % block;
    const std::int64_t rows = chosen != nullptr ? 1 : std::min(most, block - inside);
    const std::int64_t index =
        page < table_width ? load_index(table, table_element + page * table_stride) : -1;
    if (index < 0 || index >= blocks) return {-1, rows};
    return {((index * heads + head) * block + inside) * dim, rows};
  }

  // Keys [begin, begin + count) as float32, [count][ld].
  void load(const Kernels& k, std::int64_t begin, std::int64_t count, float* to, std::int64_t ld) const {
    for (std::int64_t i = 0; i < count;) {
      const Run run = run_of(begin + i, count - i);
      float* rows = to + i * ld;
      i += run.rows;
      if (run.element < 0) {
        for (std::int64_t j = 0; j < run.rows; ++j)
          std::memset(rows + j * ld, 0, static_cast<std::size_t>(dim) * 4);
      } else if (paged && is_block_float(elements.dtype)) {
        k.block_rows_to_f32(block_row(run), run.rows, dim, mantissa_bits(), rows, ld);
      } else if (ld == dim) {
        load_values(k, elements, run.element, 1, run.rows * dim, rows);
      } else {
        for (std::int64_t j = 0; j < run.rows; ++j)
          load_values(k, elements, run.element + j * dim, 1, dim, rows + j * ld);
      }
    }
  }

  // Keys [first, last) of the panel_width keys from `at` on as bf16, at least `columns` values of each: where
  // they lie, if that is one piece of memory with all keys of the panel, or in buffer [panel_width][ld].
  struct Panel {
    const std::uint16_t* rows = nullptr;  // of key `at`
    std::int64_t ld = 0;
  };
  Panel panel(const Kernels& k, std::int64_t at, std::int64_t first, std::int64_t last, std::int64_t columns,
              std::uint16_t* buffer) const {
    if (whole_pages() && elements.dtype == DataType::bf16 && columns <= dim) {
      const Run run = run_of(at, panel_width);
      if (run.element >= 0) return {reinterpret_cast<const std::uint16_t*>(elements.at(run.element)), dim};
    }
    const std::int64_t ld = std::max(columns, dim);
    for (std::int64_t i = first; i < last;) {
      const Run run = run_of(at + i, last - i);
      std::uint16_t* rows = buffer + i * ld;
      i += run.rows;
      if (run.element < 0) {
        std::fill_n(rows, run.rows * ld, std::uint16_t{0});
        continue;
      }
      if (is_block_float(elements.dtype)) {
        k.block_rows_to_bf16(block_row(run), run.rows, dim, mantissa_bits(), rows, ld);
      } else {
        for (std::int64_t j = 0; j < run.rows; ++j)
          std::memcpy(rows + j * ld, elements.at(run.element + j * dim), static_cast<std::size_t>(dim) * 2);
      }
      for (std::int64_t j = 0; ld > dim && j < run.rows; ++j)
        std::fill_n(rows + j * ld + dim, ld - dim, std::uint16_t{0});
    }
    return {buffer, ld};
  }

  // Rows of a block format of the panel_width keys from `at` on, if they are one piece of memory; else null.
  const std::uint8_t* block_panel(std::int64_t at) const {
    if (!is_block_float(elements.dtype) || !whole_pages() || dim % panel_width != 0) return nullptr;
    const Run run = run_of(at, panel_width);
    return run.element < 0 ? nullptr : block_row(run);
  }
  int mantissa_bits() const { return elements.dtype == DataType::bfp8_b ? 7 : 3; }

  // Memory of `rows` rows.
  std::int64_t bytes(std::int64_t rows) const {
    return rows * static_cast<std::int64_t>(is_block_float(elements.dtype)
                                                ? block_row_bytes(dim)
                                                : static_cast<std::size_t>(dim) * bytes_of(elements.dtype));
  }
  const std::byte* memory(const Run& run) const { return elements.base + bytes(run.element / dim); }

 private:
  const std::uint8_t* block_row(const Run& run) const {
    return reinterpret_cast<const std::uint8_t*>(memory(run));
  }
  // A panel of keys does not cross pages.
  bool whole_pages() const { return paged && chosen == nullptr && block % panel_width == 0; }
};

// Keys [begin, end) of one sequence and key head.
struct KeyRange {
  KeyRows keys, values;  // values.dim 0: the keys' first columns are the values
  std::int64_t begin = 0, end = 0;
};

// Memory of keys that come next, asked for a few lines at a time between the steps of a block: pages are
// short, so that the processor does not guess them, and it keeps only some two dozen lines on their way.
class Ahead {
 public:
  // The block that begins with key `at` of `range`, in `steps` steps and one portion.
  Ahead(const KeyRange& range, std::int64_t at, std::int64_t steps) {
    std::int64_t bytes = add(range.keys, at, std::min(at + key_block, range.end));
    if (range.values.dim > 0) bytes += add(range.values, at, std::min(at + key_block, range.end));
    lines_ = std::max<std::int64_t>(bytes / 64 - key_block, 0) / std::max<std::int64_t>(steps, 1) + 1;
  }
  Ahead() = default;

  void step() {
    for (std::int64_t i = 0; i < lines_ && current_ < count_; ++i) {
      Piece& piece = pieces_[current_];
      __builtin_prefetch(piece.at, 0, 2);
      piece.at += 64;
      if (piece.at >= piece.end) ++current_;
    }
  }
  // What a kernel asks for, a line with each key.
  Fetch portion() {
    if (current_ == count_) return {};
    Piece& piece = pieces_[current_];
    const Fetch fetch{piece.at, std::min<std::int64_t>((piece.end - piece.at + 63) / 64, key_block)};
    piece.at += fetch.lines * 64;
    if (piece.at >= piece.end) ++current_;
    return fetch;
  }
  void rest() {
    while (current_ < count_) step();
  }

 private:
  struct Piece {
    const std::byte *at, *end;
  };
  std::int64_t add(const KeyRows& rows, std::int64_t begin, std::int64_t end) {
    std::int64_t bytes = 0;
    while (begin < end && count_ < most && rows.paged && rows.chosen == nullptr) {
      const KeyRows::Run run = rows.run_of(begin, end - begin);
      begin += run.rows;
      if (run.element < 0) continue;
      pieces_[count_++] = {rows.memory(run), rows.memory(run) + rows.bytes(run.rows)};
      bytes += rows.bytes(run.rows);
    }
    return bytes;
  }

  static constexpr int most = 16;
  Piece pieces_[most];
  int count_ = 0, current_ = 0;
  std::int64_t lines_ = 0;
};

struct VisibleKeys {
  float scale = 1, softcap = 0;
  std::int64_t window = 0, chunk = 0;
  bool causal = true;

  // Keys [first, last) that the query at `position` may see out of `keys`.
  std::int64_t first(std::int64_t position) const {
    std::int64_t begin = 0;
    if (window > 0) begin = std::max(begin, causal ? position - window + 1 : position - window / 2);
    if (chunk > 0) begin = std::max(begin, position / chunk * chunk);
    return begin;
  }
  std::int64_t last(std::int64_t position, std::int64_t keys) const {
    std::int64_t end = keys;
    if (causal) end = std::min(end, position + 1);
    if (window > 0 && !causal) end = std::min(end, position + window / 2 + 1);
    if (chunk > 0) end = std::min(end, position / chunk * chunk + chunk);
    return std::max<std::int64_t>(end, 0);
  }
};

struct QueryRow {
  std::int64_t query = 0;           // element of q
  std::int64_t output = 0;          // element of the result
  std::int64_t begin = 0, end = 0;  // keys it sees
  float slope = 0, sink = minus_infinity;
  std::int64_t mask = -1;  // element of the mask at key 0
};

// Softmax state of the rows of a tile: running maximum, sum and weighted values.
struct SoftmaxState {
  float* top;
  float* sum;
  float* values;  // [rows][value_ld]
};

class Attention {
 public:
  Attention(const Kernels& k, const VisibleKeys& rules, std::int64_t head_dim, std::int64_t value_dim,
            const Elements& q, DataType keys)
      : k_(k),
        rules_(rules),
        head_dim_(head_dim),
        value_dim_(value_dim),
        value_ld_(round_up(value_dim, panel_width)),
        widest_(std::max(head_dim, value_ld_)),
        q_(q),
        pairs_(k.gemm_dp != nullptr && q.dtype == DataType::bf16 && keys != DataType::f32 &&
               head_dim % k.pair_step == 0) {}

  Elements mask{};
  std::int64_t mask_stride = 1;

  std::int64_t value_ld() const { return value_ld_; }
  static std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
  std::size_t state_floats(std::int64_t rows) const {
    return static_cast<std::size_t>(rows * (value_ld_ + 2));
  }

  // Memory for tiles of up to `rows` rows, in floats.
  std::size_t scratch_floats(std::int64_t rows) const {
    return static_cast<std::size_t>(key_block * widest_           // keys as they come
                                    + head_dim_ * key_block       // transposed
                                    + key_block * widest_         // values
                                    + rows * head_dim_            // queries
                                    + 16 * head_dim_              // queries of a block as they come
                                    + (rows + 32) * key_block) +  // scores and weights
           state_floats(rows) +
           512;
  }

  void clear(const SoftmaxState& s, std::int64_t rows) const {
    std::fill_n(s.top, rows, minus_infinity);
    std::fill_n(s.sum, rows, 0.0f);
    std::fill_n(s.values, rows * value_ld_, 0.0f);
  }

  // Adds what `part` saw to `total`. Into an empty total it is a copy, and an empty part changes nothing.
  void merge(const SoftmaxState& total, const SoftmaxState& part, std::int64_t rows) const {
    for (std::int64_t r = 0; r < rows; ++r) {
      if (part.top[r] == minus_infinity) continue;
      float* to = total.values + r * value_ld_;
      const float* from = part.values + r * value_ld_;
      if (total.top[r] == minus_infinity) {
        total.top[r] = part.top[r];
        total.sum[r] = part.sum[r];
        std::copy_n(from, value_ld_, to);
        continue;
      }
      const float top = std::max(total.top[r], part.top[r]);
      float weights[2] = {total.top[r], part.top[r]};
      k_.exp_sum(weights, top, weights, 2);
      total.top[r] = top;
      total.sum[r] = total.sum[r] * weights[0] + part.sum[r] * weights[1];
      for (std::int64_t i = 0; i < value_ld_; ++i) to[i] = to[i] * weights[0] + from[i] * weights[1];
    }
  }

  // Loads the queries of a tile as the products read them: pairs row after row, else block by block of
  // k.gemm_rows.
  void load_queries(const QueryRow* rows, std::int64_t count, float* queries, float* buffer) const {
    if (pairs_) {
      const std::int64_t pairs = head_dim_ / 2;
      for (std::int64_t r = 0; r < count; ++r)
        std::memcpy(queries + r * pairs, q_.at(rows[r].query), static_cast<std::size_t>(pairs) * 4);
      return;
    }
    for (std::int64_t r = 0; r < count; r += k_.gemm_rows) {
      const std::int64_t n = std::min<std::int64_t>(k_.gemm_rows, count - r);
      for (std::int64_t i = 0; i < n; ++i)
        load_values(k_, q_, rows[r + i].query, 1, head_dim_, buffer + i * head_dim_);
      k_.interleave(buffer, head_dim_, queries + r * head_dim_, n, head_dim_);
    }
  }

  // One split of the keys for a tile of rows; `s` starts cleared. Keys outside every row's range are not
  // read. `next`, if any, is what this thread works on afterwards.
  void split(const QueryRow* rows, std::int64_t count, const float* queries, const KeyRange& range,
             const KeyRange* next, const SoftmaxState& s, float* scratch) const {
    float* raw = scratch;
    float* transposed = raw + key_block * widest_;
    float* value = transposed + head_dim_ * key_block;
    float* scores = value + key_block * widest_;
    float* weights = scores + count * key_block;
    const KeyRows& values = values_of(range);
    const bool bf16_values = values.elements.dtype != DataType::f32;
    const std::int64_t steps = 4 + (count + k_.gemm_rows - 1) / k_.gemm_rows + count;
    const auto ahead_of = [&](std::int64_t at) {
      if (at + key_block < range.end) return Ahead(range, at + key_block, steps);
      return next != nullptr ? Ahead(*next, next->begin, steps) : Ahead();
    };
    for (std::int64_t at = range.begin / key_block * key_block; at < range.end; at += key_block) {
      const Seen block = seen(rows, count, at, range.end);
      if (block.begin >= block.end) continue;
      const std::int64_t n = block.end - block.begin;
      Ahead ahead = ahead_of(at);
      KeyRows::Panel panels[2];
      if (pairs_) {
        load_pairs(range.keys, at, block, raw, panels, transposed, ahead);
      } else {
        range.keys.load(k_, at + block.begin, n, raw, head_dim_);
        k_.transpose(raw, head_dim_, transposed + block.begin, key_block, n, head_dim_);
      }
      const std::uint8_t* block_halves[2] = {nullptr, nullptr};
      const bool blocks = count <= k_.gemm_rows && block_values(values, at, block, block_halves);
      if (blocks) {  // few rows take values as they are stored
      } else if (bf16_values) {
        load_values_of(range, at, block, value, panels);
      } else {
        values.load(k_, at + block.begin, n, value + block.begin * widest_, widest_);
      }
      for (std::int64_t r = 0; r < count; r += k_.gemm_rows) {
        const std::int64_t m = std::min<std::int64_t>(k_.gemm_rows, count - r);
        const Seen tile = seen(rows + r, m, at, range.end);
        if (tile.begin >= tile.end) continue;
        float* block_scores = scores + r * key_block;
        for (std::int64_t half = tile.begin / panel_width; half * panel_width < tile.end; ++half) {
          const std::int64_t key = half * panel_width;
          if (pairs_) {
            const std::int64_t pairs = head_dim_ / 2;
            k_.gemm_dp(static_cast<int>(m), reinterpret_cast<const std::uint32_t*>(queries + r * pairs),
                       pairs, reinterpret_cast<const std::uint16_t*>(transposed + key * pairs), pairs,
                       block_scores + key, key_block, false);
          } else {
            k_.gemm(static_cast<int>(m), queries + r * head_dim_, transposed + key, key_block, head_dim_,
                    block_scores + key, key_block, false);
          }
        }
        ahead.step();
        float shrink[16];  // k.gemm_rows is less
        for (std::int64_t i = 0; i < m; ++i) {
          shrink[i] = row_weights(rows[r + i], at, block_scores + i * key_block, s, r + i);
          ahead.step();
        }
        if (blocks) {
          k_.add_block_values(static_cast<int>(m), block_scores, block_halves, values.dim / 16,
                              values.mantissa_bits(), static_cast<int>(tile.begin),
                              static_cast<int>(tile.end), ahead.portion(), shrink, value_ld_,
                              s.values + r * value_ld_, value_ld_);
        } else if (bf16_values) {
          const std::uint16_t* const halves[2] = {panels[0].rows, panels[1].rows};
          k_.add_values(static_cast<int>(m), block_scores, halves, panels[0].ld, static_cast<int>(tile.begin),
                        static_cast<int>(tile.end), ahead.portion(), shrink, value_ld_,
                        s.values + r * value_ld_, value_ld_);
        } else {
          add_float_values(m, block_scores, value, tile, shrink, s.values + r * value_ld_, weights);
        }
      }
      ahead.rest();
    }
  }

  // The softmax's last step, then the row goes out.
  void finish(const QueryRow& row, const SoftmaxState& s, std::int64_t r, const Elements& to) const {
    float* values = s.values + r * value_ld_;
    float sum = s.sum[r], top = s.top[r], scale = 0;
    if (row.sink != minus_infinity) {  // a logit that takes part and has no value
      const float new_top = std::max(top, row.sink);
      float weights[2] = {top, row.sink};
      k_.exp_sum(weights, new_top, weights, 2);
      sum = sum * weights[0] + weights[1];
      scale = top == minus_infinity ? 0 : weights[0] / sum;
    } else if (top != minus_infinity) {
      scale = 1.0f / sum;
    }
    k_.binary_scalar(Fn2::multiply, values, scale, values, value_dim_);
    store_values(k_, values, to, row.output, value_dim_);
  }

 private:
  // Keys of the block from `at` on that some rows see, as offsets from `at`.
  struct Seen {
    std::int64_t begin = key_block, end = 0;
  };
  static Seen seen(const QueryRow* rows, std::int64_t count, std::int64_t at, std::int64_t end) {
    Seen block;
    for (std::int64_t r = 0; r < count; ++r) {
      const std::int64_t b = std::max(rows[r].begin - at, std::int64_t{0}),
                         e = std::min({rows[r].end, at + key_block, end}) - at;
      if (b >= e) continue;
      block.begin = std::min(block.begin, b);
      block.end = std::max(block.end, e);
    }
    return block;
  }

  // The seen keys of one panel of a block, as offsets from the panel's first.
  static Seen inside(const Seen& block, std::int64_t half) {
    const std::int64_t key = half * panel_width;
    return {std::max(block.begin - key, std::int64_t{0}),
            std::min<std::int64_t>(block.end - key, panel_width)};
  }

  // The block's keys as products of bf16 pairs read them: two panels [pair][32 keys].
  void load_pairs(const KeyRows& keys, std::int64_t at, const Seen& block, float* buffer,
                  KeyRows::Panel* panels, float* transposed, Ahead& ahead) const {
    constexpr std::int64_t step = 16;
    const std::int64_t pairs = head_dim_ / 2;
    for (std::int64_t half = 0; half < 2; ++half) {
      const Seen part = inside(block, half);
      if (part.begin >= part.end) continue;
      const std::int64_t key = half * panel_width, first = part.begin / step * step;
      float* to = transposed + key * pairs;
      const std::uint8_t* rows = head_dim_ % 64 == 0 ? keys.block_panel(at + key) : nullptr;
      for (std::int64_t i = first; rows != nullptr && i < part.end; i += step) {
        k_.block_rows_to_pairs(rows + keys.bytes(i), head_dim_, keys.mantissa_bits(),
                               reinterpret_cast<std::uint32_t*>(to + i));
        ahead.step();
      }
      if (rows != nullptr) continue;
      panels[half] = keys.panel(k_, at + key, part.begin, part.end, head_dim_,
                                reinterpret_cast<std::uint16_t*>(buffer) + key * widest_);
      const auto* words = reinterpret_cast<const float*>(panels[half].rows);
      for (std::int64_t i = first; i < part.end; i += step) {
        k_.transpose(words + i * pairs, pairs, to + i, panel_width, step, pairs);
        ahead.step();
      }
    }
  }

  // Values in a block format, where both panels of the block are stored so and hold no infinities.
  bool block_values(const KeyRows& values, std::int64_t at, const Seen& block,
                    const std::uint8_t** halves) const {
    if (value_ld_ > values.dim) return false;
    for (std::int64_t half = 0; half < 2; ++half) {
      const Seen part = inside(block, half);
      if (part.begin >= part.end) continue;
      halves[half] = values.block_panel(at + half * panel_width);
      if (halves[half] == nullptr || !k_.finite_blocks(halves[half] + values.bytes(part.begin),
                                                       part.end - part.begin, values.dim / 16)) {
        return false;
      }
    }
    return true;
  }

  // The block's values as bf16.
  void load_values_of(const KeyRange& range, std::int64_t at, const Seen& block, float* buffer,
                      KeyRows::Panel* panels) const {
    for (std::int64_t half = 0; half < 2; ++half) {
      const Seen part = inside(block, half);
      if (part.begin >= part.end || (range.values.dim == 0 && panels[half].ld >= value_ld_)) continue;
      const std::int64_t key = half * panel_width;
      panels[half] = values_of(range).panel(k_, at + key, part.begin, part.end, value_ld_,
                                            reinterpret_cast<std::uint16_t*>(buffer) + key * widest_);
    }
    for (int half = 0; half < 2; ++half) {  // a panel that nobody sees is not read
      if (panels[half].rows == nullptr) panels[half] = panels[1 - half];
    }
  }
  static const KeyRows& values_of(const KeyRange& range) {
    return range.values.dim > 0 ? range.values : range.keys;
  }

  // s.values[r] = s.values[r] * shrink[r] + weights times values, in float32.
  void add_float_values(std::int64_t rows, const float* weights, const float* value, const Seen& tile,
                        const float* shrink, float* sums, float* buffer) const {
    const std::int64_t n = tile.end - tile.begin;
    for (std::int64_t r = 0; r < rows; ++r) {
      float* row = sums + r * value_ld_;
      if (shrink[r] != 1) k_.binary_scalar(Fn2::multiply, row, shrink[r], row, value_ld_);
    }
    k_.interleave(weights + tile.begin, key_block, buffer, rows, n);
    for (std::int64_t column = 0; column < value_ld_; column += panel_width) {
      k_.gemm(static_cast<int>(rows), buffer, value + tile.begin * widest_ + column, widest_, n,
              sums + column, value_ld_, true);
    }
  }

  // Scores of one row against one block become softmax weights; returns the factor of the row's sums so far.
  float row_weights(const QueryRow& row, std::int64_t at, float* scores, const SoftmaxState& s,
                    std::int64_t r) const {
    ScoreRule rule;
    rule.scale = rules_.scale;
    rule.softcap = rules_.softcap;
    rule.slope = row.slope;
    rule.first_key = at;
    rule.begin = static_cast<std::int32_t>(std::clamp<std::int64_t>(row.begin - at, 0, key_block));
    rule.end = static_cast<std::int32_t>(std::clamp<std::int64_t>(row.end - at, 0, key_block));
    alignas(64) float mask_values[key_block];
    if (row.mask >= 0 && rule.begin < rule.end) {
      load_values(k_, mask, row.mask + at * mask_stride, mask_stride, rule.end, mask_values);
      rule.mask = mask_values;
    }
    return k_.softmax_block(scores, rule, &s.top[r], &s.sum[r]);
  }

  const Kernels& k_;
  VisibleKeys rules_;
  std::int64_t head_dim_, value_dim_, value_ld_, widest_;
  Elements q_;
  bool pairs_;  // scores are products of bf16 pairs, which are exact; else of float32
};

inline VisibleKeys rules_of(const AttentionAttributes& a, std::int64_t head_dim) {
  return {.scale = a.scale != 0 ? a.scale : 1.0f / std::sqrt(static_cast<float>(head_dim)),
          .softcap = a.softcap,
          .window = a.sliding_window_size,
          .chunk = a.is_causal ? a.chunk_size : 0,
          .causal = a.is_causal};
}

inline KeyRows paged_rows(const Tensor& cache, const Tensor& table) {
  KeyRows rows;
  rows.elements = Elements(cache);
  rows.dim = cache.dim(-1);
  rows.paged = true;
  rows.block = cache.dim(-2);
  rows.heads = cache.dim(-3);
  rows.blocks = cache.dim(-4);
  rows.table = Elements(table);
  rows.table_stride = table.strides()[-1];
  rows.table_width = table.dim(-1);
  return rows;
}

// Per head values of sinks and slopes. One at a time on a thread, which keeps their memory.
struct HeadFactors {
  std::span<const float> sinks, slopes;
  HeadFactors(const Kernels& k, const OpCall& call, std::int64_t heads) {
    const auto fill = [&](std::vector<float>& values, int i) -> std::span<const float> {
      if (!call.has(i)) return {};
      values.resize(static_cast<std::size_t>(heads));
      load_values(k, Elements(call.in(i)), 0, call.in(i).shape().rank() > 0 ? call.in(i).strides()[-1] : 1,
                  heads, values.data());
      return values;
    };
    thread_local std::vector<float> kept_sinks, kept_slopes;
    sinks = fill(kept_sinks, 4);
    slopes = fill(kept_slopes, 5);
  }
  void apply(QueryRow& row, std::int64_t head) const {
    if (!sinks.empty()) row.sink = sinks[static_cast<std::size_t>(head)];
    if (!slopes.empty()) row.slope = slopes[static_cast<std::size_t>(head)];
  }
};

}  // namespace ttt::inline v2::cpu
