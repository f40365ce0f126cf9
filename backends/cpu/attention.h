// Attention in one pass over the keys (Milakov and Gimelshein 2018; Dao et al. 2022), over contiguous and
// paged keys: the arithmetic of some rows of queries against one split of the keys.
//
// The arithmetic of one query row is fixed by absolute positions alone: keys go in blocks of 64, blocks in
// splits of 512; a split starts from nothing and splits are merged in ascending order. Inside a block scores
// sum over head_dim and values over keys in ascending order (Kernels::gemm; scores of bf16 queries and keys
// by gemm_dp where there is one). So a row's result is the same in
// a prefill, in a chunk of one, in a decode step, with any number of threads. The query heads that share a
// key head are rows of one product: keys and values are read once for them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
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

  // Asks for the memory of keys that will be loaded soon: pages are short, so the processor does not guess.
  void prefetch(std::int64_t begin, std::int64_t count) const {
    if (!paged || chosen != nullptr) return;
    const auto row_bytes = static_cast<std::int64_t>(
        is_block_float(elements.dtype) ? block_row_bytes(dim)
                                       : static_cast<std::size_t>(dim) * bytes_of(elements.dtype));
    for (std::int64_t i = 0; i < count;) {
      const Run run = run_of(begin + i, count - i);
      const std::byte* from = elements.base + run.element / dim * row_bytes;
      for (std::int64_t at = 0; run.element >= 0 && at < run.rows * row_bytes; at += 64)
        __builtin_prefetch(from + at, 0, 2);
      i += run.rows;
    }
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

  // The same as bf16, [count][dim], for products of pairs.
  void load_bf16(const Kernels& k, std::int64_t begin, std::int64_t count, std::uint16_t* to) const {
    for (std::int64_t i = 0; i < count;) {
      const Run run = run_of(begin + i, count - i);
      std::uint16_t* rows = to + i * dim;
      i += run.rows;
      if (run.element < 0) {
        std::memset(rows, 0, static_cast<std::size_t>(run.rows * dim) * 2);
      } else if (is_block_float(elements.dtype)) {
        k.block_rows_to_bf16(block_row(run), run.rows, dim, mantissa_bits(), rows);
      } else {
        std::memcpy(rows, elements.at(run.element), static_cast<std::size_t>(run.rows * dim) * 2);
      }
    }
  }

 private:
  const std::uint8_t* block_row(const Run& run) const {
    return reinterpret_cast<const std::uint8_t*>(elements.base) +
           run.element / dim * static_cast<std::int64_t>(block_row_bytes(dim));
  }
  int mantissa_bits() const { return elements.dtype == DataType::bfp8_b ? 7 : 3; }
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
        q_(q),
        pairs_(k.gemm_dp != nullptr && q.dtype == DataType::bf16 && keys != DataType::f32 &&
               head_dim % (k.pair_rows_apart ? tile_depth : 2) == 0) {}

  Elements mask{};
  std::int64_t mask_stride = 1;

  std::int64_t value_ld() const { return value_ld_; }
  static std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
  std::size_t state_floats(std::int64_t rows) const {
    return static_cast<std::size_t>(rows * (value_ld_ + 2));
  }

  // Memory for tiles of up to `rows` rows, in floats.
  std::size_t scratch_floats(std::int64_t rows) const {
    return static_cast<std::size_t>(key_block * head_dim_         // keys as they come
                                    + head_dim_ * key_block       // transposed
                                    + key_block * value_ld_       // values
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

  // Loads the queries of a tile as the products read them, block by block of k.gemm_rows.
  void load_queries(const QueryRow* rows, std::int64_t count, float* queries, float* buffer) const {
    for (std::int64_t r = 0; r < count; r += k_.gemm_rows) {
      const std::int64_t n = std::min<std::int64_t>(k_.gemm_rows, count - r);
      if (pairs_) {  // a pair of bf16 moves as one 32-bit word
        const std::int64_t pairs = head_dim_ / 2;
        float* to = queries + r * pairs;
        float* as_stored = k_.pair_rows_apart ? to : buffer;
        for (std::int64_t i = 0; i < n; ++i)
          std::memcpy(as_stored + i * pairs, q_.at(rows[r + i].query), static_cast<std::size_t>(pairs) * 4);
        if (!k_.pair_rows_apart) k_.interleave(buffer, pairs, to, n, pairs);
        continue;
      }
      for (std::int64_t i = 0; i < n; ++i)
        load_values(k_, q_, rows[r + i].query, 1, head_dim_, buffer + i * head_dim_);
      k_.interleave(buffer, head_dim_, queries + r * head_dim_, n, head_dim_);
    }
  }

  // One split [begin, end) of the keys for a tile of rows; `s` starts cleared. Keys outside every row's range
  // are not read. Without `values` they are the keys' first columns.
  void split(const QueryRow* rows, std::int64_t count, const float* queries, const KeyRows& keys,
             const KeyRows* values, std::int64_t begin, std::int64_t end, const SoftmaxState& s,
             float* scratch) const {
    float* raw = scratch;
    float* transposed = raw + key_block * head_dim_;
    float* value = transposed + head_dim_ * key_block;
    float* scores = value + key_block * value_ld_;
    float* weights = scores + count * key_block;
    bool first = true;  // its memory was not asked for
    for (std::int64_t at = begin; at < end; at += key_block) {
      std::int64_t low = at + key_block, high = at;  // keys of the block that some row sees
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t b = std::max(rows[r].begin, at), e = std::min({rows[r].end, at + key_block, end});
        if (b >= e) continue;
        low = std::min(low, b);
        high = std::max(high, e);
      }
      if (low >= high) continue;
      const std::int64_t skip = low - at, n = high - low;
      // The next block comes out of memory in four portions, between the steps of this one: a processor keeps
      // only some two dozen lines on their way.
      const std::int64_t next = at + key_block, rest = std::clamp<std::int64_t>(end - next, 0, key_block);
      const auto prefetch = [&](const KeyRows* rows_of, int half) {
        if (rows_of != nullptr)
          rows_of->prefetch(next + rest / 2 * half, half == 0 ? rest / 2 : rest - rest / 2);
      };
      if (std::exchange(first, false) && values != nullptr) values->prefetch(low, n);
      if (n < key_block) std::memset(transposed, 0, static_cast<std::size_t>(head_dim_ * key_block) * 4);
      if (pairs_) {
        load_pairs(keys, low, skip, n, raw, transposed);
      } else {
        keys.load(k_, low, n, raw, head_dim_);
        k_.transpose(raw, head_dim_, transposed + skip, key_block, n, head_dim_);
      }
      prefetch(&keys, 0);
      if (n < key_block) std::memset(value, 0, static_cast<std::size_t>(key_block * value_ld_) * 4);
      if (values != nullptr) {
        values->load(k_, low, n, value + skip * value_ld_, value_ld_);
      } else {
        if (pairs_) keys.load(k_, low, n, raw, head_dim_);
        for (std::int64_t i = 0; i < n; ++i)
          std::copy_n(raw + i * head_dim_, value_dim_, value + (skip + i) * value_ld_);
      }
      prefetch(&keys, 1);
      for (std::int64_t i = skip; value_ld_ > value_dim_ && i < skip + n; ++i) {
        std::fill(value + i * value_ld_ + value_dim_, value + (i + 1) * value_ld_, 0.0f);
      }
      prefetch(values, 0);
      for (std::int64_t r = 0; r < count; r += k_.gemm_rows) {
        const std::int64_t m = std::min<std::int64_t>(k_.gemm_rows, count - r);
        float* block = scores + r * key_block;
        for (int half = 0; half < key_block; half += panel_width) {
          if (pairs_) {
            const std::int64_t pairs = head_dim_ / 2;
            k_.gemm_dp(static_cast<int>(m), reinterpret_cast<const std::uint32_t*>(queries + r * pairs),
                       pairs, reinterpret_cast<const std::uint16_t*>(transposed + half * pairs), pairs,
                       block + half, key_block, false);
          } else {
            k_.gemm(static_cast<int>(m), queries + r * head_dim_, transposed + half, key_block, head_dim_,
                    block + half, key_block, false);
          }
        }
        for (std::int64_t i = 0; i < m; ++i) row_weights(rows[r + i], at, block + i * key_block, s, r + i);
        k_.interleave(block, key_block, weights, m, key_block);
        for (std::int64_t column = 0; column < value_ld_; column += panel_width) {
          k_.gemm(static_cast<int>(m), weights, value + column, value_ld_, key_block,
                  s.values + r * value_ld_ + column, value_ld_, true);
        }
      }
      prefetch(values, 1);
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
  // Keys [low, low + n) as products of bf16 pairs read them: two panels [pair][32 keys], the first of them
  // at key `skip`. `stored` holds them in between.
  void load_pairs(const KeyRows& keys, std::int64_t low, std::int64_t skip, std::int64_t n, float* stored,
                  float* panels) const {
    const std::int64_t pairs = head_dim_ / 2;
    keys.load_bf16(k_, low, n, reinterpret_cast<std::uint16_t*>(stored));
    for (std::int64_t at = skip; at < skip + n;) {
      const std::int64_t panel = at / panel_width, inside = at % panel_width;
      const std::int64_t count = std::min(panel_width - inside, skip + n - at);
      k_.transpose(stored + (at - skip) * pairs, pairs, panels + panel * panel_width * pairs + inside,
                   panel_width, count, pairs);
      at += count;
    }
  }

  // Scores of one row against one block become softmax weights; rescales the row's state.
  void row_weights(const QueryRow& row, std::int64_t at, float* scores, const SoftmaxState& s,
                   std::int64_t r) const {
    ScoreRule rule;
    rule.scale = rules_.scale;
    rule.softcap = rules_.softcap;
    rule.slope = row.slope;
    rule.first_key = at;
    rule.begin = static_cast<std::int32_t>(std::clamp<std::int64_t>(row.begin - at, 0, key_block));
    rule.end = static_cast<std::int32_t>(std::clamp<std::int64_t>(row.end - at, 0, key_block));
    if (rule.begin >= rule.end) {
      std::fill_n(scores, key_block, 0.0f);
      return;
    }
    alignas(64) float mask_values[key_block];
    if (row.mask >= 0) {
      load_values(k_, mask, row.mask + at * mask_stride, mask_stride, rule.end, mask_values);
      std::fill(mask_values + rule.end, mask_values + key_block, 0.0f);
      rule.mask = mask_values;
    }
    const float block_top = k_.finish_scores(scores, rule);
    if (block_top == minus_infinity) {
      std::fill_n(scores, key_block, 0.0f);
      return;
    }
    const float before = s.top[r], top = std::max(before, block_top);
    const float sum = k_.exp_sum(scores, top, scores, key_block);
    if (top != before && before != minus_infinity) {
      float shrink = before;
      k_.exp_sum(&shrink, top, &shrink, 1);
      s.sum[r] *= shrink;
      k_.binary_scalar(Fn2::multiply, s.values + r * value_ld_, shrink, s.values + r * value_ld_, value_ld_);
    }
    s.top[r] = top;
    s.sum[r] += sum;
  }

  const Kernels& k_;
  VisibleKeys rules_;
  std::int64_t head_dim_, value_dim_, value_ld_;
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

// Per head values of sinks and slopes.
struct HeadFactors {
  std::vector<float> sinks, slopes;
  HeadFactors(const Kernels& k, const OpCall& call, std::int64_t heads) {
    const auto fill = [&](std::vector<float>& to, int i) {
      if (!call.has(i)) return;
      to.resize(static_cast<std::size_t>(heads));
      load_values(k, Elements(call.in(i)), 0, call.in(i).shape().rank() > 0 ? call.in(i).strides()[-1] : 1,
                  heads, to.data());
    };
    fill(sinks, 4);
    fill(slopes, 5);
  }
  void apply(QueryRow& row, std::int64_t head) const {
    if (!sinks.empty()) row.sink = sinks[static_cast<std::size_t>(head)];
    if (!slopes.empty()) row.slope = slopes[static_cast<std::size_t>(head)];
  }
};

}  // namespace ttt::inline v2::cpu
