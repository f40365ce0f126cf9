// Attention to chosen keys, and the scores that they are chosen by.
#include "attention.h"

namespace ttt::inline v2::cpu {

namespace {

// Where row t of a call stands: its position (-1: nowhere) and the element of the page table where its
// sequence's pages begin.
struct Place {
  std::int64_t position = -1, table_element = 0;
};

class Places {
 public:
  explicit Places(const OpCall& call)
      : table_(call.in(6)),
        positions_(call.in(7)),
        rows_(call.in(8)),
        position_stride_(call.in(7).strides()[-1]),
        row_stride_(call.in(8).strides()[-1]),
        capacity_(call.in(6).dim(-1) * call.in(1).dim(-2)) {}

  Place operator()(std::int64_t t) const {
    const std::int64_t row = load_index(rows_, t * row_stride_);
    if (row < 0 || row >= table_.dim(-2)) return {};
    return {std::min(load_index(positions_, t * position_stride_), capacity_ - 1),
            row * table_.strides()[-2]};
  }

 private:
  const Tensor& table_;
  Elements positions_, rows_;
  std::int64_t position_stride_, row_stride_, capacity_;
};

}  // namespace

void run_sparse_sdpa(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AttentionAttributes>();
  const Tensor &q = call.in(0), &cache = call.in(1), &indices = call.in(2);
  const Kernels& kernels = device.kernels();
  const std::int64_t heads = q.dim(-3), tokens = q.dim(-2), head_dim = q.dim(-1), chosen = indices.dim(-1);
  const Tensor y = device.allocate_token_major(call.output_specs[0]);
  call.outputs[0] = y;
  if (tokens == 0) return;
  Attention attention(kernels, rules_of(attributes, head_dim), head_dim, attributes.head_dim_v, Elements(q),
                      cache.dtype());
  const HeadFactors factors(kernels, call, heads);
  const KeyRows all_keys = paged_rows(cache, call.in(6));
  const Places places(call);
  const Elements from_indices(indices), to(y);

  // Jobs: some heads of a token.
  std::int64_t tile = std::min<std::int64_t>(heads, 96);
  while (tile > 32 && tokens * (heads / tile) < device.pool().size()) tile = (tile + 1) / 2;
  const std::int64_t tiles = (heads + tile - 1) / tile;
  const auto work_on = [&](std::int64_t begin, std::int64_t end, int thread) {
    thread_local std::vector<std::int32_t> kept_keys;
    std::vector<std::int32_t>& keys = kept_keys;
    const std::size_t floats = attention.scratch_floats(tile) + attention.state_floats(tile);
    std::byte* memory =
        device.scratch(thread, floats * 4 + static_cast<std::size_t>(tile) * sizeof(QueryRow) + 512);
    auto* rows = reinterpret_cast<QueryRow*>(memory);
    auto* next = reinterpret_cast<float*>(
        memory + Attention::align(static_cast<std::size_t>(tile) * sizeof(QueryRow)));
    const auto take = [&](std::int64_t n) {
      float* p = next;
      next += round_up(n, 16);
      return p;
    };
    const auto state = [&] {
      return SoftmaxState{take(tile), take(tile), take(tile * attention.value_ld())};
    };
    const SoftmaxState total = state(), part = state();
    float* loaded = take(tile * head_dim);
    float* buffer = take(16 * head_dim);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t token = i / tiles, first = i % tiles * tile, count = std::min(tile, heads - first);
      const Place place = places(token);
      // In ascending order, so that a row which has chosen every key it sees gets dense attention to the bit.
      keys.clear();
      for (std::int64_t j = 0; j < chosen; ++j) {
        const std::int64_t key =
            load_index(from_indices, token * indices.strides()[-2] + j * indices.strides()[-1]);
        if (key >= 0 && key <= place.position) keys.push_back(static_cast<std::int32_t>(key));
      }
      std::sort(keys.begin(), keys.end());
      const auto n = static_cast<std::int64_t>(keys.size());
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t head = first + r;
        rows[r] = QueryRow{};
        rows[r].query = head * q.strides()[-3] + token * q.strides()[-2];
        rows[r].output = head * y.strides()[-3] + token * y.strides()[-2];
        rows[r].end = n;
        factors.apply(rows[r], head);
      }
      attention.load_queries(rows, count, loaded, buffer);
      attention.clear(total, count);
      KeyRange range{.keys = all_keys};
      range.keys.table_element = place.table_element;
      range.keys.chosen = keys.data();
      for (std::int64_t at = 0; at < n; at += split_keys) {
        range.begin = at;
        range.end = std::min(at + split_keys, n);
        attention.clear(part, count);
        attention.split(rows, count, loaded, range, nullptr, part, next);
        attention.merge(total, part, count);
      }
      for (std::int64_t r = 0; r < count; ++r) attention.finish(rows[r], total, r, to);
    }
  };
  const std::int64_t jobs = tokens * tiles;
  if (jobs == 1 || tokens * heads * chosen * head_dim < parallel_grain) {
    work_on(0, jobs, 0);
  } else {
    device.pool().parallel_for(jobs, 1, work_on);
  }
}

