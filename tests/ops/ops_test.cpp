// What ops.h refuses, what it decides before a backend runs, and what watches it.
#include "ttt/ops/ops.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "ops/reference_backend.h"
#include "ttt/debug/check.h"
#include "ttt/perf/zone.h"

namespace ttt {
namespace {

template <class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "no error";
}

class Ops : public testing::Test {
 protected:
  ReferenceBackend device;
  Tensor f(const Shape& shape, DataType dtype = DataType::f32) {
    return device.allocate({.shape = shape, .dtype = dtype});
  }
  Tensor i(const Shape& shape) { return f(shape, DataType::i32); }
};

TEST_F(Ops, EveryKindHasItsOwnName) {
  std::set<std::string_view> names;
  for (int k = 0; k < static_cast<int>(OpKind::count_); ++k)
    EXPECT_TRUE(names.insert(name(static_cast<OpKind>(k))).second);
  EXPECT_EQ(names.count("invalid"), 0u);
  for (int k = 0; k <= static_cast<int>(UnaryOp::expm1); ++k)
    EXPECT_NE(name(static_cast<UnaryOp>(k)), "invalid");
  EXPECT_EQ(name(UnaryOp::expm1), "expm1");
  EXPECT_EQ(name(UnaryOp::gelu_tanh), "gelu_tanh");
  EXPECT_EQ(name(BinaryOp::ge), "ge");
  EXPECT_EQ(name(ReduceOp::prod), "prod");
  EXPECT_EQ(name(OpKind::all_reduce), "all_reduce");
}

TEST_F(Ops, Linear) {
  const Tensor bias = f({1, 1, 1, 8}), wrong = f({1, 1, 1, 7});
  EXPECT_EQ(message([&] {
              ops::linear(f({1, 1, 2, 5}), f({1, 1, 4, 8}));
            }),
            "[linear] x has the shape [1, 1, 2, 5], w takes 4 columns");
  EXPECT_EQ(message([&] {
              ops::linear(f({1, 1, 2, 4}), f({1, 2, 4, 8}));
            }),
            "[linear] w has the shape [1, 2, 4, 8], not [1, 1, in, out]");
  EXPECT_EQ(message([&] {
              ops::linear(f({1, 1, 2, 4}), f({1, 1, 4, 8}), {.bias = &wrong});
            }),
            "[linear] bias has the shape [1, 1, 1, 7], not [1, 1, 1, 8]");
  EXPECT_EQ(message([&] { ops::linear(Tensor(), f({1, 1, 4, 8})); }), "[linear] x is an undefined tensor");
  EXPECT_EQ(message([&] {
              ops::linear(f({1, 1, 2, 4}), i({1, 1, 4, 8}));
            }),
            "[linear] w is [1, 1, 4, 8] i32, not floating-point");
  const Tensor y = ops::linear(f({2, 3, 4}, DataType::bf16), f({1, 1, 4, 8}),
                               {.bias = &bias, .memory_config = {.buffer_type = BufferType::l1}});
  EXPECT_EQ(
      y.spec(),
      (TensorSpec{{2, 3, 8}, DataType::bf16, Layout::tile, MemoryConfig{}}));  // the fallback's own placement
  EXPECT_EQ(ops::linear(f({1, 4}), f({1, 1, 4, 8}), {.dtype = DataType::bf16}).dtype(), DataType::bf16);
}

TEST_F(Ops, OperandsOnTwoDevices) {
  ReferenceBackend other;
  const Tensor w = other.allocate({.shape = {1, 1, 4, 8}, .dtype = DataType::f32});
  EXPECT_EQ(message([&] {
              ops::linear(f({1, 1, 2, 4}), w);
            }),
            "[linear] operands on two devices, reference and reference");
}

TEST_F(Ops, Matmul) {
  EXPECT_EQ(message([&] {
              ops::matmul(f({2, 3}), f({4, 5}));
            }),
            "[matmul] a [2, 3] has 3 columns, b [4, 5] has 4 rows");
  EXPECT_EQ(message([&] {
              ops::matmul(f({2, 3}), f({3, 5}), {.transpose_b = true});
            }),
            "[matmul] a [2, 3] has 3 columns, b [3, 5] transposed has 5 rows");
  EXPECT_EQ(message([&] {
              ops::matmul(f({2, 2, 3}), f({3, 3, 5}));
            }),
            "[matmul] the shapes [2, 2, 3] and [3, 3, 5] do not fit together");
  EXPECT_EQ(message([&] {
              ops::matmul(f({3}), f({3, 5}));
            }),
            "[matmul] a is [3] f32 and b [3, 5] f32, not matrices");
  EXPECT_EQ(ops::matmul(f({4, 1, 2, 3}), f({5, 3, 6})).shape(), (Shape{4, 5, 2, 6}));
  EXPECT_EQ(ops::matmul(f({4, 3, 2}), f({1, 6, 3}), {.transpose_a = true, .transpose_b = true}).shape(),
            (Shape{4, 2, 6}));
}

TEST_F(Ops, SparseMatmul) {
  const Tensor w = f({1, 4, 3, 6}), ids = i({1, 1, 5, 2}), bias = f({1, 1, 1, 6});
  EXPECT_EQ(message([&] {
              ops::sparse_matmul(f({1, 1, 4, 3}), w, ids);
            }),
            "[sparse_matmul] x has the shape [1, 1, 4, 3], not [1, 1, 5, 3] or [1, 5, 2, 3]");
  EXPECT_EQ(message([&] {
              ops::sparse_matmul(f({1, 1, 5, 3}), w, f({1, 1, 5, 2}));
            }),
            "[sparse_matmul] indices is [1, 1, 5, 2] f32, not i32 or u32");
  EXPECT_EQ(message([&] {
              ops::sparse_matmul(f({1, 1, 5, 3}), w, ids, &bias);
            }),
            "[sparse_matmul] bias has the shape [1, 1, 1, 6], not [1, 1, 4, 6]");
}

TEST_F(Ops, Norms) {
  const Tensor x = f({1, 1, 2, 8}), w = f({1, 1, 1, 7}), b = f({1, 1, 1, 8}), r = f({1, 1, 1, 8});
  EXPECT_EQ(message([&] { ops::rms_norm(x, {.weight = &w}); }),
            "[rms_norm] weight has the shape [1, 1, 1, 7], not [1, 1, 1, 8]");
  EXPECT_EQ(message([&] { ops::rms_norm(x, {.bias = &b}); }), "[rms_norm] takes no bias");
  EXPECT_EQ(message([&] { ops::layer_norm(x, {.residual = &r}); }),
            "[layer_norm] residual has the shape [1, 1, 1, 8], x [1, 1, 2, 8]");
  EXPECT_EQ(message([&] { ops::softmax(x, 4); }), "[softmax] axis 4 of a tensor of shape [1, 1, 2, 8]");
  EXPECT_EQ(message([&] { ops::softmax(i({2})); }), "[softmax] x is [2] i32, not floating-point");
}

TEST_F(Ops, TokensAndPositions) {
  EXPECT_EQ(message([&] {
              ops::embedding(f({1, 1, 1, 3}), f({1, 1, 9, 4}));
            }),
            "[embedding] ids is [1, 1, 1, 3] f32, not i32 or u32");
  EXPECT_EQ(message([&] {
              ops::embedding(i({1, 1, 2, 3}), f({1, 1, 9, 4}));
            }),
            "[embedding] ids have the shape [1, 1, 2, 3], not [1, 1, 1, tokens]");
  EXPECT_EQ(ops::embedding(i({3}), f({1, 1, 9, 4}, DataType::bfp8_b)).dtype(), DataType::bf16);
  const Tensor x = f({1, 2, 3, 8});
  EXPECT_EQ(message([&] {
              ops::rotary_embedding(x, f({1, 1, 3, 5}), f({1, 1, 3, 5}));
            }),
            "[rotary_embedding] 10 rotary dimensions, heads have 8");
  EXPECT_EQ(message([&] {
              ops::rotary_embedding(x, f({1, 1, 2, 4}), f({1, 1, 2, 4}));
            }),
            "[rotary_embedding] cos has the shape [1, 1, 2, 4], not [1, 1, 3, rotary_dim / 2]");
  EXPECT_EQ(message([&] {
              ops::rotary_embedding(x, f({1, 1, 3, 4}, DataType::bf16), f({1, 1, 3, 4}));
            }),
            "[rotary_embedding] cos is [1, 1, 3, 4] bf16 and sin [1, 1, 3, 4] f32, not f32");
}

TEST_F(Ops, Attention) {
  const Tensor q = f({1, 4, 3, 8}), k = f({1, 2, 5, 8}), v = f({1, 2, 5, 6}), mask = f({1, 2, 3, 5}),
               sink = f({1, 1, 1, 2});
  const auto attend = [&](const Tensor& a, const Tensor& b, const Tensor& c,
                          const std::function<void(ops::AttentionOptions&)>& change = {}) {
    return message([&] {
      ops::AttentionOptions o;
      if (change) change(o);
      ops::scaled_dot_product_attention(a, b, c, o);
    });
  };
  const std::string head = "[scaled_dot_product_attention] ";
  EXPECT_EQ(attend(q, k, v), "no error");
  EXPECT_EQ(attend(f({1, 4, 3, 7}), k, v), head + "q has head_dim 7, k 8");
  EXPECT_EQ(attend(f({1, 3, 3, 8}), k, v), head + "3 heads are no multiple of 2 key/value heads");
  EXPECT_EQ(attend(q, k, f({1, 2, 4, 6})), head + "k has the shape [1, 2, 5, 8], v [1, 2, 4, 6]");
  EXPECT_EQ(attend(f({1, 4, 6, 8}), k, v), head + "6 causal queries, only 5 keys");
  EXPECT_EQ(attend(q, k, v, [&](auto& o) { o.attn_mask = &mask; }),
            head + "attn_mask has the shape [1, 2, 3, 5], not [1, 1 or 4, 3, 5]");
  EXPECT_EQ(attend(q, k, v, [&](auto& o) { o.attention_sink = &sink; }),
            head + "attention_sink has the shape [1, 1, 1, 2], not [1, 1, 1, 4]");
  EXPECT_EQ(attend(q, k, v, [&](auto& o) { o.sliding_window_size = -1; }), head + "negative window or chunk");
  EXPECT_EQ(attend(q, k, v, [&](auto& o) { o.is_causal = false, o.chunk_size = 4; }),
            head + "chunk_size needs is_causal");
}

TEST_F(Ops, PagedAttention) {
  const Tensor q = f({1, 4, 3, 8}), d = f({1, 3, 4, 8}), cache = f({6, 2, 4, 8}), pages = i({3, 2}),
               positions = i({3});
  const auto chunked = [&](std::int64_t start, std::int64_t row) {
    return message([&] {
      ops::AttentionOptions o;
      o.chunk_start = start, o.page_row = row;
      ops::chunked_scaled_dot_product_attention(q, cache, cache, pages, o);
    });
  };
  const std::string head = "[chunked_scaled_dot_product_attention] ";
  EXPECT_EQ(chunked(5, 2), "no error");
  EXPECT_EQ(chunked(6, 2), head + "positions 6 to 9, a row of the page table holds 8");
  EXPECT_EQ(chunked(-1, 2), head + "positions -1 to 2, a row of the page table holds 8");
  EXPECT_NE(chunked(std::numeric_limits<std::int64_t>::max(), 2), "no error");
  EXPECT_EQ(chunked(0, 3), head + "row 3 of a page table of shape [3, 2]");
  const std::string decode = "[paged_scaled_dot_product_attention_decode] ";
  EXPECT_EQ(message([&] { ops::paged_scaled_dot_product_attention_decode(d, cache, cache, pages, i({2})); }),
            decode + "positions have the shape [2], not [3]");
  EXPECT_EQ(message([&] {
              ops::paged_scaled_dot_product_attention_decode(d, cache, cache, i({2, 2}), positions);
            }),
            decode + "the page table has 2 rows for a batch of 3");
  EXPECT_EQ(message([&] {
              ops::paged_scaled_dot_product_attention_decode(d, cache, cache, f({3, 2}), positions);
            }),
            decode + "page_table is [3, 2] f32, not i32");
  const Tensor mask = f({1, 1, 1, 1});
  ops::AttentionOptions masked;
  masked.attn_mask = &mask;
  EXPECT_EQ(message([&] {
              ops::paged_scaled_dot_product_attention_decode(d, cache, cache, pages, positions, masked);
            }),
            decode + "takes no attn_mask");
  masked.chunk_start = 2;
  EXPECT_EQ(message([&] {
              ops::chunked_scaled_dot_product_attention(f({1, 4, 3, 8}), cache, cache, pages, masked);
            }),
            head + "attn_mask has the shape [1, 1, 1, 1], not [1, 1 or 4, 3, 5]");
  EXPECT_EQ(message([&] {
              ops::paged_update_cache(cache, f({1, 3, 4, 8}), positions, pages);
            }),
            "[paged_update_cache] x has the shape [1, 3, 4, 8], the cache holds 2 heads of 8");
  EXPECT_EQ(message([&] {
              ops::paged_fill_cache(cache, f({1, 2, 9, 8}), pages);
            }),
            "[paged_fill_cache] positions 0 to 9, a row of the page table holds 8");
}

TEST_F(Ops, LatentAttention) {
  const Tensor q = f({1, 4, 3, 8}), d = f({1, 3, 4, 8}), cache = f({6, 1, 4, 8}), pages = i({3, 2}),
               rows = i({3});
  EXPECT_EQ(ops::chunked_flash_mla_prefill(q, cache, pages, 5).shape(), (Shape{1, 4, 3, 5}));
  EXPECT_EQ(ops::paged_flash_multi_latent_attention_decode(d, cache, pages, rows, 5).shape(),
            (Shape{1, 3, 4, 5}));
  EXPECT_EQ(message([&] { ops::chunked_flash_mla_prefill(q, cache, pages, 9); }),
            "[chunked_flash_mla_prefill] head_dim_v is 9, keys have 8 columns");
  EXPECT_EQ(message([&] { ops::paged_flash_multi_latent_attention_decode(d, cache, pages, i({2}), 4); }),
            "[paged_flash_multi_latent_attention_decode] positions have the shape [2], not [3]");

  const auto sparse = [&](const Tensor& kv, const Tensor& indices, const Tensor& page_rows, auto&& change) {
    return message([&] {
      ops::AttentionOptions o;
      change(o);
      ops::sparse_sdpa(q, kv, indices, pages, rows, page_rows, 5, o);
    });
  };
  const auto nothing = [](auto&) {};
  const Tensor indices = i({1, 1, 3, 2});
  const std::string head = "[sparse_sdpa] ";
  EXPECT_EQ(sparse(cache, indices, rows, nothing), "no error");
  EXPECT_EQ(sparse(f({6, 2, 4, 8}), indices, rows, nothing),
            head + "the cache has 2 heads of keys, not one that all heads share");
  EXPECT_EQ(sparse(cache, i({1, 1, 2, 2}), rows, nothing),
            head + "indices have the shape [1, 1, 2, 2], not [1, 1, 3, k]");
  EXPECT_EQ(sparse(cache, f({1, 1, 3, 2}), rows, nothing),
            head + "indices is [1, 1, 3, 2] f32, not i32 or u32");
  EXPECT_EQ(sparse(cache, indices, i({4}), nothing), head + "page_rows have the shape [4], not [3]");
  EXPECT_EQ(sparse(cache, indices, rows, [](auto& o) { o.sliding_window_size = 3; }),
            head + "takes neither slopes nor a window: the indices say which keys are seen");

  const auto score = [&](const Tensor& weights, std::int64_t keys) {
    return message([&] { ops::indexer_score_dsa(q, cache, weights, pages, rows, rows, keys); });
  };
  EXPECT_EQ(score(f({1, 1, 3, 4}), 8), "no error");
  EXPECT_EQ(score(f({1, 1, 3, 3}), 8),
            "[indexer_score_dsa] weights have the shape [1, 1, 3, 3], not [1, 1, 3, 4]");
  EXPECT_EQ(score(f({1, 1, 3, 4}), 9), "[indexer_score_dsa] 9 keys, a row of the page table holds 8");
}

TEST_F(Ops, Heads) {
  EXPECT_EQ(message([&] {
              ops::nlp_create_qkv_heads(f({1, 1, 3, 15}), 4, 2, 2);
            }),
            "[nlp_create_qkv_heads] x has the shape [1, 1, 3, 15], not [1, 1, tokens, 16]");
  EXPECT_EQ(message([&] {
              ops::nlp_create_qkv_heads(f({1, 1, 3, 16}), 0, 2, 2);
            }),
            "[nlp_create_qkv_heads] 0 heads and 2 key/value heads of 2 and 2");
}

TEST_F(Ops, Elementwise) {
  EXPECT_EQ(message([&] {
              ops::add(f({2, 3}), f({2, 4}));
            }),
            "[add] the shapes [2, 3] and [2, 4] do not fit together");
  EXPECT_EQ(message([&] { ops::compare(BinaryOp::add, f({1}), f({1})); }),
            "[compare] add is no comparison, use eq, lt, gt, le or ge");
  EXPECT_EQ(message([&] { ops::clamp(f({1}), 2, 1); }).substr(0, 8), "[clamp] ");
  EXPECT_EQ(message([&] { ops::clamp(f({1}), NAN, 1); }).substr(0, 8), "[clamp] ");
  EXPECT_EQ(ops::where(f({3, 1}), f({1, 4}), f({1})).shape(), (Shape{3, 4}));
}

TEST_F(Ops, AlongOneAxis) {
  EXPECT_EQ(message([&] { ops::topk(f({2, 3}), 4); }), "[topk] the 4 largest of 3");
  EXPECT_EQ(message([&] { ops::topk(f({2, 3}), 0); }), "[topk] the 0 largest of 3");
  EXPECT_EQ(message([&] { ops::mean(f({2, 0})); }), "[mean] an axis without elements, [2, 0]");
  EXPECT_EQ(ops::sum(f({2, 3, 4}), 1, false).shape(), (Shape{2, 4}));
  EXPECT_EQ(ops::reduce(f({2, 3, 4}), ReduceOp::max, 1).shape(), (Shape{2, 1, 4}));
  EXPECT_EQ(message([&] {
              ops::gather(f({2, 3}), 1, i({3, 1}));
            }),
            "[gather] index has the shape [3, 1], x [2, 3]");
  EXPECT_EQ(message([&] {
              ops::scatter(f({2, 3}), 1, i({2, 2}), f({2, 1}));
            }),
            "[scatter] index has the shape [2, 2], x [2, 3], source [2, 1]");
}

TEST_F(Ops, Shapes) {
  const std::array<Tensor, 2> parts = {f({2, 3}), f({2, 4})};
  EXPECT_EQ(ops::concat(parts, 1).shape(), (Shape{2, 7}));
  EXPECT_EQ(message([&] { ops::concat(parts, 0); }),
            "[concat] the shapes [2, 3] and [2, 4] differ beside axis 0");
  EXPECT_EQ(message([&] { ops::concat({}, 0); }), "[concat] no tensors");
  EXPECT_EQ(message([&] {
              ops::slice(f({2, 3}), 1, 2, 4);
            }),
            "[slice] [2, 4) of axis 1 of a tensor of shape [2, 3]");
  EXPECT_EQ(message([&] { ops::pad(f({2, 3}), 1, -1, 0); }), "[pad] -1 elements before and 0 after");
  EXPECT_EQ(message([&] { ops::permute(f({2, 3}), std::array{0, 0}); }), "[permute] axis 0 is named twice");
  EXPECT_EQ(message([&] {
              ops::permute(f({2, 3}), std::array{0});
            }),
            "[permute] 1 axes for the shape [2, 3]");
  EXPECT_EQ(message([&] { ops::repeat(f({2, 3}), 0, 0); }), "[repeat] 0 copies");
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(message([&] {
              ops::repeat(f({2, 3}), 0, most);
            }),
            "[repeat] " + std::to_string(most) + " copies");
  EXPECT_NE(message([&] { ops::repeat(f({2, 3}), 0, most / 2); }), "no error");
  EXPECT_EQ(message([&] {
              ops::pad(f({2, 3}), 1, 1, most);
            }),
            "[pad] 1 elements before and " + std::to_string(most) + " after");
}

TEST_F(Ops, WhatNeedsNoWorkReturnsItsOperand) {
  const Tensor x = f({2, 3});
  EXPECT_EQ(&ops::typecast(x, DataType::f32).buffer(), &x.buffer());
  EXPECT_EQ(&ops::to_contiguous(x).buffer(), &x.buffer());
  EXPECT_EQ(&ops::all_gather(x, 0).buffer(), &x.buffer());
  EXPECT_EQ(&ops::all_reduce(x).buffer(), &x.buffer());
  EXPECT_TRUE(device.ran.empty());
}

TEST_F(Ops, ATensorThatWasMovedInIsGone) {
  std::uint32_t reusable = 0;
  device.also_supports = [](const OpCall& c) { return c.op == OpKind::binary; };
  device.fused = [&](OpCall& c) { reusable = c.reusable, c.outputs[0] = c.in(0); };
  Tensor a = f({2, 3});
  const Tensor b = f({2, 3});
  const Buffer* memory = &a.buffer();
  const Tensor y = ops::add(std::move(a), b);
  EXPECT_EQ(reusable, 1u);
  EXPECT_FALSE(a.defined());  // NOLINT(bugprone-use-after-move): what the contract says
  EXPECT_EQ(&y.buffer(), memory);
  EXPECT_TRUE(y.sole_owner());
  ops::add(b, y);
  EXPECT_EQ(reusable, 0u);
}

TEST_F(Ops, NoKernelAtAll) {
  class Bare final : public Device {
   public:
    std::string_view name() const override { return "bare"; }
    std::string description() const override { return "bare"; }
    Tensor allocate(const TensorSpec& s) override {
      return Tensor(std::make_shared<ReferenceBuffer>(*this, 1), s);
    }
    void write(const Tensor&, std::span<const float>) override {}
    void write(const Tensor&, std::span<const std::int32_t>) override {}
    void read(const Tensor&, std::span<float>) override {}
    void read(const Tensor&, std::span<std::int32_t>) override {}
    std::string packing(const WeightSpec&) const override { return ""; }
    std::size_t packed_bytes(const WeightSpec&, std::int64_t, std::int64_t) const override { return 0; }
    void pack(const WeightSource&, const WeightSpec&, std::span<std::byte>) override {}
    Tensor adopt(const WeightSpec&, std::int64_t, std::int64_t, std::span<const std::byte>,
                 std::shared_ptr<const void>) override {
      return {};
    }
  } bare;
  EXPECT_EQ(message([&] { ops::sum(bare.allocate({.shape = {1}})); }),
            "[sum] the operands' device runs no operations, bare");
  device.kernels = false;
  EXPECT_EQ(message([&] {
              ops::sum(f({2, 3}));
            }),
            "[sum] the reference backend has no kernel for these operands, [2, 3] f32 tile dram interleaved");
}

TEST_F(Ops, ZonesCarryTheCost) {
  struct Seen {
    std::string name;
    std::uint64_t bytes, flops;
  };
  std::vector<Seen> seen;
  const Tensor x = f({1, 1, 2, 4}, DataType::bf16), w = f({1, 1, 4, 8}, DataType::bf16);
  device.also_supports = [](const OpCall& c) { return c.op == OpKind::linear; };
  device.fused = [&](OpCall& c) { c.outputs[0] = device.allocate(c.output_specs[0]); };
  {
    const perf::ZoneScope scope([&](const perf::ZoneRecord& r) {
      seen.push_back({std::string(r.name), r.bytes, r.flops});
    });
    ops::linear(x, w);
  }
  ops::linear(x, w);
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].name, "linear");
  EXPECT_EQ(seen[0].bytes, 2u * (8 + 32 + 16));
  EXPECT_EQ(seen[0].flops, 2u * 2 * 4 * 8);
}

