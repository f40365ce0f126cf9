// The TTNN backend on a mock cluster: real TTNN validates, allocates and builds, and computes nothing. Run
// through tools/ttnn/mock; without a mock cluster every test is skipped.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "hw/wrong_configs.h"
#include "ops/composed.h"
#include "ttt/base/error.h"
#include "ttt/convert/load.h"
#include "ttt/hw/choose.h"
#include "ttt/model/build.h"
#include "ttt/ops/backend.h"
#include "ttt/ops/ops.h"
#include "ttt/ops/submesh.h"
#include "ttt/ops/trace.h"
#include "ttt/runtime/data_parallel.h"
#include "ttt/tensor/shape_source.h"

namespace ttt {
namespace {

class Mock : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("TT_METAL_MOCK_CLUSTER_DESC_PATH") == nullptr)
      GTEST_SKIP() << "no mock cluster: tools/ttnn/mock n150 ..";
    device_ = open_device("ttnn");
  }

  Tensor tensor(const Shape& shape, DataType dtype = DataType::bf16, const MemoryConfig& memory = {}) const {
    return device_->allocate({.shape = shape, .dtype = dtype, .memory = memory});
  }
  Tensor ints(const Shape& shape, DataType dtype = DataType::i32) const {
    std::vector<std::int32_t> zeros(static_cast<std::size_t>(shape.elements()));
    return from_host(*device_, zeros, shape, dtype);
  }

  std::shared_ptr<Backend> device_;
};

void expect(const Tensor& t, const Shape& shape, DataType dtype = DataType::bf16) {
  EXPECT_EQ(t.shape(), shape);
  EXPECT_EQ(t.dtype(), dtype);
  EXPECT_EQ(to_host(t).size(), static_cast<std::size_t>(shape.elements()));
}

TEST_F(Mock, TheDeviceSaysWhatItIs) {
  EXPECT_FALSE(device_->computes());
  EXPECT_NE(device_->description().find("mock"), std::string::npos) << device_->description();
  EXPECT_EQ(device_->mesh(), (Mesh{1, 1}));
  EXPECT_EQ(open_device("ttnn"), device_);
  EXPECT_THROW(open_device("ttnn", {.mesh = {1, 2}}), Error);
}

TEST_F(Mock, TracesAreACapabilityThatAMockLacks) {
  EXPECT_FALSE(can_trace(*device_));
  EXPECT_THROW(Recording recording(*device_), Error);
}

TEST_F(Mock, AssertionsOfTtnnArriveAsOneSentence) {
  OpCall call;
  const Tensor a = tensor({1, 1, 32, 64}), b = tensor({1, 1, 32, 64});
  call.op = OpKind::matmul;
  call.inputs = {&a, &b};
  call.attributes = LinearAttributes{};
  call.output_specs[0] = {.shape = {1, 1, 32, 64}};
  try {
    device_->run(call);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.problem(),
              "[matmul] The width of the first tensor must be equal to the height of the second tensor. "
              "Mismatch: width=64 height=32");
    EXPECT_EQ(error.where(),
              "[1, 1, 32, 64] bf16 tile dram interleaved; [1, 1, 32, 64] bf16 tile dram interleaved");
  }
}

TEST_F(Mock, EveryDtypeGoesToTheDeviceAndBack) {
  const std::vector<float> values(6 * 70, 1.5f);
  for (DataType t : {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b})
    expect(from_host(*device_, values, {1, 1, 6, 70}, t), {1, 1, 6, 70}, t);
  const std::vector<std::int32_t> ids(35, 7);
  for (DataType t : {DataType::i32, DataType::u32, DataType::u16, DataType::u8}) {
    const Tensor x = from_host(*device_, ids, {5, 7}, t);
    EXPECT_EQ(to_host_int(x).size(), 35u) << name(t);
  }
}

