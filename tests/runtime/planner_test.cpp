// The planner on small networks whose numbers can be computed by hand. How well it predicts cards:
// tools/roofline.
#include "ttt/runtime/planner.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ttt/base/error.h"
#include "ttt/hw/check.h"
#include "ttt/model/build.h"
#include "ttt/ops/backend.h"
#include "ttt/tensor/shape_source.h"

namespace ttt {
namespace {

std::unique_ptr<CausalLM> network(const Sku& sku, Mesh mesh = {}, std::int64_t layers = 2) {
  ModelSpec m{.vocab = 1024, .dim = 512, .max_positions = 4096};
  const AttentionSpec attention{.heads = 8, .kv_heads = 2, .head_dim = 64, .rope = RopeSpec{}};
  m.layers.assign(static_cast<std::size_t>(layers), {.mixer = attention, .ffn = MlpSpec{.hidden = 1024}});
  const auto weights = [](const WeightSlot& slot) {
    return LazyWeight(make_shape(slot.rows, slot.cols), slot.role, slot.name);
  };
  const auto device = open_device("null", {.mesh = mesh, .sku = std::string(sku.name)});
  return build(m, weights, make_target(sku, "bf16", mesh), {.device = device, .cache = {}, .bound = {}});
}

TEST(PlanMemory, CountsWhatLiesOnADevice) {
  const auto lm = network(hw::n150());
  const MemoryPlan plan = plan_memory(*lm, {.batch = 4, .context = 319});
  const auto find = [](const std::vector<PlacedTensor>& list, std::string_view name) {
    const auto found = std::ranges::find(list, name, &PlacedTensor::name);
    EXPECT_NE(found, list.end()) << name;
    return found == list.end() ? PlacedTensor{} : *found;
  };
  // Over 12 banks: 16 x 16 tiles of 2 KiB are at most 22 in a bank.
  const PlacedTensor o = find(plan.weights, "layers.1.attn.o");
  EXPECT_EQ(o.spec.shape, (Shape{1, 1, 512, 512}));
  EXPECT_EQ(o.bytes, hw::dram_bank_bytes(hw::n150(), o.spec) * 12);
  // A cache of 4 users with 10 blocks each.
  const PlacedTensor k = find(plan.caches, "layers.0.k_cache");
  EXPECT_EQ(k.spec.shape, (Shape{40, 2, 32, 64}));
  EXPECT_GE(k.bytes, std::size_t{40 * 2 * 32 * 64 * 2});
  std::size_t caches = 0;
  for (const PlacedTensor& t : plan.caches) caches += t.bytes;
  EXPECT_EQ(plan.caches.size(), 4u);
  EXPECT_EQ(plan.kv_bytes, caches);
  EXPECT_EQ(plan.state_bytes, 0u);
  EXPECT_GT(plan.activation_bytes, 0u);
  EXPECT_TRUE(plan.fits());
  EXPECT_GT(plan.l1_bytes, 0u);
  EXPECT_FALSE(plan.l1_op.empty());
  // What is left beside the weights, at the bytes of a position.
  const double position = static_cast<double>(plan.kv_bytes) / (4 * 320);
  const double left = static_cast<double>(plan.usable_bytes - plan.weight_bytes - plan.activation_bytes);
  EXPECT_NEAR(static_cast<double>(plan.most_tokens), left / position, 2);
}

TEST(PlanMemory, AMeshDividesWeightsAndCaches) {
  const PlanRequest request{.batch = 8, .context = 1023};
  const MemoryPlan one = plan_memory(*network(hw::n300()), request);
  const MemoryPlan two = plan_memory(*network(hw::n300(), {1, 2}), request);
  EXPECT_LT(two.weight_bytes, one.weight_bytes * 6 / 10);
  EXPECT_EQ(two.kv_bytes * 2, one.kv_bytes);
}

TEST(PlanMemory, SaysWhatDoesNotFit) {
  const auto lm = network(hw::n150());
  const MemoryPlan plan = plan_memory(*lm, {.batch = 4096, .context = 4095});
  EXPECT_FALSE(plan.fits());
  EXPECT_GT(plan.bytes(), plan.usable_bytes);
  EXPECT_LT(plan.most_tokens, 4096 * 4096);
  EXPECT_TRUE(plan_memory(*lm, {.batch = plan.most_tokens / 4096 * 9 / 10, .context = 4095}).fits());
}

TEST(Roofline, RecordsEveryOperationOfAStep) {
  const auto lm = network(hw::n150(), {}, 3);
  const Recording recording = record(*lm, {.batch = 2, .context = 100, .step_tokens = 64});
  ASSERT_EQ(recording.prefill.size(), 2u);
  std::size_t attention = 0, linear = 0;
  for (const RecordedCall& call : recording.decode.calls) {
    if (call.op == "paged_scaled_dot_product_attention_decode") attention += call.calls;
    if (call.op == "linear") linear += call.calls;
  }
  EXPECT_EQ(attention, 3u);
  EXPECT_EQ(linear, 3u * 5 + 1);  // qkv, o, gate, up, down; the head
  EXPECT_EQ(recording.decode.read_bytes, std::size_t{32 * 1024 * 2});
}

TEST(Roofline, IsTheSumOfPhysicalTerms) {
  const auto lm = network(hw::n150());
  const Recording recording = record(*lm, {.context = 64});
  const hw::Calibration only_dram;  // full efficiency, no latencies
  std::size_t calls = 0;
  double bytes = 0;
  for (const RecordedCall& call : recording.decode.calls) {
    calls += call.calls;
    bytes += static_cast<double>(call.calls) * call.work.dram_bytes;
  }
  EXPECT_GE(predict(hw::n150(), recording, only_dram).time_per_step, bytes / hw::n150().dram_bandwidth);
  hw::Calibration slower = only_dram;
  slower.kernel_seconds = 1e-5;
  EXPECT_NEAR(predict(hw::n150(), recording, slower).time_per_step -
                  predict(hw::n150(), recording, only_dram).time_per_step,
              static_cast<double>(calls) * 1e-5, 1e-9);
  slower = only_dram;
  slower.launch_seconds = 1e-3;  // of what no trace replays alone
  EXPECT_EQ(predict(hw::n150(), recording, slower).time_per_step,
            predict(hw::n150(), recording, only_dram).time_per_step);
  EXPECT_GT(predict(hw::n150(), recording, slower).time_to_first_token, static_cast<double>(calls) * 0.5e-3);
}

TEST(Roofline, CollectivesPassTheLineOfDevices) {
  const auto lm = network(hw::n300(), {1, 2});
  const Recording recording = record(*lm, {});
  int reductions = 0;
  for (const RecordedCall& call : recording.decode.calls) {
    if (call.op != "all_reduce") continue;
    reductions += static_cast<int>(call.calls);
    EXPECT_EQ(call.work.hops, 2);
    EXPECT_EQ(call.work.link_bytes, 512 * 2);
    const hw::OpTime time = hw::op_time(hw::n300(), call.work, {.hop_seconds = 1e-5}, true);
    EXPECT_EQ(time.bound(), hw::Resource::link);
  }
  EXPECT_EQ(reductions, 1 + 2 * 2);  // the embedding, then two of each layer
}

TEST(Planner, Refuses) {
  const auto lm = network(hw::n150());
  EXPECT_THROW(plan_memory(*lm, {.batch = 0}), Error);
  EXPECT_THROW(record(*lm, {.context = 4096}), Error);
  EXPECT_THROW(record(*network(hw::cpu()), {}), Error);
}

TEST(Calibration, IsReadAndWritten) {
  const hw::Calibration& built_in = hw::calibration();
  EXPECT_EQ(hw::parse_calibration(hw::to_json(built_in), "test"), built_in);
  EXPECT_THROW(hw::parse_calibration("{}", "test"), Error);
  EXPECT_THROW(hw::parse_calibration(R"({"terms": {"dram_efficiency": 1.5}})", "test"), Error);
}

}  // namespace
}  // namespace ttt