TEST_F(Ops, CostOfTablesCachesAndExperts) {
  OpCall call;
  const Tensor ids = i({1, 1, 1, 3}), table = f({1, 1, 100, 8});
  call.op = OpKind::embedding, call.inputs = {&ids, &table},
  call.output_specs[0] = {.shape = {1, 1, 3, 8}, .dtype = DataType::f32};
  EXPECT_EQ(cost(call).bytes, 12u + 3 * 32 + 3 * 32);

  const Tensor x = f({1, 1, 3, 4}), w = f({1, 10, 4, 8}), experts = i({1, 1, 3, 2});
  call = {};
  call.op = OpKind::sparse_matmul, call.attributes = LinearAttributes{}, call.inputs = {&x, &w, &experts};
  call.output_specs[0] = {.shape = {1, 3, 2, 8}, .dtype = DataType::f32};
  EXPECT_EQ(cost(call).flops, 2u * 3 * 2 * 8 * 4);
  EXPECT_EQ(cost(call).bytes, 48u + 6 * 128 + 24 + 192);  // at most six of the ten experts

  const Tensor q = f({1, 4, 3, 8}), k = f({1, 2, 10, 8}), v = f({1, 2, 10, 6});
  AttentionAttributes attributes;
  call = {};
  call.op = OpKind::scaled_dot_product_attention, call.inputs = {&q, &k, &v}, call.attributes = attributes;
  call.output_specs[0] = {.shape = {1, 4, 3, 6}, .dtype = DataType::f32};
  EXPECT_EQ(cost(call).flops, 2u * 4 * (8 + 9 + 10) * 14);
  attributes.sliding_window_size = 2;
  call.attributes = attributes;
  EXPECT_EQ(cost(call).flops, 2u * 4 * (2 + 2 + 2) * 14);
}