TEST_F(Mock, WeightsAreConvertedOnTheHostAndMoved) {
  std::vector<float> values(64 * 96);
  std::iota(values.begin(), values.end(), -3000.0f);
  const WeightSourcePtr source = make_source(values, 64, 96);
  for (WeightRole role :
       {WeightRole::linear, WeightRole::experts, WeightRole::embedding, WeightRole::vector}) {
    for (DataType t : {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b}) {
      const WeightSpec spec{.role = role, .dtype = t, .experts = role == WeightRole::experts ? 4 : 1};
      std::vector<std::byte> packed(device_->packed_bytes(spec, 64, 96));
      device_->pack(*source, spec, packed);
      const Tensor w = device_->adopt(spec, 64, 96, packed, nullptr);
      expect(w, weight_shape(spec, 64, 96), t);
    }
  }
}

TEST_F(Mock, ViewsBecomeTensors) {
  const Tensor x = tensor({1, 4, 37, 64});
  expect(ops::to_contiguous(x.narrow(2, 3, 8).swap_axes(1, 2)), {1, 5, 4, 64});
  expect(ops::to_contiguous(x.reshape({1, 1, 148, 64}).narrow(3, 32, 64)), {1, 1, 148, 32});
  expect(ops::typecast(tensor({1, 8, 64, 96}, DataType::bfp4_b).narrow(1, 2, 3), DataType::f32),
         {1, 1, 64, 96}, DataType::f32);
}

TEST_F(Mock, MemoryIsCounted) {
  const std::size_t before = device_->allocated_bytes();
  {
    const Tensor x = tensor({1, 1, 32, 1024}, DataType::f32);
    EXPECT_EQ(device_->allocated_bytes(), before + 32 * 1024 * 4);
  }
  EXPECT_EQ(device_->allocated_bytes(), before);
}

// --- Operations, over shapes that tiles do not divide

class MockOps : public Mock, public testing::WithParamInterface<DataType> {};

TEST_P(MockOps, ElementwiseAndRows) {
  const DataType t = GetParam();
  if (IsSkipped()) return;
  const Tensor x = tensor({1, 3, 37, 100}, t), row = tensor({1, 1, 37, 1}, t);
  for (BinaryOp op : {BinaryOp::eq, BinaryOp::lt, BinaryOp::gt, BinaryOp::le, BinaryOp::ge})
    expect(ops::compare(op, x, row), x.shape(), t);
  expect(ops::add(x, row), x.shape(), t);
  expect(ops::subtract(x, row), x.shape(), t);
  expect(ops::div(x, row), x.shape(), t);
  expect(ops::maximum(x, x), x.shape(), t);
  expect(ops::minimum(x, row), x.shape(), t);
  expect(ops::mul(x, x, {.lhs_activation = {UnaryOp::silu}, .activation = {UnaryOp::relu2}}), x.shape(), t);
  expect(ops::mul(x, x, {.dtype = DataType::f32}), x.shape(), DataType::f32);
  for (int op = 0; op <= static_cast<int>(UnaryOp::expm1); ++op)
    expect(ops::unary(x, {static_cast<UnaryOp>(op), 0.5f, 2.0f}), x.shape(), t);
  expect(ops::where(row, x, x), x.shape(), t);
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::mean, ReduceOp::max, ReduceOp::min, ReduceOp::prod}) {
    expect(ops::reduce(x, op, -1), {1, 3, 37, 1}, t);
    expect(ops::reduce(x, op, 1, false), {1, 37, 100}, t);
  }
  const Tensor weight = tensor({1, 1, 1, 100}, DataType::f32);
  expect(ops::rms_norm(x, {.weight = &weight, .residual = &x, .weight_plus_one = true}), x.shape(), t);
  expect(ops::layer_norm(x, {.weight = &weight, .bias = &weight}), x.shape(), t);
  expect(ops::softmax(x, -1), x.shape(), t);
  expect(ops::softmax(x, 2), x.shape(), t);
  const auto [values, indices] = ops::topk(x, 4);
  expect(values, {1, 3, 37, 4}, t);
  EXPECT_EQ(to_host_int(indices).size(), 3u * 37 * 4);
  EXPECT_EQ(to_host_int(ops::argmax(x)).size(), 3u * 37);
  expect(ops::gather(x, 3, indices), {1, 3, 37, 4}, t);
  expect(ops::scatter(x, 3, indices, values), x.shape(), t);
}

