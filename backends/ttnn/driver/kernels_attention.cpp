// Rotary embeddings, attention and its caches.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "kernels.h"
#include "ttt/hw/choose_kernels.h"

namespace ttt::inline v2::ttnn {

namespace {

// --- Rotary embedding

// [.., half] -> the table that TTNN's kernels take: each value beside its pair.
Ref doubled(Context& c, const Ref& table, bool interleaved) {
  const Ref t = c.to_layout(table, Layout::tile);
  if (!interleaved) return c.invoke("concat", {tuple({t, t}), number(-1)});
  const Shape s = to_shape(t.attr("shape"));
  const Ref column = c.reshape(t, {s[0], s[1], s[2], s[3], 1});
  const Ref pairs = c.invoke("concat", {tuple({column, column}), number(-1)});
  return c.typecast(c.reshape(pairs, {s[0], s[1], s[2], 2 * s[3]}), DataType::bf16);
}

void rotary_embedding(Context& c) {
  const std::int64_t width = c.op().in(0).dim(3), rotary = 2 * c.op().in(1).dim(3);
  const Shape& s = c.op().in(0).shape();
  const bool interleaved = c.as<RotaryAttributes>().interleaved;
  const auto table = [&](int i) {
    return c.form(i, interleaved ? rope_interleaved : rope_half,
                  [&](const Ref& t) { return doubled(c, t, interleaved); });
  };
  const Ref x = c.tiled(0);
  const auto columns = [&](std::int64_t begin, std::int64_t end) {
    return c.invoke("slice", {x, tuple({0, 0, 0, begin}), tuple({s[0], s[1], s[2], end})});
  };
  const Ref turning = rotary == width ? x : columns(0, rotary);
  const Ref compute = c.library().compute_kernel_config(exact);
  Ref y;
  if (interleaved) {
    y = c.invoke("experimental.rotary_embedding_llama", {turning, table(1), table(2), c.device().exchange()},
                 {{"is_decode_mode", boolean(false)}, {"compute_kernel_config", compute}});
  } else {
    y = c.invoke("experimental.rotary_embedding_hf", {turning, table(1), table(2)},
                 {{"is_decode_mode", boolean(false)}, {"compute_kernel_config", compute}});
  }
  if (rotary != width) y = c.invoke("concat", {tuple({y, columns(rotary, width)}), number(3)});
  c.result(std::move(y));
}

bool supports_rotary(const OpCall& call) {
  const std::int64_t rotary = 2 * call.in(1).dim(3);
  if (!whole_tiles(rotary) || call.in(1).shape().rank() != 4) return false;
  if (call.as<RotaryAttributes>().interleaved) return call.in(0).dtype() == DataType::bf16;
  return is_activation(call.in(0).dtype()) && (rotary == 32 || rotary % 64 == 0);
}

// --- Attention

float scale_of(const OpCall& call) {
  const float scale = call.as<AttentionAttributes>().scale;
  return scale != 0 ? scale : 1.0f / std::sqrt(static_cast<float>(call.in(0).dim(3)));
}

// TTNN scales the sinks with the scores; ours are logits already. Prefill takes [1, heads, 1, 1], decode
// [heads, 32] of which it reads the first column.
Ref sinks(Context& c, bool decode) {
  if (!c.op().has(4)) return {};
  return c.form(4, decode ? sink_decode : sink_prefill, [&](const Ref& t) {
    const std::int64_t heads = c.op().in(4).dim(3);
    const Ref scaled = c.invoke("multiply", {c.to_layout(t, Layout::tile), real(1.0 / scale_of(c.op()))});
    const Ref values = c.typecast(scaled, DataType::bf16);
    if (!decode) return c.reshape(values, {1, heads, 1, 1});
    const Ref column = c.reshape(values, {heads, 1});
    return c.invoke("pad", {column, tuple({tuple({0, 0}), tuple({0, 31})}), real(0)});
  });
}

Ref window(Context& c) {
  const std::int64_t size = c.as<AttentionAttributes>().sliding_window_size;
  return size > 0 ? number(size) : Ref();
}

bool plain_scores(const AttentionAttributes& a) { return a.softcap == 0 && a.chunk_size == 0; }
bool attends_in(DataType t) { return t == DataType::bf16 || is_block_float(t); }
bool attention_dtypes(const OpCall& call) {
  return attends_in(call.in(0).dtype()) && attends_in(call.in(1).dtype()) && attends_in(call.in(2).dtype()) &&
         whole_tiles(call.in(0).dim(3)) && call.in(1).dim(3) == call.in(2).dim(3);
}

// A kernel of attention with what every one of them takes beside its own arguments.
void attend(Context& c, std::string_view function, std::initializer_list<Ref> arguments,
            std::initializer_list<Keyword> own, const Ref& program) {
  const auto& a = c.as<AttentionAttributes>();
  std::vector<Keyword> keywords(own);
  keywords.push_back({"scale", real(scale_of(c.op()))});
  keywords.push_back({"program_config", program});
  keywords.push_back({"compute_kernel_config", c.library().compute_kernel_config(a.compute_kernel_config)});
  keywords.push_back({"memory_config", c.memory()});
  c.result(call(c.library().function(function), arguments, std::span<const Keyword>(keywords)));
}

void attention(Context& c) {
  const auto& a = c.as<AttentionAttributes>();
  const Ref mask = c.op().has(3) ? c.typecast(c.tiled(3), DataType::bf16) : Ref();
  attend(c, "transformer.scaled_dot_product_attention", {c.tiled(0), c.tiled(1), c.tiled(2)},
         {{"attn_mask", mask},
          {"is_causal", boolean(a.is_causal)},
          {"sliding_window_size", window(c)},
          {"attention_sink", sinks(c, false)}},
         c.library().sdpa_program_config(a.program_config));
}

bool supports_attention_op(const OpCall& call) {
  const auto& a = call.as<AttentionAttributes>();
  const bool square = call.in(0).dim(2) == call.in(1).dim(2);
  // TTNN's causal kernel takes no mask.
  const bool masks = a.is_causal ? square && !call.has(3) : a.sliding_window_size == 0;
  return plain_scores(a) && !call.has(5) && attention_dtypes(call) && masks;
}

// Rows [first, last) of a page table, as its kernels take it: they want exactly the rows of their users.
Ref page_rows(Context& c, const Tensor& pages, std::int64_t first, std::int64_t last) {
  return c.typecast(c.to_layout(c.device().materialise(pages.narrow(0, first, last)), Layout::row_major),
                    DataType::i32);
}

Ref positions(Context& c, int i) { return c.typecast(c.row_major(i), DataType::i32); }

Ref chunked_program(Context& c) {
  const auto& a = c.as<AttentionAttributes>();
  const SDPAProgramConfig program = a.program_config == SDPAProgramConfig{}
                                        ? SDPAProgramConfig{c.device().grid(), 64, 64, false}
                                        : a.program_config;
  return c.library().sdpa_program_config(hw::chunks_at(program, a.chunk_start));
}

void chunked_attention(Context& c) {
  const auto& a = c.as<AttentionAttributes>();
  const Ref table = page_rows(c, c.op().in(6), a.page_row, a.page_row + 1);
  // Queries and caches by name: the signature has no other way to pass the options.
  attend(c, "transformer.chunked_scaled_dot_product_attention", {},
         {{"input_tensor_q", c.tiled(0)},
          {"input_tensor_k", c.tiled(1)},
          {"input_tensor_v", c.tiled(2)},
          {"page_table_tensor", table},
          {"chunk_start_idx", number(a.chunk_start)},
          {"sliding_window_size", window(c)},
          {"attention_sink", sinks(c, false)}},
         chunked_program(c));
}

void chunked_latent_attention(Context& c) {
  const auto& a = c.as<AttentionAttributes>();
  attend(c, "transformer.chunked_flash_mla_prefill",
         {c.tiled(0), c.tiled(1), number(a.head_dim_v),
          page_rows(c, c.op().in(6), a.page_row, a.page_row + 1), number(a.chunk_start)},
         {}, chunked_program(c));
}

void paged_latent_decode(Context& c) {
  const auto& a = c.as<AttentionAttributes>();
  attend(c, "transformer.paged_flash_multi_latent_attention_decode", {c.tiled(0), c.tiled(1)},
         {{"head_dim_v", number(a.head_dim_v)},
          {"page_table_tensor", page_rows(c, c.op().in(6), 0, c.op().in(0).dim(1))},
          {"cur_pos_tensor", positions(c, 7)},
          {"sliding_window_size", window(c)},
          {"attention_sink", sinks(c, true)}},
         c.library().sdpa_program_config(a.program_config));
}

bool paged(const OpCall& call) {
  return plain_scores(call.as<AttentionAttributes>()) && !call.has(5) && attention_dtypes(call) &&
         whole_tiles(call.in(1).dim(2));
}

void paged_decode(Context& c) {
  const auto& a = c.as<AttentionAttributes>();
  attend(c, "transformer.paged_scaled_dot_product_attention_decode",
         {c.tiled(0), c.tiled(1), c.tiled(2), page_rows(c, c.op().in(6), 0, c.op().in(0).dim(1))},
         {{"cur_pos_tensor", positions(c, 7)},
          {"sliding_window_size", window(c)},
          {"attention_sink", sinks(c, true)}},
         c.library().sdpa_program_config(a.program_config));
}

bool paged_latent(const OpCall& call) {
  const auto& a = call.as<AttentionAttributes>();
  return plain_scores(a) && !call.has(5) && attends_in(call.in(0).dtype()) &&
         attends_in(call.in(1).dtype()) && whole_tiles(call.in(0).dim(3)) && whole_tiles(a.head_dim_v) &&
         whole_tiles(call.in(1).dim(2));
}
// The prefill kernel knows neither windows nor sinks.
bool chunked_latent(const OpCall& call) {
  const auto& a = call.as<AttentionAttributes>();
  return paged_latent(call) && a.sliding_window_size == 0 && !call.has(4) && whole_tiles(a.chunk_start);
}

// --- Caches

// One user per core: TTNN's update takes its input so.
Ref one_per_core(Context& c, const Ref& x, std::int64_t users, std::int64_t heads, std::int64_t width) {
  Library& lib = c.library();
  const CoreCoord grid = c.device().grid();
  const Ref cores = c.invoke(
      "num_cores_to_corerangeset",
      {number(users), call(lib.member("CoreCoord"), {number(grid.x), number(grid.y)}), boolean(true)});
  const auto padded = [](std::int64_t n) { return (n + 31) / 32 * 32; };
  const Ref shard =
      call(lib.member("ShardSpec"), {cores, tuple({number(padded(heads)), number(padded(width))}),
                                     lib.member("ShardOrientation.ROW_MAJOR")});
  return c.invoke("to_memory_config",
                  {x, call(lib.member("MemoryConfig"), {lib.member("TensorMemoryLayout.HEIGHT_SHARDED"),
                                                        lib.member("BufferType.L1"), shard})});
}

// x [1, users, heads, width], positions [users], pages [users, width], in groups that fit the grid.
void update(Context& c, const Ref& cache, const Ref& x, const Ref& positions, const Ref& pages) {
  const Shape s = to_shape(x.attr("shape"));
  const std::int64_t users = s[1], table_width = to_shape(pages.attr("shape"))[1];
  const std::int64_t most = std::int64_t{c.device().grid().x} * c.device().grid().y;
  for (std::int64_t first = 0; first < users; first += most) {
    const std::int64_t count = std::min(most, users - first);
    const bool all = count == users;
    const auto part = [&](const Ref& t, const Ref& begin, const Ref& end) {
      return all ? t : c.invoke("slice", {t, begin, end});
    };
    const Ref rows = part(x, tuple({0, first, 0, 0}), tuple({1, first + count, s[2], s[3]}));
    c.invoke("experimental.paged_update_cache", {cache, one_per_core(c, rows, count, s[2], s[3])},
             {{"update_idxs_tensor", part(positions, tuple(Shape{first}), tuple(Shape{first + count}))},
              {"page_table", part(pages, tuple(Shape{first, 0}), tuple(Shape{first + count, table_width}))}});
  }
}

// The cache itself: it is written in place, so it must be no copy.
Ref whole_cache(Context& c) {
  const Tensor& cache = c.op().in(0);
  auto& buffer = static_cast<TtnnBuffer&>(cache.buffer());
  if (!(cache.shape() == buffer.whole().shape)) throw Error("a part of a cache cannot be updated in place");
  return buffer.tensor();
}

// Blocks of one position are rows of recurrent state, for which TTNN has no kernel: the rows around the new
// one are joined with it. Which row it is the processor knows (TtnnBuffer::sent).
void update_rows(Context& c) {
  if (c.device().recording())
    throw Error("rows that are joined make a new tensor, which no trace can follow");
  const Tensor &cache = c.op().in(0), &pages = c.op().in(2);
  const std::vector<std::int32_t> rows = to_host_int(pages), positions = to_host_int(c.op().in(3));
  auto& buffer = static_cast<TtnnBuffer&>(cache.buffer());
  const Shape whole = buffer.whole().shape;
  if (cache.shape().elements() != whole.elements())
    throw Error("a part of a cache cannot be updated in place");
  const std::int64_t width = cache.dim(3), last = cache.dim(0);
  const Ref x = c.typecast(c.tiled(1), cache.dtype());
  for (std::size_t user = 0; user < positions.size(); ++user) {
    if (positions[user] < 0) continue;
    const std::int64_t row = rows[user * static_cast<std::size_t>(pages.dim(1))];
    const Ref state = c.reshape(buffer.tensor(), {last, width});
    const auto part = [&](const Ref& t, std::int64_t begin, std::int64_t end) {
      return c.invoke("slice", {t, tuple(Shape{begin, 0}), tuple(Shape{end, width})});
    };
    std::vector<Ref> parts;
    if (row > 0) parts.push_back(part(state, 0, row));
    const auto at = static_cast<std::int64_t>(user);
    parts.push_back(part(c.reshape(x, {c.op().in(1).dim(1), width}), at, at + 1));
    if (row + 1 < last) parts.push_back(part(state, row + 1, last));
    const Ref joined = parts.size() == 1 ? parts.front() : c.invoke("concat", {tuple(parts), number(0)});
    buffer.set(c.reshape(joined, whole));
  }
}

void update_cache(Context& c) {
  if (c.op().in(0).dim(2) == 1) return update_rows(c);
  Ref x = c.tiled(1);
  if (is_block_float(c.op().in(1).dtype())) x = c.typecast(std::move(x), DataType::bf16);
  update(c, whole_cache(c), x, positions(c, 3), page_rows(c, c.op().in(2), 0, c.op().in(1).dim(1)));
}

void fill_cache(Context& c) {
  const Tensor &cache = c.op().in(0), &x = c.op().in(1), &pages = c.op().in(2);
  const auto& a = c.as<CacheAttributes>();
  const std::int64_t block = cache.dim(2), tokens = x.dim(2), row = a.page_row;
  if (a.start % block == 0) {
    // Whole blocks from the row's entry for `start` on.
    const Ref table = page_rows(c, pages.narrow(1, a.start / block, pages.dim(1)), row, row + 1);
    c.invoke("experimental.paged_fill_cache", {whole_cache(c), c.typecast(c.tiled(1), cache.dtype()), table},
             {{"batch_idx", number(0)}});
    return;
  }
  // Into the middle of a block: token by token, each as if it were a user of its own.
  std::vector<std::int32_t> at(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < at.size(); ++i)
    at[i] = static_cast<std::int32_t>(a.start + static_cast<std::int64_t>(i));
  const TensorSpec spec{.shape = {tokens}, .dtype = DataType::i32, .layout = Layout::row_major};
  const Ref tables = c.invoke("repeat", {page_rows(c, pages, row, row + 1), tuple(Shape{tokens, 1})});
  Ref users = c.invoke("permute", {c.tiled(1), tuple(Shape{0, 2, 1, 3})});
  if (is_block_float(x.dtype())) users = c.typecast(std::move(users), DataType::bf16);
  update(c, whole_cache(c), users, c.device().upload(at.data(), spec), tables);
}

// --- Heads

void create_heads(Context& c) {
  const auto& a = c.as<HeadsAttributes>();
  const Ref heads = c.invoke("experimental.nlp_create_qkv_heads", {c.tiled(0)},
                             {{"num_heads", number(a.num_heads)},
                              {"num_kv_heads", number(a.num_kv_heads)},
                              {"transpose_k_heads", boolean(false)},
                              {"memory_config", c.memory()}});
  for (int i = 0; i < 3; ++i) c.result(Ref::steal(PySequence_GetItem(heads.get(), i)), i);
}

void concat_heads(Context& c) {
  c.result(c.invoke("experimental.nlp_concat_heads", {c.tiled(0)}, {{"memory_config", c.memory()}}));
}

}  // namespace

bool supports_attention(const OpCall& call) {
  switch (call.op) {
    case OpKind::rotary_embedding:
      return supports_rotary(call);
    case OpKind::scaled_dot_product_attention:
      return supports_attention_op(call);
    case OpKind::chunked_scaled_dot_product_attention:
      return paged(call) && whole_tiles(call.as<AttentionAttributes>().chunk_start);
    case OpKind::paged_scaled_dot_product_attention_decode:
      return paged(call);
    case OpKind::chunked_flash_mla_prefill:
      return chunked_latent(call);
    case OpKind::paged_flash_multi_latent_attention_decode:
      return paged_latent(call);
    case OpKind::paged_update_cache:
      if (call.in(0).dim(1) == 1 && call.in(0).dim(2) == 1) return true;
      [[fallthrough]];
    case OpKind::paged_fill_cache:
      return whole_tiles(call.in(0).dim(2));
    case OpKind::nlp_create_qkv_heads: {
      const auto& a = call.as<HeadsAttributes>();
      return call.outputs_count == 3 && whole_tiles(a.head_dim) && a.v_head_dim == a.head_dim &&
             is_activation(call.in(0).dtype());
    }
    case OpKind::nlp_concat_heads:
      return whole_tiles(call.in(0).dim(3)) && call.in(0).dim(0) == 1 && is_float(call.in(0).dtype()) &&
             hw::concat_heads_fits(call.in(0).dim(1), call.in(0).dim(3), call.in(0).dtype());
    default:
      return false;
  }
}

void run_attention(Context& c) {
  switch (c.op().op) {
    case OpKind::rotary_embedding:
      return rotary_embedding(c);
    case OpKind::scaled_dot_product_attention:
      return attention(c);
    case OpKind::chunked_scaled_dot_product_attention:
      return chunked_attention(c);
    case OpKind::paged_scaled_dot_product_attention_decode:
      return paged_decode(c);
    case OpKind::chunked_flash_mla_prefill:
      return chunked_latent_attention(c);
    case OpKind::paged_flash_multi_latent_attention_decode:
      return paged_latent_decode(c);
    case OpKind::paged_update_cache:
      return update_cache(c);
    case OpKind::paged_fill_cache:
      return fill_cache(c);
    case OpKind::nlp_create_qkv_heads:
      return create_heads(c);
    default:
      return concat_heads(c);
  }
}

}  // namespace ttt::inline v2::ttnn