// Jobs are neighbouring rows of one sequence against all their keys: a block of keys is loaded once for them.
void run_indexer_score_dsa(CpuDevice& device, OpCall& call) {
  const Tensor &q = call.in(0), &cache = call.in(1), &weights = call.in(2);
  const Kernels& k = device.kernels();
  const std::int64_t heads = q.dim(-3), tokens = q.dim(-2), head_dim = q.dim(-1);
  const std::int64_t keys = call.output_specs[0].shape[-1];
  const Tensor y = device.allocate(call.output_specs[0]);
  call.outputs[0] = y;
  if (tokens == 0) return;
  const Elements from(q), from_weights(weights);
  const KeyRows all_keys = paged_rows(cache, call.in(6));
  const Places places(call);
  auto* scores = reinterpret_cast<float*>(Elements(y).at(0));
  const std::int64_t blocks = (keys + key_block - 1) / key_block;

  struct Job {
    std::int64_t first, count, begin, end;  // tokens; blocks of keys
  };
  std::vector<Job> jobs;
  const std::int64_t most = std::clamp<std::int64_t>(96 / heads, 1, tokens);
  for (std::int64_t t = 0; t < tokens;) {
    std::int64_t count = 1;
    while (count < most && t + count < tokens && places(t + count).table_element == places(t).table_element)
      ++count;
    for (std::int64_t at = 0; at < blocks; at += 32)
      jobs.push_back({t, count, at, std::min<std::int64_t>(at + 32, blocks)});
    t += count;
  }
  const auto work_on = [&](std::int64_t begin, std::int64_t end, int thread) {
    auto* raw = reinterpret_cast<float*>(
        device.scratch(thread, static_cast<std::size_t>(2 * key_block * head_dim + most * heads * head_dim +
                                                        16 * head_dim + 16 * key_block + heads + 64) *
                                   4));
    float* transposed = raw + key_block * head_dim;
    float* queries = transposed + key_block * head_dim;
    float* buffer = queries + round_up(most * heads * head_dim, 16) + 16;
    float* products = buffer + 16 * head_dim;
    float* w = products + 16 * key_block;
    for (std::int64_t i = begin; i < end; ++i) {
      const Job& job = jobs[static_cast<std::size_t>(i)];
      // The heads of a token in blocks of k.gemm_rows, as the products read them.
      for (std::int64_t t = 0; t < job.count; ++t) {
        for (std::int64_t h = 0; h < heads; h += k.gemm_rows) {
          const std::int64_t n = std::min<std::int64_t>(k.gemm_rows, heads - h);
          for (std::int64_t r = 0; r < n; ++r)
            load_values(k, from, (h + r) * q.strides()[-3] + (job.first + t) * q.strides()[-2], 1, head_dim,
                        buffer + r * head_dim);
          k.interleave(buffer, head_dim, queries + (t * heads + h) * head_dim, n, head_dim);
        }
      }
      std::int64_t last = -1;  // position of the latest of these rows
      for (std::int64_t t = 0; t < job.count; ++t) last = std::max(last, places(job.first + t).position);
      KeyRows key_rows = all_keys;
      key_rows.table_element = places(job.first).table_element;
      for (std::int64_t block = job.begin; block < job.end; ++block) {
        const std::int64_t at = block * key_block, width = std::min<std::int64_t>(key_block, keys - at);
        const std::int64_t n = std::clamp<std::int64_t>(last + 1 - at, 0, width);
        if (n > 0) {
          key_rows.load(k, at, n, raw, head_dim);
          if (n < key_block) std::memset(transposed, 0, static_cast<std::size_t>(key_block * head_dim) * 4);
          k.transpose(raw, head_dim, transposed, key_block, n, head_dim);
        }
        for (std::int64_t t = 0; t < job.count; ++t) {
          const std::int64_t token = job.first + t;
          float* row = scores + token * keys + at;
          const std::int64_t seen = std::clamp<std::int64_t>(places(token).position + 1 - at, 0, n);
          std::fill_n(row, seen, 0.0f);
          std::fill(row + seen, row + width, minus_infinity);
          if (seen == 0) continue;
          load_values(k, from_weights, token * weights.strides()[-2], weights.strides()[-1], heads, w);
          for (std::int64_t h = 0; h < heads; h += k.gemm_rows) {
            const std::int64_t m = std::min<std::int64_t>(k.gemm_rows, heads - h);
            for (int half = 0; half < key_block; half += panel_width) {
              k.gemm(static_cast<int>(m), queries + (t * heads + h) * head_dim, transposed + half, key_block,
                     head_dim, products + half, key_block, false);
            }
            for (std::int64_t r = 0; r < m; ++r) {
              const float* product = products + r * key_block;
              for (std::int64_t j = 0; j < seen; ++j) row[j] += w[h + r] * std::max(product[j], 0.0f);
            }
          }
        }
      }
    }
  };
  const auto count = static_cast<std::int64_t>(jobs.size());
  if (count == 1 || tokens * keys * heads * head_dim < parallel_grain) {
    work_on(0, count, 0);
  } else {
    device.pool().parallel_for(count, 1, work_on);
  }
}

}  // namespace ttt::inline v2::cpu