TEST_P(MockOps, Shapes) {
  const DataType t = GetParam();
  if (IsSkipped()) return;
  const Tensor x = tensor({1, 3, 37, 100}, t);
  for (int axis = 0; axis < 4; ++axis) {
    Shape twice = x.shape(), padded = x.shape();
    twice[axis] *= 2, padded[axis] += 3;
    const Tensor parts[] = {x, x};
    expect(ops::concat(parts, axis), twice, t);
    expect(ops::repeat(x, axis, 2), twice, t);
    expect(ops::pad(x, axis, 2, 1), padded, t);
    expect(ops::pad(x, axis, 0, 3), padded, t);
  }
  expect(ops::slice(x, 3, 7, 90), {1, 3, 37, 83}, t);
  const int order[] = {0, 2, 3, 1};
  expect(ops::permute(x, order), {1, 37, 100, 3}, t);
  for (DataType to : {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b})
    expect(ops::typecast(x, to), x.shape(), to);
  expect(ops::to_memory_config(x, hw::interleaved(BufferType::l1)), x.shape(), t);
}

TEST_P(MockOps, Products) {
  const DataType t = GetParam();
  if (IsSkipped()) return;
  const Tensor x = tensor({1, 1, 37, 100}, t), bias = tensor({1, 1, 1, 70}, DataType::f32);
  for (DataType w : {DataType::bf16, DataType::bfp8_b, DataType::bfp4_b}) {
    expect(ops::linear(x, tensor({1, 1, 100, 70}, w), {.bias = &bias, .activation = {UnaryOp::gelu}}),
           {1, 1, 37, 70}, t);
    expect(ops::linear(x, tensor({1, 1, 100, 70}, w),
                       {.activation = {UnaryOp::quick_gelu}, .dtype = DataType::f32}),
           {1, 1, 37, 70}, DataType::f32);
  }
  expect(ops::matmul(tensor({4, 3, 37, 64}, t), tensor({4, 1, 70, 64}, t), {.transpose_b = true}),
         {4, 3, 37, 70}, t);
  expect(ops::matmul(tensor({1, 3, 64, 37}, t), tensor({5, 1, 64, 70}, t), {.transpose_a = true}),
         {5, 3, 37, 70}, t);
  for (std::int64_t tokens : {1, 5, 33}) {
    const Tensor ids = ints({1, 1, tokens, 2}, DataType::u32), biases = tensor({1, 1, 6, 96}, DataType::f32);
    expect(ops::sparse_matmul(tensor({1, 1, tokens, 64}, t), tensor({1, 6, 64, 96}, DataType::bfp8_b), ids,
                              &biases),
           {1, tokens, 2, 96}, t);
    expect(ops::sparse_matmul(tensor({1, tokens, 2, 96}, t), tensor({1, 6, 96, 64}, DataType::bfp4_b), ids),
           {1, tokens, 2, 64}, t);
  }
}