TEST_F(Ops, NanHunt) {
  const Tensor x = from_host(device, std::vector<float>{1, 0, -1}, {1, 3}, DataType::f32);
  EXPECT_NO_THROW(ops::unary(x, {UnaryOp::rsqrt}));  // nobody looks
  {
    const debug::CheckScope scope;
    EXPECT_EQ(
        message([&] { ops::unary(x, {UnaryOp::rsqrt}); }),
        "[rsqrt] 1 NaN 1 infinite values in the result [1, 3], the first at 1; its operands are finite");
    EXPECT_NO_THROW(ops::unary(x, {UnaryOp::exp}));
  }
  std::vector<debug::NonFinite> found;
  {
    const debug::CheckScope scope([&](const debug::NonFinite& n) { found.push_back(n); }, true);
    const Tensor y = ops::unary(x, {UnaryOp::rsqrt});
    ops::add(y, 1.0f);
  }
  ASSERT_EQ(found.size(), 2u);
  EXPECT_TRUE(found[0].operands_finite);
  EXPECT_FALSE(found[1].operands_finite);
  EXPECT_EQ(found[1].op, "add_scalar");
  EXPECT_FALSE(debug::checking());
}

TEST(Backends, UnknownOnes) {
  EXPECT_NE(message([] { open_device("no_such"); }).find("no backend \"no_such\", "), std::string::npos);
  EXPECT_NE(message([] { open_device("../../etc/x"); }).find("no backend \"../../etc/x\", "),
            std::string::npos);
  EXPECT_NE(message([] { open_device(""); }).find("no backend \"\", "), std::string::npos);
}

TEST(Backends, RegisteredOnesComeFirst) {
  register_backend("mine", [](const DeviceOptions& o) -> std::shared_ptr<Backend> {
    auto backend = std::make_shared<ReferenceBackend>();
    backend->devices = o.mesh;
    return backend;
  });
  EXPECT_EQ(open_device("mine", {.mesh = {2, 3}})->mesh(), (Mesh{2, 3}));
  const std::vector<std::string> names = backend_names();
  EXPECT_NE(std::find(names.begin(), names.end(), "mine"), names.end());
  register_backend("broken", [](const DeviceOptions&) -> std::shared_ptr<Backend> { return nullptr; });
  EXPECT_EQ(message([] { open_device("broken"); }), "the backend \"broken\" opened no device");
  EXPECT_NE(message([] { register_backend("a/b", nullptr); }).find("cannot be named"), std::string::npos);
}

}  // namespace
}  // namespace ttt
