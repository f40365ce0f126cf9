// Attention in one pass over the keys (Milakov and Gimelshein 2018; Dao et al. 2022), over contiguous and
// paged keys.
//
// The arithmetic of one query row is fixed by absolute positions alone: keys go in blocks of 64, blocks in
// splits of 512; a split starts from nothing and splits are merged in ascending order. Inside a block scores
// sum over head_dim and values over keys in ascending order (Kernels::gemm). So a row's result is the same in
// a prefill, in a chunk of one, in a decode step, with any number of threads. The query heads that share a
// key head are rows of one product: keys and values are read once for them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "access.h"

namespace ttt::inline v2::cpu {

namespace {

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

  // Positions [begin, begin + count) as float32, [count][ld]; pages that the table does not name are zeros.
  void load(const Kernels& k, std::int64_t begin, std::int64_t count, float* to, std::int64_t ld) const {
    if (!paged) {
      const std::int64_t first = head * head_stride + begin * position_stride;
      if (position_stride == dim && ld == dim && !is_block_float(elements.dtype)) {
        return load_values(k, elements, first, 1, count * dim, to);
      }
      for (std::int64_t i = 0; i < count; ++i)
        load_values(k, elements, first + i * position_stride, 1, dim, to + i * ld);
      return;
    }
    for (std::int64_t i = 0; i < count;) {
      const std::int64_t position = begin + i, page = position / block, inside = position % block;
      const std::int64_t n = std::min(count - i, block - inside);
      const std::int64_t index =
          page < table_width ? load_index(table, table_element + page * table_stride) : -1;
      if (index < 0 || index >= blocks) {
        for (std::int64_t j = 0; j < n; ++j)
          std::memset(to + (i + j) * ld, 0, static_cast<std::size_t>(dim) * 4);
      } else {
        const std::int64_t first_row = (index * heads + head) * block + inside, first = first_row * dim;
        if (is_block_float(elements.dtype)) {
          const auto* from = reinterpret_cast<const std::uint8_t*>(elements.base) +
                             first_row * static_cast<std::int64_t>(block_row_bytes(dim));
          k.block_rows_to_f32(from, n, dim, elements.dtype == DataType::bfp8_b ? 7 : 3, to + i * ld, ld);
          i += n;
          continue;
        }
        if (ld == dim) {
          load_values(k, elements, first, 1, n * dim, to + i * ld);
        } else {
          for (std::int64_t j = 0; j < n; ++j)
            load_values(k, elements, first + j * dim, 1, dim, to + (i + j) * ld);
        }
      }
      i += n;
    }
  }
};

struct Rules {
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

struct Row {
  std::int64_t query = 0;           // element of q
  std::int64_t output = 0;          // element of the result
  std::int64_t begin = 0, end = 0;  // keys it sees
  float slope = 0, sink = minus_infinity;
  std::int64_t mask = -1;  // element of the mask at key 0
};

// Softmax state of the rows of a tile: running maximum, sum and weighted values.
struct State {
  float* top;
  float* sum;
  float* values;  // [rows][value_ld]
};

class Attention {
 public:
  Attention(const Kernels& k, const Rules& rules, std::int64_t head_dim, std::int64_t value_dim)
      : k_(k),
        rules_(rules),
        head_dim_(head_dim),
        value_dim_(value_dim),
        value_ld_(round_up(value_dim, panel_width)) {}

  Elements q{}, mask{};
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

  void clear(const State& s, std::int64_t rows) const {
    std::fill_n(s.top, rows, minus_infinity);
    std::fill_n(s.sum, rows, 0.0f);
    std::fill_n(s.values, rows * value_ld_, 0.0f);
  }