TEST_P(MockOps, Attention) {
  const DataType t = GetParam();
  if (IsSkipped()) return;
  const std::vector<std::int32_t> ids = {3, 1, 4, 1, 5};
  expect(ops::embedding(from_host(*device_, ids, {1, 1, 1, 5}, DataType::u32),
                        tensor({1, 1, 50, 96}, DataType::bf16), t),
         {1, 1, 5, 96}, t);
  for (bool interleaved : {false, true}) {
    for (std::int64_t rotary : {32, 64, 96, 20}) {
      const Tensor table = tensor({1, 1, 37, rotary / 2}, DataType::f32);
      expect(ops::rotary_embedding(tensor({1, 3, 37, 96}, t), table, table, interleaved), {1, 3, 37, 96}, t);
    }
  }
  for (std::int64_t width : {64, 40}) {
    const auto [q, k, v] = ops::nlp_create_qkv_heads(tensor({1, 1, 37, 8 * width}, t), 4, 2, width);
    expect(q, {1, 4, 37, width}, t), expect(k, {1, 2, 37, width}, t), expect(v, {1, 2, 37, width}, t);
    expect(ops::nlp_concat_heads(q), {1, 1, 37, 4 * width}, t);
    expect(ops::scaled_dot_product_attention(q, k, v), {1, 4, 37, width}, t);
    const DataType cached = t == DataType::f32 ? t : DataType::bfp8_b;
    const Tensor cache = tensor({16, 2, 32, width}, cached), pages = ints({3, 4}), positions = ints({3});
    for (std::int64_t start : {0, 32, 5}) {
      ops::paged_fill_cache(cache, k, pages, 1, start);
      expect(ops::chunked_scaled_dot_product_attention(q, cache, cache, pages,
                                                       {{.chunk_start = start, .page_row = 1}}),
             {1, 4, 37, width}, t);
    }
    ops::paged_update_cache(cache, tensor({1, 3, 2, width}, t), positions, pages);
    const Tensor sinks = tensor({1, 1, 1, 4}, DataType::f32);
    const Tensor users = tensor({1, 3, 4, width}, t);
    for (const AttentionAttributes& a :
         {AttentionAttributes{}, AttentionAttributes{.sliding_window_size = 16},
          AttentionAttributes{.softcap = 30}, AttentionAttributes{.chunk_size = 8}}) {
      ops::AttentionOptions options{a};
      options.attention_sink = &sinks;
      expect(ops::paged_scaled_dot_product_attention_decode(users, cache, cache, pages, positions, options),
             {1, 3, 4, width}, t);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, MockOps, testing::Values(DataType::bf16, DataType::f32),
                         [](const auto& tested) { return std::string(name(tested.param)); });

TEST_F(Mock, MoreUsersThanCoresAreUpdatedInGroups) {
  const std::int64_t users = 150;
  const Tensor cache = tensor({users, 2, 32, 64}), pages = ints({users, 1}), positions = ints({users});
  EXPECT_NO_THROW(ops::paged_update_cache(cache, tensor({1, users, 2, 64}), positions, pages));
}

// Fallbacks run on the device's own primitives.
TEST_F(Mock, ComposedOpsRun) {
  const ops::composed::OracleScope oracle;
  const Tensor x = tensor({1, 1, 37, 100}), weight = tensor({1, 1, 1, 100}, DataType::f32),
               w = tensor({1, 1, 100, 70}, DataType::bfp8_b);
  expect(ops::rms_norm(x, {.weight = &weight}), x.shape());
  expect(ops::linear(x, w, {.activation = {UnaryOp::silu}}), {1, 1, 37, 70});
  const Tensor cache = tensor({16, 2, 32, 64}, DataType::bfp8_b), pages = ints({1, 4});
  expect(ops::chunked_scaled_dot_product_attention(tensor({1, 4, 5, 64}), cache, cache, pages),
         {1, 4, 5, 64});
}

// --- The planner and TTNN

// The attention as a call of a kernel, whether the backend would compose it or not.
void attend(Backend& device, const hw::AttentionCheck& a) {
  const std::int64_t v_width = a.v_head_dim > 0 ? a.v_head_dim : a.head_dim,
                     blocks = (a.start + a.queries) / a.block_size + 1;
  const auto tensor = [&](const Shape& shape, DataType dtype) {
    return device.allocate({.shape = shape, .dtype = dtype});
  };
  const Tensor q = tensor({1, a.heads, a.queries, a.head_dim}, a.query);
  OpCall call;
  call.attributes = AttentionAttributes{
      .is_causal = a.is_causal, .chunk_start = a.start, .program_config = a.program_config};
  call.output_specs[0] = {.shape = {1, a.heads, a.queries, v_width}};
  if (a.mask) {
    const Tensor k = tensor({1, a.kv_heads, a.queries, a.head_dim}, a.cache),
                 mask = tensor({1, 1, a.queries, a.queries}, DataType::bf16);
    call.op = OpKind::scaled_dot_product_attention;
    call.inputs = {&q, &k, &k, &mask};
    return device.run(call);
  }
  const Tensor k = tensor({blocks, a.kv_heads, a.block_size, a.head_dim}, a.cache),
               v = tensor({blocks, a.kv_heads, a.block_size, v_width}, a.cache);
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(blocks), 0);
  const Tensor pages = from_host(device, ids, {1, blocks}, DataType::i32);
  call.op = OpKind::chunked_scaled_dot_product_attention;
  call.inputs = {&q, &k, &v, nullptr, nullptr, nullptr, &pages};
  device.run(call);
}

TEST_F(Mock, TtnnRefusesWhatThePlannerRefuses) {
  std::size_t refused = 0;
  for (const WrongConfig& wrong : wrong_configs()) {
    if (!wrong.tensor && !wrong.product && !wrong.attention) continue;
    const auto ask = [&] {
      // allocate() only promises; the first use makes the tensor.
      if (wrong.tensor) return (void)ops::slice(device_->allocate(*wrong.tensor), -1, 0, 32);
      if (wrong.attention) return attend(*device_, *wrong.attention);
      const hw::MatmulCheck& p = *wrong.product;
      OpCall call;
      const Tensor x = device_->allocate(p.x), w = device_->allocate(p.w);
      call.op = OpKind::linear;
      call.inputs = {&x, &w};
      call.attributes = LinearAttributes{.program_config = p.program_config,
                                         .compute_kernel_config = p.compute_kernel_config};
      call.output_specs[0] = p.y;
      device_->run(call);
    };
    if (!wrong.accepted_because.empty()) {
      EXPECT_NO_THROW(ask()) << wrong.name << ": no longer so: " << wrong.accepted_because;
      continue;
    }
    EXPECT_THROW(ask(), Error) << wrong.name;
    ++refused;
  }
  EXPECT_GE(refused, 24u);
}

struct Product {
  std::int64_t in, out;
  DataType weights;
};

// A few of the sizes of tests/hw/choose_test.cpp; ttnn_sweep takes all modules of all models.
TEST_F(Mock, TtnnAcceptsWhatThePlannerChooses) {
  for (const Product& p : {Product{4096, 14336, DataType::bfp8_b},
                           {14336, 4096, DataType::bfp4_b},
                           {4096, 6144, DataType::bfp8_b},
                           {8192, 29568, DataType::bfp4_b},
                           {2880, 5120, DataType::bf16},
                           {100, 70, DataType::bf16}}) {
    const MemoryConfig memory = hw::choose_weight_memory(hw::n150(), p.in, p.out, p.weights);
    const Tensor w = tensor({1, 1, p.in, p.out}, p.weights, memory);
    for (std::int64_t rows : hw::planned_rows()) {
      const hw::MatmulPlan plan = hw::choose_matmul(
          hw::n150(), {.rows = rows, .in = p.in, .out = p.out, .weights = p.weights}, memory, {});
      Tensor x = tensor({1, 1, rows, p.in});
      if (plan.in) x = ops::to_memory_config(x, *plan.in);
      EXPECT_NO_THROW(ops::to_memory_config(ops::linear(x, w,
                                                        {.activation = {UnaryOp::silu},
                                                         .memory_config = plan.product,
                                                         .program_config = plan.program_config}),
                                            plan.out))
          << rows << " " << p.in << "x" << p.out;
    }
  }
}

// Programs thrown together from sizes that often fit and often do not: planner and TTNN say the same of each.
TEST_F(Mock, ThePlannerForeseesTtnnOnRandomPrograms) {
  std::mt19937 random(7);
  const auto pick = [&](std::initializer_list<int> choices) {
    return *(choices.begin() + static_cast<std::ptrdiff_t>(random() % choices.size()));
  };
  int accepted = 0, refused = 0;
  for (int i = 0; i < 300; ++i) {
    const int m = pick({1, 2, 8, 40}), k = pick({8, 12, 64, 128}), n = pick({4, 30, 64, 448});
    const bool one = random() % 2 == 0;
    const int per_core_m = one ? pick({m, m, 1}) : pick({1, (m + 7) / 8, (m + 7) / 8}),
              per_core_n = pick({4, (n + 7) / 8, (n + 7) / 8, one ? (n + 63) / 64 : (n + 7) / 8});
    const int height = pick({0, per_core_m, per_core_m, 1}), width = pick({0, per_core_n, per_core_n, 2});
    MatmulMultiCoreReuseMultiCastProgramConfig two{
        .compute_with_storage_grid_size = {pick({8, 8, 8, 8, 4, 9}), 8},
        .in0_block_w = pick({1, 2, 4, 4, 3, 64}),
        .out_subblock_h = pick({1, 1, 1, 2}),
        .out_subblock_w = pick({1, 1, 1, 2, 4, 8}),
        .out_block_h = height,
        .out_block_w = width,
        .per_core_M = per_core_m,
        .per_core_N = per_core_n};
    MatmulProgramConfig program = two;
    if (one) {
      program = MatmulMultiCoreReuseMultiCast1DProgramConfig{two.compute_with_storage_grid_size,
                                                             two.in0_block_w,
                                                             two.out_subblock_h,
                                                             two.out_subblock_w,
                                                             height,
                                                             width,
                                                             per_core_m,
                                                             per_core_n};
    }
    const auto spec = [](int rows, int cols, DataType t) {
      return TensorSpec{.shape = {1, 1, 32 * rows, 32 * cols}, .dtype = t};
    };
    ComputeKernelConfig compute;
    compute.fp32_dest_acc_en = random() % 2 == 0;
    const hw::MatmulCheck check{.x = spec(m, k, DataType::bf16),
                                .w = spec(k, n, pick({0, 1}) == 0 ? DataType::bf16 : DataType::bfp8_b),
                                .y = spec(m, n, DataType::bf16),
                                .program_config = program,
                                .compute_kernel_config = compute};
    const auto error = [](const auto& f) -> std::string {
      try {
        f();
        return {};
      } catch (const Error& e) { return e.what(); }
    };
    const std::string planner = error([&] { hw::check_matmul(hw::n150(), check); });
    const std::string ttnn = error([&] {
      ops::linear(tensor(check.x.shape), tensor(check.w.shape, check.w.dtype),
                  {.program_config = program, .compute_kernel_config = compute});
    });
    EXPECT_TRUE(ttnn.empty() || !planner.empty()) << to_string(program) << "\n"
                                                  << to_string(check.x) << "\n"
                                                  << to_string(check.w) << "\n"
                                                  << ttnn;
    ++(ttnn.empty() ? accepted : refused);
    EXPECT_TRUE(!ttnn.empty() || planner.empty()) << "the planner alone refuses: " << planner;
  }
  EXPECT_GT(accepted, 10);
  EXPECT_GT(refused, 10);
}

// What a call costs the host with its program cached: printed, not judged (docs/hardware.md).
TEST_F(Mock, TheOverheadOfACallIsMeasured) {
  const Tensor x = tensor({1, 1, 32, 512}), w = tensor({1, 1, 512, 512}, DataType::bfp8_b),
               weight = tensor({1, 1, 1, 512}, DataType::f32);
  const auto measure = [&](const char* name, const std::function<void()>& call) {
    constexpr int calls = 200;
    call();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    std::printf("host time of a call of %s: %.1f us\n", name, took.count() / calls);
    RecordProperty(std::string("us_per_") + name, std::to_string(took.count() / calls));
  };
  measure("linear", [&] { ops::linear(x, w); });
  measure("add", [&] { ops::add(x, x); });
  measure("rms_norm", [&] { ops::rms_norm(x, {.weight = &weight}); });
}

// --- A decoder, end to end through the generator

ModelSpec decoder_spec() {
  const AttentionSpec attention{
      .heads = 8, .kv_heads = 2, .head_dim = 64, .qk_norm = QkNorm::per_head, .rope = RopeSpec{}};
  AttentionSpec windowed = attention;
  windowed.window = 48;
  windowed.qk_norm = QkNorm::none;
  windowed.sinks = true;
  ModelSpec m{.vocab = 1000, .dim = 512, .max_positions = 256};
  m.layers = {{.mixer = attention, .ffn = MlpSpec{.hidden = 1024}},
              {.mixer = windowed,
               .ffn = MoeSpec{.experts = 8, .top_k = 2, .hidden = 256, .router = {.renormalize = true}}},
              {.mixer = attention, .ffn = MlpSpec{.hidden = 1024}, .residual = Residual::sandwich}};
  return m;
}

std::unique_ptr<CausalLM> decoder(const std::shared_ptr<Backend>& device, const Target& target) {
  const auto weights = [](const WeightSlot& slot) {
    std::vector<float> values(static_cast<std::size_t>(slot.rows * slot.cols), 0.01f);
    return LazyWeight(make_source(std::move(values), slot.rows, slot.cols, slot.name), slot.role, slot.name);
  };
  return build(decoder_spec(), weights, target, {.device = device, .cache = {}, .bound = {}});
}

// Three requests of mixed lengths, so that steps have prefill and decode rows together, for each model.
void generate(const std::vector<const CausalLM*>& replicas) {
  DataParallel generator(replicas, nullptr, {.max_batch = 4, .max_step_tokens = 64, .max_context = 256});
  std::vector<GenerationRequest> requests(3 * replicas.size());
  const std::size_t lengths[] = {1, 100, 37};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (std::size_t k = 0; k < lengths[i % 3]; ++k)
      requests[i].prompt_ids.push_back(static_cast<std::int32_t>(k % 900));
    requests[i].sampling.max_new_tokens = 4;
    requests[i].sampling.ignore_eos = true;
  }
  for (const GenerationResult& result : generator.generate(requests))
    EXPECT_EQ(result.ids.size(), 4u) << replicas.front()->target().precision << " " << result.error;
}

