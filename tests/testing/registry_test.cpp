// What is known of architectures: full-size configurations and names, evidence, and how the test set grows.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/convert/binding.h"
#include "ttt/testing/registry.h"

namespace {

namespace fs = std::filesystem;
using namespace ttt::testing;
using nlohmann::json;

// ---------------------------------------------------------------- full-size names

// "0-2,5" -> 0 1 2 5
std::vector<int> numbers(const std::string& text) {
  std::vector<int> all;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const std::size_t dash = part.find('-');
    const int first = std::stoi(part),
              last = dash == std::string::npos ? first : std::stoi(part.substr(dash + 1));
    for (int n = first; n <= last; ++n) all.push_back(n);
    at = end + 1;
  }
  return all;
}

// Every name that "a.{0-2}.b.{0-7}" stands for.
void unfold(const std::string& folded, const std::vector<std::int64_t>& shape,
            std::vector<ttt::NamedShape>& names) {
  const std::size_t open = folded.find('{');
  if (open == std::string::npos) {
    names.push_back({folded, shape});
    return;
  }
  const std::size_t close = folded.find('}', open);
  for (int n : numbers(folded.substr(open + 1, close - open - 1)))
    unfold(folded.substr(0, open) + std::to_string(n) + folded.substr(close + 1), shape, names);
}

bool provided(const std::string& architecture) {
  return std::ranges::any_of(ttt::families(), [&](const ttt::FamilyInfo& family) {
    return std::ranges::find(family.architectures, architecture) != family.architectures.end();
  });
}

class FullSize : public testing::TestWithParam<KnownArchitecture> {};

// The weight map consumes exactly the tensors of the full-size checkpoint, by name and shape.
TEST_P(FullSize, EveryTensorIsAWeight) {
  if (!provided(GetParam().architecture)) GTEST_SKIP() << "no family for " << GetParam().architecture;
  static const json table =
      json::parse(std::ifstream(fs::path(ttt::test::source_dir()) / "tests/testing/data/full_size.json"));
  std::vector<ttt::NamedShape> names;
  for (const json& row : table.at("architectures")) {
    if (row.at("name") != GetParam().name) continue;
    for (const json& tensor : row.at("tensors"))
      unfold(tensor.at(0).get<std::string>(), tensor.at(1).get<std::vector<std::int64_t>>(), names);
  }
  ASSERT_FALSE(names.empty());
  try {
    const ttt::Description d = ttt::describe_config(GetParam().config);
    const auto slots = ttt::weight_slots(d.spec);
    const ttt::Binding bound = ttt::bind_weights(ttt::WeightMap::from_json(d.weight_map_json), names, slots);
    EXPECT_EQ(bound.slots().size(), slots.size());
  } catch (const ttt::Error& error) { FAIL() << error.what(); }
}

INSTANTIATE_TEST_SUITE_P(Names, FullSize, testing::ValuesIn(known_architectures()), [](const auto& known) {
  std::string name = known.param.name;
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

TEST(Registry, KnowsAHundredArchitectures) {
  std::set<std::string> names;
  for (const KnownArchitecture& known : known_architectures()) {
    EXPECT_TRUE(names.insert(known.name).second) << known.name;
    EXPECT_EQ(json::parse(known.config).at("architectures").at(0), known.architecture);
  }
  EXPECT_EQ(names.size(), 102u);
}

// ---------------------------------------------------------------- evidence

TEST(Evidence, IsRecordedByGoldenAndPrecision) {
  const fs::path file = fs::path(testing::TempDir()) / "evidence.json";
  fs::remove(file);
  GoldenResult a{.path = "a", .name = "a", .architecture = "A", .family = "a", .seconds = 1.23456};
  a.runs = {{.precision = "f32", .passed = true, .max_error = 1.23456e-6, .pcc = 0.99999999}};
  GoldenResult b{.path = "b", .name = "b", .architecture = "B", .family = "b"};
  b.runs = {{.precision = "bf16", .passed = false, .max_error = 3, .pcc = 0.5}};
  record_evidence(file, std::vector{b, a});
  a.runs[0] = {.precision = "bf16", .passed = true, .max_error = 0.01, .pcc = 0.9999};
  record_evidence(file, std::vector{a});
  std::ifstream in(file);
  const std::vector<Evidence> rows = parse_evidence(std::string(std::istreambuf_iterator<char>(in), {}));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].golden, "a");
  EXPECT_EQ(rows[0].runs.size(), 2u);
  EXPECT_EQ(rows[0].runs.at("f32").largest_error, 1.23e-6);
  EXPECT_LT(rows[0].runs.at("f32").pcc, 1);  // never rounded up
  EXPECT_EQ(rows[0].seconds, 1.23);
  EXPECT_FALSE(rows[1].runs.at("bf16").passed);
  EXPECT_THROW(parse_evidence("{}"), ttt::Error);
  EXPECT_THROW(record_evidence("/nonexistent/evidence.json", std::vector{a}), ttt::Error);
}

TEST(Evidence, OfTheReleaseNamesFamiliesThatAreThere) {
  for (const Evidence& e : golden_evidence()) EXPECT_TRUE(provided(e.architecture)) << e.golden;
}

// ---------------------------------------------------------------- scaling

TEST(Scaling, GrowsWithWhatIsNew) {
  const std::vector<ttt::Target> one{ttt::make_target(ttt::hw::n150(), "performance")};
  const std::vector<ttt::Target> two{one[0], ttt::make_target(ttt::hw::n300(), "performance", {1, 2})};
  const std::vector<ScalingRow> rows = scaling(one), both = scaling(two);
  ASSERT_GE(rows.size(), 30u);
  ASSERT_EQ(rows.size(), both.size());
  ScalingRow before;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].kinds, before.kinds + rows[i].new_kinds);
    EXPECT_EQ(rows[i].instances, before.instances + rows[i].new_instances);
    EXPECT_LE(rows[i].instances, rows[i].product);
    EXPECT_EQ(both[i].kinds, rows[i].kinds) << "platforms add no kinds";
    EXPECT_EQ(both[i].instances, 2 * rows[i].instances);
    before = rows[i];
  }
  EXPECT_LT(2 * before.kinds, before.instances);
  EXPECT_LT(before.instances, before.product);
}

TEST(Scaling, AKnownNetworkAddsNothing) {
  const auto& known = known_architectures();
  const auto llama = std::ranges::find(known, "LlamaForCausalLM", &KnownArchitecture::architecture);
  ASSERT_NE(llama, known.end());
  ttt::Description d = ttt::describe_config(llama->config);
  EXPECT_TRUE(addition(d.spec, d.target, {}).instances.empty());
  // Of a width that nothing else has, its kinds are known and its instances are not.
  for (ttt::LayerSpec& layer : d.spec.layers) std::get<ttt::MlpSpec>(layer.ffn).hidden = 12347;
  const Addition wide = addition(d.spec, d.target, {});
  EXPECT_TRUE(wide.kinds.empty());
  EXPECT_EQ(wide.instances.size(), 2u);
  // A bias on the gate alone: no such kind.
  std::get<ttt::AttentionSpec>(d.spec.layers[5].mixer).clip_qkv = 7;
  std::get<ttt::AttentionSpec>(d.spec.layers[5].mixer).sinks = true;
  EXPECT_EQ(addition(d.spec, d.target, {}).kinds.size(), 1u);
}

}  // namespace