  // Adds what `part` saw to `total`. Into an empty total it is a copy, and an empty part changes nothing.
  void merge(const State& total, const State& part, std::int64_t rows) const {
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
  void load_queries(const Row* rows, std::int64_t count, float* queries, float* buffer) const {
    for (std::int64_t r = 0; r < count; r += k_.gemm_rows) {
      const std::int64_t n = std::min<std::int64_t>(k_.gemm_rows, count - r);
      for (std::int64_t i = 0; i < n; ++i)
        load_values(k_, q, rows[r + i].query, 1, head_dim_, buffer + i * head_dim_);
      k_.interleave(buffer, head_dim_, queries + r * head_dim_, n, head_dim_);
    }
  }

  // One split [begin, end) of the keys for a tile of rows; `s` starts cleared. Keys outside every row's range
  // are not read.
  void split(const Row* rows, std::int64_t count, const float* queries, const KeyRows& keys,
             const KeyRows& values, std::int64_t begin, std::int64_t end, const State& s,
             float* scratch) const {
    float* raw = scratch;
    float* transposed = raw + key_block * head_dim_;
    float* value = transposed + head_dim_ * key_block;
    float* scores = value + key_block * value_ld_;
    float* weights = scores + count * key_block;
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
      keys.load(k_, low, n, raw, head_dim_);
      if (n < key_block) std::memset(transposed, 0, static_cast<std::size_t>(head_dim_ * key_block) * 4);
      k_.transpose(raw, head_dim_, transposed + skip, key_block, n, head_dim_);
      if (n < key_block) std::memset(value, 0, static_cast<std::size_t>(key_block * value_ld_) * 4);
      values.load(k_, low, n, value + skip * value_ld_, value_ld_);
      for (std::int64_t i = skip; value_ld_ > value_dim_ && i < skip + n; ++i) {
        std::fill(value + i * value_ld_ + value_dim_, value + (i + 1) * value_ld_, 0.0f);
      }
      for (std::int64_t r = 0; r < count; r += k_.gemm_rows) {
        const std::int64_t m = std::min<std::int64_t>(k_.gemm_rows, count - r);
        float* block = scores + r * key_block;
        for (int half = 0; half < key_block; half += panel_width) {
          k_.gemm(static_cast<int>(m), queries + r * head_dim_, transposed + half, key_block, head_dim_,
                  block + half, key_block, false);
        }
        for (std::int64_t i = 0; i < m; ++i) row_weights(rows[r + i], at, block + i * key_block, s, r + i);
        k_.interleave(block, key_block, weights, m, key_block);
        for (std::int64_t column = 0; column < value_ld_; column += panel_width) {
          k_.gemm(static_cast<int>(m), weights, value + column, value_ld_, key_block,
                  s.values + r * value_ld_ + column, value_ld_, true);
        }
      }
    }
  }