TEST_F(Mock, ADecoderGeneratesThroughEveryLayer) {
  for (const char* precision : {"performance", "accuracy"}) {
    const auto lm = decoder(device_, make_target(hw::n150(), precision));
    generate({lm.get()});
  }
}

// Three layers of a published network, in its own widths, with weights that nobody reads.
std::unique_ptr<CausalLM> full_size(const std::shared_ptr<Backend>& device, const std::string& name) {
  std::ifstream file(TTT_SWEEP_MODELS);
  for (const nlohmann::json& model : nlohmann::json::parse(file)) {
    if (model.at("name") != name) continue;
    ModelSpec spec = describe_config(model.at("config").dump()).spec;
    spec.layers.resize(3);
    const auto weights = [](const WeightSlot& slot) {
      return LazyWeight(make_shape(slot.rows, slot.cols), slot.role, slot.name);
    };
    return build(spec, weights, make_target(hw::n150(), "performance"),
                 {.device = device, .cache = {}, .bound = {}});
  }
  throw Error("no model " + name, TTT_SWEEP_MODELS);
}

TEST_F(Mock, FullSizeDecodersGenerate) {
  for (const char* name : {"llama-3.1-8b", "qwen3-30b-a3b"}) {
    const auto lm = full_size(device_, name);
    generate({lm.get()});
  }
}

// A cluster of two devices; run by itself, since a process has one device open.
class MockMesh : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("TT_METAL_MOCK_CLUSTER_DESC_PATH") == nullptr) GTEST_SKIP() << "no mock cluster";
    device_ = open_device("ttnn", {.mesh = mesh_});
  }
  const Mesh mesh_{1, 2};
  std::shared_ptr<Backend> device_;
};

TEST_F(MockMesh, ADecoderGeneratesOnTwoDevices) {
  const auto lm = decoder(device_, make_target(hw::n300(), "performance", mesh_));
  generate({lm.get()});
}

TEST_F(MockMesh, TwoReplicasGenerateOnTheirParts) {
  const std::vector<std::shared_ptr<Backend>> parts = create_submeshes(*device_, {1, 1});
  ASSERT_EQ(parts.size(), 2u);
  const Target target = make_target(hw::n300(), "performance");
  const auto first = decoder(parts[0], target), second = decoder(parts[1], target);
  generate({first.get(), second.get()});
}

}  // namespace
}  // namespace ttt
