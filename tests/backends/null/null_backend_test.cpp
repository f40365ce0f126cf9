// The null backend: every op's result has the shape that ops.h promises, nothing is computed, and everything
// is counted.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <set>

#include "ttt/ops/ops.h"
#include "ttt/ops/planning.h"
#include "ttt/ops/submesh.h"
#include "ttt/tensor/lazy_weight.h"
#include "ttt/tensor/shape_source.h"

namespace ttt {
namespace {

class Null : public testing::Test {
 protected:
  std::shared_ptr<Backend> device = open_device("null");
  Tensor f(const Shape& shape, DataType dtype = DataType::bf16) {
    return device->allocate({.shape = shape, .dtype = dtype});
  }
  Tensor i(const Shape& shape, DataType dtype = DataType::i32) {
    return device->allocate({.shape = shape, .dtype = dtype, .layout = Layout::row_major});
  }
  OpCount count(const std::string& op) {
    for (const OpCount& c : device->op_counts()) {
      if (c.op == op) return c;
    }
    return {};
  }
};

void expect(const Tensor& t, const Shape& shape, DataType dtype = DataType::bf16) {
  EXPECT_EQ(to_string(t.shape()), to_string(shape));
  EXPECT_EQ(t.dtype(), dtype) << name(t.dtype());
}

TEST_F(Null, EveryOpInfersItsResult) {
  const Tensor x = f({1, 1, 5, 64}), heads = f({1, 4, 5, 16}), angles = f({1, 1, 5, 8}, DataType::f32);
  const Tensor weight = f({1, 1, 1, 64}), pages = i({3, 2}), positions = i({3});
  expect(ops::linear(x, f({1, 1, 64, 96}, DataType::bfp4_b)), {1, 1, 5, 96});
  expect(ops::matmul(heads, heads, {.transpose_b = true, .dtype = DataType::f32}), {1, 4, 5, 5},
         DataType::f32);
  expect(ops::sparse_matmul(x, f({1, 8, 64, 32}, DataType::bfp8_b), i({1, 1, 5, 2}, DataType::u32)),
         {1, 5, 2, 32});
  expect(ops::rms_norm(x, {.weight = &weight}), {1, 1, 5, 64});
  expect(ops::layer_norm(x, {.weight = &weight, .bias = &weight, .dtype = DataType::f32}), {1, 1, 5, 64},
         DataType::f32);
  expect(ops::softmax(x), {1, 1, 5, 64});
  expect(ops::embedding(i({1, 1, 1, 7}), f({1, 1, 1000, 64})), {1, 1, 7, 64});
  expect(ops::rotary_embedding(heads, angles, angles), {1, 4, 5, 16});
  expect(ops::scaled_dot_product_attention(heads, f({1, 2, 9, 16}), f({1, 2, 9, 12})), {1, 4, 5, 12});
  const Tensor cache = f({6, 2, 32, 16}, DataType::bfp8_b);
  expect(ops::chunked_scaled_dot_product_attention(heads, cache, cache, pages), {1, 4, 5, 16});
  expect(ops::paged_scaled_dot_product_attention_decode(f({1, 3, 4, 16}), cache, cache, pages, positions),
         {1, 3, 4, 16});
  const Tensor latents = f({6, 1, 32, 16}), rows = i({5});
  expect(ops::chunked_flash_mla_prefill(heads, latents, pages, 12), {1, 4, 5, 12});
  expect(ops::paged_flash_multi_latent_attention_decode(f({1, 3, 4, 16}), latents, pages, positions, 12),
         {1, 3, 4, 12});
  expect(ops::sparse_sdpa(heads, latents, i({1, 1, 5, 8}, DataType::u32), pages, rows, rows, 12),
         {1, 4, 5, 12});
  expect(ops::indexer_score_dsa(heads, latents, f({1, 1, 5, 4}), pages, rows, rows, 40), {1, 1, 5, 40},
         DataType::f32);
  ops::paged_update_cache(cache, f({1, 3, 2, 16}), positions, pages);
  ops::paged_fill_cache(cache, f({1, 2, 5, 16}), pages, 1, 3);
  const ops::QkvHeads qkv = ops::nlp_create_qkv_heads(x, 2, 1, 16);
  expect(qkv.q, {1, 2, 5, 16}), expect(qkv.k, {1, 1, 5, 16}), expect(qkv.v, {1, 1, 5, 16});
  expect(ops::nlp_concat_heads(heads), {1, 1, 5, 64});
  expect(ops::add(x, weight), {1, 1, 5, 64});
  expect(ops::unary(x, {UnaryOp::gelu}, DataType::f32), {1, 1, 5, 64}, DataType::f32);
  expect(ops::where(x, x, x), {1, 1, 5, 64});
  expect(ops::sum(x, 2, false), {1, 1, 64});
  const ops::TopK top = ops::topk(x, 3);
  expect(top.values, {1, 1, 5, 3}), expect(top.indices, {1, 1, 5, 3}, DataType::u32);
  expect(ops::argmax(x), {1, 1, 5, 1}, DataType::u32);
  expect(ops::gather(x, 3, top.indices), {1, 1, 5, 3});
  expect(ops::scatter(x, 3, top.indices, top.values), {1, 1, 5, 64});
  expect(ops::concat(std::array{x, x, x}, 2), {1, 1, 15, 64});
  expect(ops::slice(x, 3, 8, 24), {1, 1, 5, 16});
  expect(ops::pad(x, 2, 1, 2), {1, 1, 8, 64});
  expect(ops::permute(heads, std::array{0, 2, 1, 3}), {1, 5, 4, 16});
  expect(ops::repeat(heads, 1, 3), {1, 12, 5, 16});
  expect(ops::typecast(x, DataType::bfp8_b), {1, 1, 5, 64}, DataType::bfp8_b);
  expect(ops::to_contiguous(heads.swap_axes(1, 2)), {1, 5, 4, 16});
  expect(ops::to_memory_config(x, {.buffer_type = BufferType::l1}), {1, 1, 5, 64});

  std::set<std::string> ran;
  for (const OpCount& c : device->op_counts()) {
    EXPECT_GT(c.calls, 0u);
    EXPECT_GT(c.bytes, 0u) << c.op;
    ran.insert(c.op);
  }
  for (int k = 0; k < static_cast<int>(OpKind::count_); ++k) {
    const auto kind = static_cast<OpKind>(k);
    if (kind == OpKind::binary || kind == OpKind::unary || kind == OpKind::reduce ||
        kind >= OpKind::all_gather)
      continue;
    EXPECT_EQ(ran.count(std::string(name(kind))), 1u) << name(kind);
  }
  for (const char* op : {"add", "gelu", "sum"}) EXPECT_EQ(ran.count(op), 1u) << op;
  device->reset_op_counts();
  EXPECT_TRUE(device->op_counts().empty());
}

TEST(NullMesh, Collectives) {
  const auto device = open_device("null", {.mesh = {2, 4}});
  const Tensor x = device->allocate({.shape = {1, 1, 8, 64}});
  expect(ops::all_gather(x, 3), {1, 1, 8, 256});
  expect(ops::all_gather(x, 3, 0), {1, 1, 8, 128});
  expect(ops::reduce_scatter(x, 3), {1, 1, 8, 16});
  expect(ops::mesh_partition(x, 3), {1, 1, 8, 16});
  expect(ops::all_reduce(x), {1, 1, 8, 64});
  EXPECT_THROW(ops::all_gather(x, 3, 2), Error);
  EXPECT_THROW(ops::reduce_scatter(device->allocate({.shape = {1, 1, 8, 62}}), 3), Error);
  EXPECT_EQ(device->description(), "null: shapes, bytes and FLOPs only, mesh 2x4");
}

TEST_F(Null, CountsBytesAndFlops) {
  const Tensor x = f({1, 1, 1, 4096}), w = f({1, 1, 4096, 14336}, DataType::bfp8_b);
  for (int n = 0; n < 3; ++n) ops::linear(x, w);
  EXPECT_EQ(count("linear").calls, 3u);
  EXPECT_EQ(count("linear").flops, 3u * 2 * 4096 * 14336);
  EXPECT_EQ(count("linear").bytes, 3u * (128 * 448 * 1088 + 2 * 4096 + 2 * 14336));
}

TEST_F(Null, TracksMemory) {
  EXPECT_EQ(device->allocated_bytes(), 0u);
  {
    Tensor x = f({1, 1, 100, 100});
    EXPECT_EQ(device->allocated_bytes(), 20000u);
    const Tensor y = ops::add(std::move(x), 1.0f);  // in place
    EXPECT_EQ(device->allocated_bytes(), 20000u);
    const Tensor z = ops::add(y, y);
    EXPECT_EQ(device->allocated_bytes(), 40000u);
  }
  EXPECT_EQ(device->allocated_bytes(), 0u);
  EXPECT_EQ(device->peak_bytes(), 40000u);
}

TEST_F(Null, WeightsAreNeverRead) {
  EXPECT_FALSE(device->computes());
  const LazyWeight w =
      LazyWeight(make_shape(500000, 500000), WeightRole::linear, "w").bind(*device, DataType::bf16);
  expect(w.get(), {1, 1, 500000, 500000});
  EXPECT_EQ(device->allocated_bytes(), 500000000000u);
  EXPECT_EQ(to_host(f({2, 2})), (std::vector<float>{0, 0, 0, 0}));
}

// Planners hear of every call, and look at peaks of their own.
TEST(NullCalls, AreTold) {
  const auto device = open_device("null");
  CallSource& source = call_source(*device);
  std::vector<std::string> heard;
  source.on_call([&](const OpCall& call) { heard.emplace_back(label(call)); });
  {
    const Tensor x = device->allocate({.shape = {1, 1, 32, 32}});
    ops::add(x, x);
    ops::unary(x, {UnaryOp::silu});
  }
  source.on_call({});
  const Tensor y = device->allocate({.shape = {1, 1, 1, 8}});
  ops::add(y, y);
  EXPECT_EQ(heard, (std::vector<std::string>{"add", "silu"}));
  EXPECT_GE(device->peak_bytes(), 2u * 32 * 32 * 2);
  source.reset_peak();
  EXPECT_EQ(device->peak_bytes(), device->allocated_bytes());
  EXPECT_THROW(call_source(*open_device("cpu")), Error);
}

TEST(NullMesh, IsCutEvenly) {
  const auto device = open_device("null", {.mesh = {2, 4}});
  const auto parts = create_submeshes(*device, {1, 2});
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[3]->mesh(), (Mesh{1, 2}));
  EXPECT_THROW(create_submeshes(*device, {1, 3}), Error);
  EXPECT_THROW(create_submeshes(*device, {4, 1}), Error);
}

// Opened for a SKU it stands in for TTNN there (tests/hw/wrong_configs.h has the kinds of mistakes).
TEST(NullForASku, RefusesWhatTtnnWouldRefuse) {
  const auto device = open_device("null", {.sku = "n150"}), lenient = open_device("null");
  const auto error = [](const std::function<void()>& work) -> std::string {
    try {
      work();
      return {};
    } catch (const Error& e) { return e.what(); }
  };
  struct Case {
    const char* text;
    std::function<void(Device&)> run;
  };
  const auto t = [](Device& d, const Shape& shape, DataType dtype = DataType::bf16) {
    return d.allocate({.shape = shape, .dtype = dtype});
  };
  const MatmulMultiCoreReuseMultiCast1DProgramConfig program{.compute_with_storage_grid_size = {16, 16}};
  const Case cases[] = {
      {"[linear] a compute grid of 16x16",
       [&](Device& d) {
         ops::linear(t(d, {1, 1, 32, 512}), t(d, {1, 1, 512, 512}), {.program_config = program});
       }},
      {"[to_memory_config] needs ",
       [&](Device& d) {
         ops::to_memory_config(t(d, {1, 1, 32768, 8192}), {.buffer_type = BufferType::l1});
       }},
      {"[chunked_scaled_dot_product_attention] q_chunk_size 48",
       [&](Device& d) {
         const Tensor cache = t(d, {8, 2, 32, 64});
         const Tensor pages = d.allocate({.shape = {1, 4}, .dtype = DataType::i32});
         ops::AttentionOptions options;
         options.program_config = {{8, 8}, 48, 32, false};
         ops::chunked_scaled_dot_product_attention(t(d, {1, 4, 64, 64}), cache, cache, pages, options);
       }},
      {"[paged_scaled_dot_product_attention_decode] needs ",
       [&](Device& d) {
         const Tensor cache = t(d, {8, 2, 32, 256});
         const Tensor pages = d.allocate({.shape = {1, 4}, .dtype = DataType::i32}),
                      positions = d.allocate({.shape = {1}, .dtype = DataType::i32});
         ops::AttentionOptions options;
         options.program_config = {{8, 8}, 32, 2048, false};
         ops::paged_scaled_dot_product_attention_decode(t(d, {1, 1, 4, 256}), cache, cache, pages, positions,
                                                        options);
       }},
      {"[embedding] needs ",
       [&](Device& d) {
         ops::embedding(d.allocate({.shape = {1, 1, 1, 1}, .dtype = DataType::u32}),
                        t(d, {1, 1, 262144, 65536}));
       }},
  };
  for (const Case& c : cases) {
    const std::string refused = error([&] { c.run(*device); });
    EXPECT_TRUE(refused.starts_with(c.text)) << c.text << "\n" << refused;
    EXPECT_EQ(error([&] { c.run(*lenient); }), "") << c.text;
  }
}

TEST(NullOptions, Errors) {
  EXPECT_THROW(open_device("null", {.mesh = {0, 1}}), Error);
  const std::vector<std::string> names = backend_names();
  EXPECT_NE(std::find(names.begin(), names.end(), "null"), names.end());
}

}  // namespace
}  // namespace ttt
