#include "ttt/modules/paged_attention.h"

#include "modules/paged.h"

namespace ttt::inline v2 {

void fill_cache(const Tensor& cache, const Tensor& x, const Step& step) {
  if (step.decode_rows > 0)
    ops::paged_update_cache(cache, decode_rows_of(x, step), step.decode_positions, step.page_table);
  for (const SequenceRows& rows : prefill_sequences(step))
    ops::paged_fill_cache(cache, rows_of(x, rows), step.page_table, rows.page_row, rows.context);
}

Tensor cached_rows(const Tensor& cache, const Step& step, const SequenceRows& rows) {
  const std::int64_t length = rows.context + rows.count, block_size = cache.dim(2),
                     blocks = (length + block_size - 1) / block_size;
  const std::vector<std::int32_t> ids = to_host_int(
      ops::to_contiguous(step.page_table.narrow(0, rows.page_row, rows.page_row + 1).narrow(1, 0, blocks)));
  std::vector<Tensor> parts;
  for (std::int32_t id : ids) {
    const Tensor block = cache.narrow(0, id, id + 1);
    parts.push_back(is_block_float(cache.dtype()) ? ops::typecast(block, DataType::bf16) : block);
  }
  return ops::slice(parts.size() == 1 ? parts.front() : ops::concat(parts, 2), 2, 0, length);
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const KvCache& cache, const Step& step,
              const AttendOptions& o) {
  if (k) fill_cache(cache.k, k, step), fill_cache(cache.v, v, step);
  ops::AttentionOptions options{o.attributes};
  options.attention_sink = o.sinks ? &o.sinks : nullptr;
  options.alibi_slopes = o.alibi_slopes ? &o.alibi_slopes : nullptr;
  std::vector<Tensor> contexts;
  const std::int64_t together = o.mask ? 0 : step.decode_rows;
  if (together > 0) {
    options.program_config = o.decode_program;
    contexts.push_back(ops::nlp_concat_heads(
        ops::paged_scaled_dot_product_attention_decode(decode_rows_of(q, step), cache.k, cache.v,
                                                       step.page_table, step.decode_positions, options)
            .swap_axes(1, 2)));
  }
  options.program_config = o.prefill_program;
  for (auto i = static_cast<std::size_t>(together); i < step.sequences.size(); ++i) {
    const SequenceRows& rows = step.sequences[i];
    const Tensor mask = o.mask ? o.mask(rows) : Tensor();
    options.attn_mask = mask ? &mask : nullptr;
    options.chunk_start = rows.context;
    options.page_row = rows.page_row;
    contexts.push_back(ops::nlp_concat_heads(ops::chunked_scaled_dot_product_attention(
        rows_of(q, rows), cache.k, cache.v, step.page_table, options)));
  }
  return contexts.size() == 1 ? contexts.front() : ops::concat(contexts, 2);
}

}  // namespace ttt::inline v2
