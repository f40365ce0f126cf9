// Which rows of queries meet which keys, and on which thread (attention.h has the arithmetic); the caches.
#include "attention.h"

namespace ttt::inline v2::cpu {

void run_attention(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<AttentionAttributes>();
  const bool paged = call.op != OpKind::scaled_dot_product_attention;
  const Tensor &q = call.in(0), &k = call.in(1);
  const Kernels& kernels = device.kernels();
  const std::int64_t heads = q.dim(-3), queries = q.dim(-2), head_dim = q.dim(-1),
                     value_dim = call.output_specs[0].shape[-1];
  const std::int64_t kv_heads = k.dim(-3), group = heads / kv_heads;
  const Tensor y = device.allocate_token_major(call.output_specs[0]);
  call.outputs[0] = y;
  if (queries == 0) return;

  const std::int64_t key_count = paged ? attributes.chunk_start + queries : k.dim(-2);
  const std::int64_t first_position = key_count - queries;
  Attention attention(kernels, rules_of(attributes, head_dim), head_dim, value_dim, Elements(q), k.dtype());
  const VisibleKeys rules = rules_of(attributes, head_dim);
  const HeadFactors factors(kernels, call, heads);
  const Tensor* mask = call.has(3) ? &call.in(3) : nullptr;
  if (mask != nullptr) {
    attention.mask = Elements(*mask);
    attention.mask_stride = mask->dim(-1) == 1 ? 0 : mask->strides()[-1];
  }
  KeyRows key_rows, value_rows;  // without operand 2 the keys' first columns are the values
  if (paged) {
    key_rows = paged_rows(k, call.in(6));
    if (call.has(2)) value_rows = paged_rows(call.in(2), call.in(6));
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
    value_rows = dense(call.in(2));
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
        device.scratch(thread, floats * 4 + static_cast<std::size_t>(most) * sizeof(QueryRow) + 128);
    auto* rows = reinterpret_cast<QueryRow*>(memory);
    float* next = reinterpret_cast<float*>(
        memory + Attention::align(static_cast<std::size_t>(most) * sizeof(QueryRow)));
    const auto take = [&](std::int64_t n) {
      float* p = next;
      next += round_up(n, 16);
      return p;
    };
    const auto state = [&] {
      return SoftmaxState{take(most), take(most), take(most * attention.value_ld())};
    };
    const SoftmaxState total = state(), part = state();
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
          QueryRow& row = rows[t * group + g];
          row = QueryRow{};
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
      KeyRange range{key_rows, value_rows};
      range.keys.head = range.values.head = kv_head;
      const std::int64_t first_key = low / split_keys * split_keys;
      for (std::int64_t at = first_key; at < high; at += split_keys) {
        range.begin = at;
        range.end = std::min(at + split_keys, high);
        const SoftmaxState& s = at == first_key ? total : part;
        if (at != first_key) attention.clear(part, count);
        attention.split(rows, count, loaded, range, nullptr, s, scratch);
        if (at != first_key) attention.merge(total, part, count);
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
  const Tensor &q = call.in(0), &k = call.in(1), &table = call.in(6), &positions = call.in(7);
  const Kernels& kernels = device.kernels();
  const std::int64_t batch = q.dim(-3), heads = q.dim(-2), head_dim = q.dim(-1),
                     value_dim = call.output_specs[0].shape[-1];
  const std::int64_t kv_heads = k.dim(-3), group = heads / kv_heads, capacity = table.dim(-1) * k.dim(-2);
  const Tensor y = device.allocate(call.output_specs[0]);
  call.outputs[0] = y;
  if (batch == 0) return;
  const VisibleKeys rules = rules_of(attributes, head_dim);
  Attention attention(kernels, rules, head_dim, value_dim, Elements(q), k.dtype());
  const HeadFactors factors(kernels, call, heads);
  const KeyRows key_rows = paged_rows(k, table),
                value_rows = call.has(2) ? paged_rows(call.in(2), table) : KeyRows{};
  const Elements to(y), from_positions(positions);

  // Where few key heads serve many queries, those of one are cut until every thread has some.
  std::int64_t tile = group;
  while (tile > 32 && batch * kv_heads * (group / tile) < device.pool().size()) tile = (tile + 1) / 2;

  // Jobs: some query heads of each sequence and key head, cut at absolute positions. Results of several
  // splits wait in shared memory to be merged in order.
  struct Job {
    std::int64_t sequence, kv_head, row, count, splits, begin, end;
  };
  // Kept between calls; named through references, or every worker would see its own.
  thread_local std::vector<Job> kept_jobs;
  thread_local std::vector<QueryRow> kept_rows;
  std::vector<Job>& jobs = kept_jobs;
  std::vector<QueryRow>& rows = kept_rows;  // [sequence][head]
  jobs.clear();
  rows.assign(static_cast<std::size_t>(batch * heads), QueryRow{});
  std::int64_t work = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t position =
        load_index(from_positions, b * (positions.shape().rank() > 0 ? positions.strides()[-1] : 1));
    const std::int64_t begin = position < 0 ? 0 : rules.first(position);
    const std::int64_t end = position < 0 ? 0 : std::min(rules.last(position, position + 1), capacity);
    for (std::int64_t head = 0; head < heads; ++head) {
      QueryRow& row = rows[static_cast<std::size_t>(b * heads + head)];
      row.query = b * q.strides()[-3] + head * q.strides()[-2];
      row.output = (b * heads + head) * value_dim;
      row.begin = begin;
      row.end = end;
      factors.apply(row, head);
    }
    const std::int64_t first = begin / split_keys,
                       last = std::max(first + 1, (end + split_keys - 1) / split_keys);
    for (std::int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      for (std::int64_t head = 0; head < group; head += tile) {
        const std::int64_t row = b * heads + kv_head * group + head, count = std::min(tile, group - head);
        for (std::int64_t split = first; split < last; ++split) {
          jobs.push_back({b, kv_head, row, count, last - first, std::max(split * split_keys, begin),
                          std::min((split + 1) * split_keys, end)});
        }
      }
    }
    work += (end - begin) * heads * (head_dim + value_dim);
  }
  const auto state_floats =
      static_cast<std::size_t>(round_up(tile, 16) * 2 + round_up(tile * attention.value_ld(), 16));
  const auto state_at = [&](float* p) {
    return SoftmaxState{p, p + round_up(tile, 16), p + 2 * round_up(tile, 16)};
  };
  auto* states = reinterpret_cast<float*>(device.shared_scratch(jobs.size() * state_floats * 4));
  const auto state_of = [&](std::size_t job) { return state_at(states + job * state_floats); };
  const auto range_of = [&](const Job& job) {
    KeyRange range{key_rows, value_rows, job.begin, job.end};
    range.keys.head = range.values.head = job.kv_head;
    range.keys.table_element = range.values.table_element = job.sequence * table.strides()[-2];
    return range;
  };
  const auto work_on = [&](std::int64_t begin, std::int64_t end, int thread) {
    const std::size_t floats = attention.scratch_floats(tile) + state_floats;
    auto* loaded = reinterpret_cast<float*>(device.scratch(thread, floats * 4 + 256));
    float* buffer = loaded + round_up(tile * head_dim, 16);
    float* own_state = buffer + 16 * head_dim;
    float* scratch = own_state + state_floats;
    KeyRange range = range_of(jobs[static_cast<std::size_t>(begin)]), next;
    Ahead(range, range.begin, 1).rest();
    for (std::int64_t i = begin; i < end; ++i, range = next) {
      const Job& job = jobs[static_cast<std::size_t>(i)];
      const QueryRow* job_rows = rows.data() + job.row;
      if (i + 1 < end) next = range_of(jobs[static_cast<std::size_t>(i + 1)]);
      const SoftmaxState s = job.splits > 1 ? state_of(static_cast<std::size_t>(i)) : state_at(own_state);
      attention.clear(s, job.count);
      if (job.begin < job.end) {
        attention.load_queries(job_rows, job.count, loaded, buffer);
        attention.split(job_rows, job.count, loaded, range, i + 1 < end ? &next : nullptr, s, scratch);
      }
      for (std::int64_t r = 0; job.splits == 1 && r < job.count; ++r) attention.finish(job_rows[r], s, r, to);
    }
  };
  const auto count = static_cast<std::int64_t>(jobs.size());
  if (work < parallel_grain * 4) {
    work_on(0, count, 0);
  } else {  // some jobs in a row, so that a thread knows what it needs next
    device.pool().parallel_for(count, std::max<std::int64_t>(1, count / (device.pool().size() * 8)), work_on);
  }
  for (std::size_t i = 0; i < jobs.size(); i += static_cast<std::size_t>(jobs[i].splits)) {
    const Job& job = jobs[i];
    if (job.splits == 1) continue;
    const SoftmaxState total = state_of(i);
    for (std::int64_t split = 1; split < job.splits; ++split)
      attention.merge(total, state_of(i + static_cast<std::size_t>(split)), job.count);
    for (std::int64_t r = 0; r < job.count; ++r)
      attention.finish(rows[static_cast<std::size_t>(job.row + r)], total, r, to);
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