  // The softmax's last step, then the row goes out.
  void finish(const Row& row, const State& s, std::int64_t r, const Elements& to) const {
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
  // Scores of one row against one block become softmax weights; rescales the row's state.
  void row_weights(const Row& row, std::int64_t at, float* scores, const State& s, std::int64_t r) const {
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
  Rules rules_;
  std::int64_t head_dim_, value_dim_, value_ld_;
};

Rules rules_of(const AttentionAttributes& a, std::int64_t head_dim) {
  return {.scale = a.scale != 0 ? a.scale : 1.0f / std::sqrt(static_cast<float>(head_dim)),
          .softcap = a.softcap,
          .window = a.sliding_window_size,
          .chunk = a.is_causal ? a.chunk_size : 0,
          .causal = a.is_causal};
}

KeyRows paged_rows(const Tensor& cache, const Tensor& table) {
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
  void apply(Row& row, std::int64_t head) const {
    if (!sinks.empty()) row.sink = sinks[static_cast<std::size_t>(head)];
    if (!slopes.empty()) row.slope = slopes[static_cast<std::size_t>(head)];
  }
};

}  // namespace

void run_attention(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AttentionAttributes>();
  const bool paged = call.op == OpKind::chunked_scaled_dot_product_attention;
  const Tensor &q = call.in(0), &k = call.in(1), &v = call.in(2);
  const Kernels& kernels = device.kernels();
  const std::int64_t heads = q.dim(-3), queries = q.dim(-2), head_dim = q.dim(-1), value_dim = v.dim(-1);
  const std::int64_t kv_heads = k.dim(-3), group = heads / kv_heads;
  const Tensor y = device.allocate_token_major(call.output_specs[0]);
  call.outputs[0] = y;
  if (queries == 0) return;

  const std::int64_t key_count = paged ? attributes.chunk_start + queries : k.dim(-2);
  const std::int64_t first_position = key_count - queries;
  Attention attention(kernels, rules_of(attributes, head_dim), head_dim, value_dim);
  const Rules rules = rules_of(attributes, head_dim);
  attention.q = Elements(q);
  const HeadFactors factors(kernels, call, heads);
  const Tensor* mask = call.has(3) ? &call.in(3) : nullptr;
  if (mask != nullptr) {
    attention.mask = Elements(*mask);
    attention.mask_stride = mask->dim(-1) == 1 ? 0 : mask->strides()[-1];
  }
  KeyRows key_rows, value_rows;
  if (paged) {
    key_rows = paged_rows(k, call.in(6));
    value_rows = paged_rows(v, call.in(6));
    key_rows.table_element = value_rows.table_element = attributes.page_row * call.in(6).strides()[-2];
  } else {
    const auto dense = [](const Tensor& t) {
      KeyRows rows;
      rows.elements = Elements(t);
      rows.dim = t.dim(-1);
      rows.head_stride = t.strides()[-3];
      rows.position_stride = t.strides()[-2];
      return rows;
    };
    key_rows = dense(k);
    value_rows = dense(v);
  }
  // A tile is some neighbouring queries of all heads of one key head.
  const std::int64_t wanted = 96;
  std::int64_t tile = std::clamp<std::int64_t>(wanted / group, 1, queries);
  const std::int64_t fair = (queries * kv_heads + device.pool().size() * 2 - 1) / (device.pool().size() * 2);
  if (queries > 1) tile = std::min(tile, std::max<std::int64_t>(1, std::min(fair, queries)));
  const std::int64_t tiles = (queries + tile - 1) / tile;
  const Elements to(y);
  const std::int64_t most = tile * group;
  const auto work_on = [&](std::int64_t begin, std::int64_t end, int thread) {
    const std::size_t floats = attention.scratch_floats(most) + attention.state_floats(most);
    std::byte* memory =
        device.scratch(thread, floats * 4 + static_cast<std::size_t>(most) * sizeof(Row) + 128);
    auto* rows = reinterpret_cast<Row*>(memory);
    float* next =
        reinterpret_cast<float*>(memory + Attention::align(static_cast<std::size_t>(most) * sizeof(Row)));
    const auto take = [&](std::int64_t n) {
      float* p = next;
      next += round_up(n, 16);
      return p;
    };
    const auto state = [&] { return State{take(most), take(most), take(most * attention.value_ld())}; };
    const State total = state(), part = state();
    float* loaded = take(most * head_dim);
    float* buffer = take(16 * head_dim);
    float* scratch = next;
    for (std::int64_t i = begin; i < end; ++i) {
      // Late tiles have more keys in causal attention: they go first.
      const std::int64_t kv_head = i % kv_heads, first = (tiles - 1 - i / kv_heads) * tile;
      const std::int64_t span = std::min(tile, queries - first), count = span * group;
      std::int64_t low = key_count, high = 0;
      for (std::int64_t t = 0; t < span; ++t) {
        for (std::int64_t g = 0; g < group; ++g) {
          const std::int64_t head = kv_head * group + g, query = first + t, position = first_position + query;
          Row& row = rows[t * group + g];
          row = Row{};
          row.query = head * q.strides()[-3] + query * q.strides()[-2];
          row.output = head * y.strides()[-3] + query * y.strides()[-2];
          row.begin = rules.first(position);
          row.end = rules.last(position, key_count);
          factors.apply(row, head);
          if (mask != nullptr) {
            row.mask = (mask->dim(-3) == 1 ? 0 : head * mask->strides()[-3]) +
                       (mask->dim(-2) == 1 ? 0 : query * mask->strides()[-2]);
          }
          if (row.begin < row.end) {
            low = std::min(low, row.begin);
            high = std::max(high, row.end);
          }
        }
      }
      attention.load_queries(rows, count, loaded, buffer);
      attention.clear(total, count);
      KeyRows keys = key_rows, values = value_rows;
      keys.head = values.head = kv_head;
      for (std::int64_t at = low / split_keys * split_keys; at < high; at += split_keys) {
        attention.clear(part, count);
        attention.split(rows, count, loaded, keys, values, at, std::min(at + split_keys, high), part,
                        scratch);
        attention.merge(total, part, count);
      }
      for (std::int64_t r = 0; r < count; ++r) attention.finish(rows[r], total, r, to);
    }
  };
  const std::int64_t jobs = kv_heads * tiles;
  if (jobs == 1 || queries * key_count * heads * head_dim < parallel_grain) {
    work_on(0, jobs, 0);
  } else {
    device.pool().parallel_for(jobs, 1, work_on);
  }
}

void run_attention_decode(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AttentionAttributes>();
  const Tensor &q = call.in(0), &k = call.in(1), &v = call.in(2), &table = call.in(6),
               &positions = call.in(7);
  const Kernels& kernels = device.kernels();
  const std::int64_t batch = q.dim(-3), heads = q.dim(-2), head_dim = q.dim(-1), value_dim = v.dim(-1);
  const std::int64_t kv_heads = k.dim(-3), group = heads / kv_heads, capacity = table.dim(-1) * k.dim(-2);
  const Tensor y = device.allocate(call.output_specs[0]);
  call.outputs[0] = y;
  if (batch == 0) return;
  const Rules rules = rules_of(attributes, head_dim);
  Attention attention(kernels, rules, head_dim, value_dim);
  attention.q = Elements(q);
  const HeadFactors factors(kernels, call, heads);
  const KeyRows key_rows = paged_rows(k, table), value_rows = paged_rows(v, table);
  const Elements to(y), from_positions(positions);

  // Jobs: each sequence and key head, cut at absolute positions. Their results wait in shared memory to be
  // merged in order.
  struct Job {
    std::int64_t sequence, kv_head, split, begin, end;
  };
  // Kept between calls; named through references, or every worker would see its own.
  thread_local std::vector<Job> kept_jobs;
  thread_local std::vector<Row> kept_rows;
  std::vector<Job>& jobs = kept_jobs;
  std::vector<Row>& rows = kept_rows;  // [sequence][head]
  jobs.clear();
  rows.assign(static_cast<std::size_t>(batch * heads), Row{});
  std::int64_t work = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t position =
        load_index(from_positions, b * (positions.shape().rank() > 0 ? positions.strides()[-1] : 1));
    const std::int64_t begin = position < 0 ? 0 : rules.first(position);
    const std::int64_t end = position < 0 ? 0 : std::min(rules.last(position, position + 1), capacity);
    for (std::int64_t head = 0; head < heads; ++head) {
      Row& row = rows[static_cast<std::size_t>(b * heads + head)];
      row.query = b * q.strides()[-3] + head * q.strides()[-2];
      row.output = (b * heads + head) * value_dim;
      row.begin = begin;
      row.end = end;
      factors.apply(row, head);
    }
    for (std::int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const std::int64_t first = begin / split_keys,
                         last = std::max(first + 1, (end + split_keys - 1) / split_keys);
      for (std::int64_t split = first; split < last; ++split) {
        jobs.push_back(
            {b, kv_head, split - first, split * split_keys, std::min((split + 1) * split_keys, end)});
      }
    }
    work += (end - begin) * heads * (head_dim + value_dim);
  }
  const std::size_t state_floats =
      static_cast<std::size_t>(round_up(group, 16) * 2 + round_up(group * attention.value_ld(), 16));
  auto* states = reinterpret_cast<float*>(device.shared_scratch(jobs.size() * state_floats * 4));
  const auto state_of = [&](std::size_t job) {
    float* p = states + job * state_floats;
    return State{p, p + round_up(group, 16), p + 2 * round_up(group, 16)};
  };
  const auto work_on = [&](std::int64_t begin, std::int64_t end, int thread) {
    const std::size_t floats = attention.scratch_floats(group);
    auto* loaded = reinterpret_cast<float*>(device.scratch(thread, floats * 4 + 256));
    float* buffer = loaded + round_up(group * head_dim, 16);
    float* scratch = buffer + 16 * head_dim;
    for (std::int64_t i = begin; i < end; ++i) {
      const Job& job = jobs[static_cast<std::size_t>(i)];
      const Row* job_rows = rows.data() + job.sequence * heads + job.kv_head * group;
      const State s = state_of(static_cast<std::size_t>(i));
      attention.clear(s, group);
      if (job.begin >= job.end) continue;
      attention.load_queries(job_rows, group, loaded, buffer);
      KeyRows keys = key_rows, values = value_rows;
      keys.head = values.head = job.kv_head;
      keys.table_element = values.table_element = job.sequence * table.strides()[-2];
      attention.split(job_rows, group, loaded, keys, values, job.begin, job.end, s, scratch);
    }
  };
  const auto count = static_cast<std::int64_t>(jobs.size());
  if (work < parallel_grain * 4) {
    work_on(0, count, 0);
  } else {
    device.pool().parallel_for(count, 1, work_on);
  }
  for (std::size_t i = 0; i < jobs.size();) {
    const State total = state_of(i);
    std::size_t next = i + 1;
    for (; next < jobs.size() && jobs[next].split != 0; ++next) attention.merge(total, state_of(next), group);
    const Row* job_rows = rows.data() + jobs[i].sequence * heads + jobs[i].kv_head * group;
    for (std::int64_t r = 0; r < group; ++r) attention.finish(job_rows[r], total, r, to);
    i = next;
  }
}

namespace {

// Writes n rows of x (element, stride) at neighbouring positions of one sequence and head.
struct CacheWriter {
  const Kernels& k;
  Elements cache{}, x{}, table{};
  std::int64_t dim, block, heads, blocks, table_width, table_stride;

