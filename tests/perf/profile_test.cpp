#include "ttt/perf/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "ttt/perf/perfetto.h"

namespace {

using namespace ttt::perf;

void pass(int microseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < end) {}
}

void op(const char* name, std::uint64_t bytes, std::uint64_t flops) {
  Zone zone(name);
  zone.add(bytes, flops);
  pass(200);
}

// step > layer 3 > modules > operations, one of which is composed of another.
void step() {
  const Zone step("step", ZoneKind::step);
  {
    const Zone layer("layer", ZoneKind::layer, 3);
    const Zone attention("layers.3.attn", ZoneKind::module, 3);
    {
      const Zone linear("layers.3.attn.qkv", ZoneKind::module, 3);
      op("linear", 100, 1000);
    }
    Zone composed("softmax");
    composed.add(10, 20);
    op("exp", 7, 7);
  }
  op("linear", 50, 500);
}

const Share* find(const std::vector<Share>& shares, const std::string& module, const std::string& name) {
  const auto found =
      std::ranges::find_if(shares, [&](const Share& s) { return s.module == module && s.op == name; });
  return found == shares.end() ? nullptr : &*found;
}

TEST(Zones, AreFreeWhenNobodyListens) {
  EXPECT_FALSE(recording());
  EXPECT_FALSE(counting());
  EXPECT_FALSE(Zone("nobody").active());
  {
    const Profile profile;
    EXPECT_TRUE(recording() && counting());
  }
  EXPECT_FALSE(recording() || counting());
}

TEST(Profile, NestsAndAddsUp) {
  const Profile profile;
  step();
  step();
  const std::vector<Span> spans = profile.spans();
  ASSERT_EQ(spans.size(), 16u);
  EXPECT_EQ(spans[0].kind, ZoneKind::step);
  EXPECT_EQ(spans[0].parent, -1);
  for (std::size_t i = 1; i < 8; ++i) {
    ASSERT_GE(spans[i].parent, 0);
    const Span& parent = spans[static_cast<std::size_t>(spans[i].parent)];
    EXPECT_LE(parent.begin, spans[i].begin);
    EXPECT_GE(parent.end, spans[i].end);
    EXPECT_LT(parent.kind, ZoneKind::op) << "but for the composed one";
    if (profile.name(spans[i].name) == "softmax") break;
  }

  const std::vector<Share> shares = profile.shares();
  ASSERT_EQ(shares.size(), 4u);
  const Share *qkv = find(shares, "attn.qkv", "linear"), *softmax = find(shares, "attn", "softmax"),
              *outside = find(shares, "", "linear"), *between = find(shares, "", "");
  ASSERT_TRUE(qkv && softmax && outside && between);
  EXPECT_EQ(qkv->layer, 3);
  EXPECT_EQ(qkv->calls, 2u);
  EXPECT_EQ(qkv->bytes, 200u);
  EXPECT_EQ(qkv->flops, 2000u);
  EXPECT_EQ(softmax->bytes, 20u) << "what it is composed of does not count again";
  EXPECT_EQ(outside->layer, -1);
  double sum = 0, steps = 0;
  for (const Share& s : shares) sum += s.seconds;
  for (const Span& s : spans)
    steps += s.kind == ZoneKind::step ? static_cast<double>(s.end - s.begin) * 1e-9 : 0;
  EXPECT_NEAR(sum, steps, 1e-9);
  EXPECT_TRUE(std::ranges::is_sorted(shares, std::ranges::greater{}, &Share::seconds));

  const std::vector<Share> by_op = group(shares, GroupBy::op);
  EXPECT_EQ(by_op.size(), 3u);
  EXPECT_EQ(find(by_op, "", "linear")->bytes, 300u);
  const std::vector<Share> by_layer = group(shares, GroupBy::layer);
  EXPECT_EQ(by_layer.size(), 2u);
  EXPECT_EQ(group(shares, GroupBy::all).size(), shares.size());
}

TEST(Profile, CountsAndForgets) {
  Profile profile;
  count("queue", 3);
  count("queue", 5);
  ASSERT_EQ(profile.samples().size(), 2u);
  EXPECT_EQ(profile.samples()[1].value, 5);
  EXPECT_EQ(profile.name(profile.samples()[0].name), "queue");
  EXPECT_LE(profile.samples()[0].time, profile.samples()[1].time);
  profile.clear();
  EXPECT_TRUE(profile.samples().empty() && profile.spans().empty() && profile.shares().empty());
}

TEST(Profile, TakesThreads) {
  const Profile profile;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 100; ++i) op("op", 1, 1), count("counter", i);
    });
  threads.clear();
  EXPECT_EQ(profile.spans().size(), 400u);
  EXPECT_EQ(profile.samples().size(), 400u);
}

// The whole is tested with Perfetto's own schema (tests/reports); here: the framing, field by field.
TEST(Perfetto, IsASequenceOfPackets) {
  const Profile profile;
  step();
  count("KV blocks", 2);
  const std::string trace = perfetto_trace(profile, "test");
  std::size_t packets = 0;
  for (std::size_t at = 0; at < trace.size(); ++packets) {
    ASSERT_EQ(static_cast<unsigned char>(trace[at++]), 1 << 3 | 2) << "field 1, with a length";
    std::uint64_t length = 0;
    for (int shift = 0;; shift += 7) {
      ASSERT_LT(at, trace.size());
      const auto byte = static_cast<unsigned char>(trace[at++]);
      length |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) break;
    }
    ASSERT_LE(at + length, trace.size());
    at += length;
  }
  // Process, thread and counter; a beginning and an end of each of 8 slices; one sample.
  EXPECT_EQ(packets, 3u + 16u + 1u);
  for (const char* text : {"layer 3", "layers.3.attn.qkv", "linear", "KV blocks", "flops"})
    EXPECT_NE(trace.find(text), std::string::npos) << text;
}

}  // namespace