  CacheWriter(const Kernels& kernels, const Tensor& c, const Tensor& values, const Tensor& t)
      : k(kernels),
        cache(c),
        x(values),
        table(t),
        dim(c.dim(-1)),
        block(c.dim(-2)),
        heads(c.dim(-3)),
        blocks(c.dim(-4)),
        table_width(t.dim(-1)),
        table_stride(t.strides()[-1]) {}

  void write(std::int64_t table_element, std::int64_t head, std::int64_t position, std::int64_t element,
             float* buffer) const {
    if (position < 0 || position / block >= table_width) return;
    const std::int64_t page = load_index(table, table_element + position / block * table_stride);
    if (page < 0 || page >= blocks)
      return;  // a page that does not exist: nothing outside the cache is touched
    const std::int64_t to = ((page * heads + head) * block + position % block) * dim;
    if (cache.dtype == x.dtype) {
      std::memcpy(cache.at(to), x.at(element), static_cast<std::size_t>(dim) * bytes_of(x.dtype));
    } else {
      load_values(k, x, element, 1, dim, buffer);
      store_values(k, buffer, cache, to, dim);
    }
  }
};

}  // namespace

void run_paged_update_cache(CpuDevice& device, OpCall& call) {
  const Tensor &cache = call.in(0), &x = call.in(1), &table = call.in(2), &positions = call.in(3);
  const CacheWriter writer(device.kernels(), cache, x, table);
  const Elements from_positions(positions);
  const std::int64_t batch = x.dim(-3);
  auto* buffer = reinterpret_cast<float*>(device.scratch(0, static_cast<std::size_t>(writer.dim + 16) * 4));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t position =
        load_index(from_positions, b * (positions.shape().rank() > 0 ? positions.strides()[-1] : 1));
    for (std::int64_t head = 0; head < writer.heads; ++head) {
      writer.write(b * table.strides()[-2], head, position, b * x.strides()[-3] + head * x.strides()[-2],
                   buffer);
    }
  }
}

void run_paged_fill_cache(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<CacheAttributes>();
  const Tensor &cache = call.in(0), &x = call.in(1), &table = call.in(2);
  const CacheWriter writer(device.kernels(), cache, x, table);
  const std::int64_t tokens = x.dim(-2);
  for_each_piece(
      device, tokens * writer.heads, writer.dim, [&](std::int64_t begin, std::int64_t end, int thread) {
        auto* buffer =
            reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(writer.dim + 16) * 4));
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t token = i / writer.heads, head = i % writer.heads;
          writer.write(attributes.page_row * table.strides()[-2], head, attributes.start + token,
                       head * x.strides()[-3] + token * x.strides()[-2], buffer);
        }
      });
}

}  // namespace ttt::inline v2::cpu
