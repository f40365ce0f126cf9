// Debug mode, profiles, reports and the suite over one tiny model; hostile input to each.
#include "ttt/testing/debug.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/convert/load.h"
#include "ttt/convert/safetensors.h"
#include "ttt/testing/expectations.h"
#include "ttt/testing/fixture.h"
#include "ttt/testing/profile.h"
#include "ttt/testing/report.h"
#include "ttt/testing/suite.h"

namespace {

namespace fs = std::filesystem;
namespace debug = ttt::debug;
using namespace ttt::testing;
using nlohmann::json;

const fs::path golden = fs::path(ttt::test::source_dir()) / "tests/golden";

struct Tiny {
  Tiny() : folder(fs::path(testing::TempDir()) / ("debug-tiny-" + std::to_string(getpid()))) {
    write_fixture(golden / "fixtures/llama.json", folder);
    loaded = load("f32");
  }
  ~Tiny() { fs::remove_all(folder); }
  ttt::LoadOptions options(const char* precision) const {
    return {.precision = precision, .threads = 2, .cache = ""};
  }
  ttt::LoadedModel load(const char* precision) const { return ttt::load(folder, options(precision)); }
  fs::path folder;
  ttt::LoadedModel loaded;
};
Tiny& tiny() {
  static Tiny model;
  return model;
}
const ttt::CausalLM& model() { return *tiny().loaded.model; }
Reference reference() { return Reference::open(golden / "reference/llama.safetensors"); }

template <class F>
std::string message(F f) {
  try {
    f();
  } catch (const ttt::Error& error) { return error.what(); }
  return "no error";
}

// ---------------------------------------------------------------- selection

TEST(SelectTaps, ByNameAndByLayer) {
  const auto all = select_taps("", "");
  EXPECT_TRUE(all("layers.0.attn.q") && all("norm"));
  const auto attention = select_taps("attn.*,ffn", "");
  EXPECT_TRUE(attention("layers.3.attn.q") && attention("layers.3.ffn"));
  EXPECT_FALSE(attention("layers.3.attn") || attention("layers.3.ffn.up") || attention("norm"));
  const auto whole = select_taps("layers.*.attn,norm", "");
  EXPECT_TRUE(whole("layers.12.attn") && whole("norm"));
  EXPECT_FALSE(whole("layers.12"));
  const auto layers = select_taps("", "0,2-3");
  EXPECT_TRUE(layers("layers.0") && layers("layers.2.attn") && layers("layers.3"));
  EXPECT_FALSE(layers("layers.1") || layers("layers.33") || layers("embed"));
  for (const char* wrong : {"x", "1-", "3-1", "-1", "1,,x", "1-2-3", "99999999999999"})
    EXPECT_NE(message([&] { (void)select_taps("", wrong); }).find("write numbers and ranges"),
              std::string::npos)
        << wrong;
}

// ---------------------------------------------------------------- runs

TEST(DebugRun, IsAReferenceOfItself) {
  const DebugRun run = debug_run(model(), reference().input_ids());
  EXPECT_EQ(run.precision, "f32");
  EXPECT_TRUE(run.non_finite.empty());
  ASSERT_NE(run.find("layers.1.attn.q_rope"), nullptr);
  EXPECT_EQ(run.find("layers.1.attn.q_rope")->rows, 24);
  EXPECT_EQ(run.taps.front().tap, "embed");
  EXPECT_EQ(run.taps.back().tap, "logits");
  EXPECT_EQ(run.find("nothing"), nullptr);
  const fs::path file = tiny().folder / "taps.safetensors";
  write_reference(run, file, {{"model", "tiny"}});
  const Reference written = Reference::open(file);
  EXPECT_EQ(written.input_ids(), run.prompt);
  EXPECT_EQ(written.metadata("model"), "tiny");
  EXPECT_EQ(written.logits().size(), 24u * 160u);
  const Comparison same = compare(model(), written);
  EXPECT_EQ(same.taps.size(), run.taps.size());
  EXPECT_EQ(same.first(), nullptr);
  EXPECT_EQ(same.steepest(), nullptr);
  for (const TapDifference& tap : same.taps) EXPECT_EQ(tap.error, 0) << tap.tap;
  // Fed one by one at the end, rows are the same ones.
  const DebugRun pieces = debug_run(model(), run.prompt, {.decode = 5});
  for (const debug::Intermediate& tap : run.taps) {
    ASSERT_NE(pieces.find(tap.tap), nullptr);
    EXPECT_EQ(pieces.find(tap.tap)->rows, tap.rows) << tap.tap;
    EXPECT_LT(debug::max_abs_error(pieces.find(tap.tap)->values, tap.values), 1e-4) << tap.tap;
  }
}

TEST(DebugRun, KeepsWhatIsSelected) {
  const DebugRun run = debug_run(model(), reference().input_ids(), {.taps = select_taps("attn.q*", "1")});
  ASSERT_EQ(run.taps.size(), 2u);
  EXPECT_EQ(run.taps[0].tap, "layers.1.attn.q");
}

TEST(DebugRun, RefusesPrompts) {
  EXPECT_NE(message([] { debug_run(model(), {}); }).find("no tokens"), std::string::npos);
  const std::vector<std::int32_t> outside{1, 160};
  EXPECT_NE(message([&] { debug_run(model(), outside); }).find("token 160"), std::string::npos);
  const std::vector<std::int32_t> long_one(1000, 1);
  EXPECT_NE(message([&] { debug_run(model(), long_one); }).find("context of 128"), std::string::npos);
  ttt::LoadOptions null = tiny().options("f32");
  null.backend = "null";
  const ttt::LoadedModel shapes = ttt::load(tiny().folder, null);
  EXPECT_NE(message([&] { debug_run(*shapes.model, reference().input_ids()); }).find("--backend cpu"),
            std::string::npos);
}

// ---------------------------------------------------------------- comparisons

TEST(Compare, PrecisionsAsExpected) {
  for (const char* precision : {"bf16", "bfp8_b", "bfp4_b", "accuracy", "performance"}) {
    const ttt::LoadedModel other = tiny().load(precision);
    const Comparison c = compare(model(), *other.model, reference().input_ids(),
                                 {.bound = {.required_pcc = 0.5}, .details = true});
    EXPECT_EQ(c.first(), nullptr) << precision << ": " << to_string(*c.first());
    EXPECT_GT(c.taps.size(), 40u);
    EXPECT_TRUE(c.missing.empty() && c.unknown.empty());
    ASSERT_NE(c.steepest(), nullptr);
    EXPECT_EQ(c.taps.back().row_errors.size(), 24u);
    EXPECT_GT(c.taps.back().errors.rms, 0);
  }
  EXPECT_EQ(expected_bound("f32").required_pcc, 0);
  EXPECT_EQ(expected_bound("f32", "bf16").required_pcc, 0.99);
  EXPECT_LT(expected_bound("performance").required_pcc, expected_bound("bf16", "accuracy").required_pcc);
}

// A file like the reference with one tensor changed.
class Changed {
 public:
  template <class Change>
  Changed(const std::string& name, Change change) : path_(tiny().folder / "changed.safetensors") {
    const ttt::SafetensorsFile file = ttt::SafetensorsFile::open(golden / "reference/llama.safetensors");
    std::vector<std::vector<float>> floats;
    std::vector<std::vector<std::int64_t>> integers;
    floats.reserve(file.tensors().size()), integers.reserve(file.tensors().size());
    std::vector<ttt::SafetensorsEntry> entries;
    for (const ttt::SafetensorsTensor& t : file.tensors()) {
      if (t.type == ttt::StorageType::i64) {
        integers.push_back(file.integers(t.name));
        entries.push_back(ttt::make_entry(t.name, t.shape, std::span<const std::int64_t>(integers.back())));
        continue;
      }
      std::vector<std::int64_t> shape = t.shape;
      floats.push_back(file.floats(t.name));
      if (t.name == name) change(shape, floats.back());
      entries.push_back(ttt::make_entry(t.name, shape, std::span<const float>(floats.back())));
    }
    ttt::write_safetensors(path_, entries);
  }
  Reference open() const { return Reference::open(path_); }

 private:
  fs::path path_;
};

TEST(Compare, ShapesThatDifferAreADivergence) {
  const Changed file("layers.1.attn.q", [](auto& shape, auto& values) {
    shape[1] = 32;
    values.resize(64);
  });
  const Comparison c = compare(model(), file.open());
  ASSERT_NE(c.first(), nullptr);
  EXPECT_EQ(c.first()->tap, "layers.1.attn.q");
  EXPECT_NE(to_string(*c.first()).find("24 rows of 64 features, not 2 of 32"), std::string::npos);
}

TEST(Compare, NaNInTheReferenceIsADivergence) {
  const Changed file("layers.1.attn.q",
                     [](auto&, auto& values) { values[70] = std::numeric_limits<float>::quiet_NaN(); });
  const Comparison c = compare(model(), file.open(), {.details = true});
  ASSERT_NE(c.first(), nullptr);
  EXPECT_EQ(c.first()->tap, "layers.1.attn.q");
  EXPECT_TRUE(std::isinf(c.first()->error));
  EXPECT_EQ(c.first()->row, 1);
  EXPECT_EQ(c.first()->feature, 6);
  EXPECT_EQ(c.first()->errors.nan, 1);
  EXPECT_TRUE(c.non_finite.empty()) << "it is not ours";
}

TEST(Compare, WhatOnlyOneHasIsListed) {
  const DebugRun run =
      debug_run(model(), reference().input_ids(), {.taps = select_taps("attn.q,ffn", "0-1")});
  DebugRun other = run;
  other.taps[0].tap = "layers.0.attn.unheard_of";
  const fs::path file = tiny().folder / "partly.safetensors";
  write_reference(other, file);
  const Comparison c =
      compare(model(), Reference::open(file), {.debug = {.taps = select_taps("attn.*", "0")}});
  EXPECT_EQ(c.missing, std::vector<std::string>{"layers.0.attn.unheard_of"});
  EXPECT_NE(std::ranges::find(c.unknown, "layers.0.attn.q"), c.unknown.end());
  EXPECT_TRUE(c.taps.empty());
}

// A model whose first layer attends to a window that it should not have.
ttt::LoadedModel wrong_in_layer_0() {
  const ttt::LoadOptions options = tiny().options("f32");
  ttt::Description description = ttt::describe(tiny().folder, options);
  std::get<ttt::AttentionSpec>(description.spec.layers[0].mixer).window = 3;
  return ttt::load(tiny().folder, description, options);
}

TEST(Compare, IsolatedModulesShowTheirOwnErrorAlone) {
  const ttt::LoadedModel wrong = wrong_in_layer_0();
  const auto differ = [](const Comparison& c) {
    std::vector<std::string> taps;
    for (const TapDifference& tap : c.taps)
      if (!tap.good) taps.push_back(tap.tap);
    return taps;
  };
  CompareOptions options{.bound = {.tolerance = 1e-3}};
  options.debug.taps = select_taps("attn*,ffn*", "");
  const Comparison whole = compare(*wrong.model, model(), reference().input_ids(), options);
  EXPECT_EQ(whole.isolated, 0u);
  EXPECT_GT(differ(whole).size(), 10u) << "everything behind it is wrong because of it";
  options.isolate = true;
  const std::vector<std::string> its_own{"layers.0.attn.context", "layers.0.attn"};
  for (const std::size_t decode : {0, 4}) {
    options.debug.decode = decode;
    const Comparison alone = compare(*wrong.model, model(), reference().input_ids(), options);
    EXPECT_EQ(alone.isolated, 6u);
    std::vector<std::string> found = differ(alone);
    std::erase_if(found, [](const std::string& tap) { return tap.ends_with("_norm"); });  // in the stream
    EXPECT_EQ(found, its_own) << decode;
    ASSERT_NE(alone.steepest(), nullptr);
    EXPECT_TRUE(alone.steepest()->tap.starts_with("layers.0.attn")) << alone.steepest()->tap;
    EXPECT_NE(alone.expected().find("of 6 modules"), std::string::npos);
    for (const TapDifference& tap : alone.taps) EXPECT_FALSE(tap.tap.ends_with(".in")) << tap.tap;
  }
  // Against a file; what it does not have of the whole prompt can not be run on.
  const fs::path file = tiny().folder / "whole.safetensors";
  write_reference(debug_run(model(), reference().input_ids()), file);
  options.debug.decode = 0;
  EXPECT_EQ(compare(*wrong.model, Reference::open(file), options).isolated, 6u);
  EXPECT_NE(message([&] { (void)compare(model(), reference(), options); }).find("no input of a module"),
            std::string::npos);
  ttt::LoadOptions mesh = tiny().options("f32");
  mesh.mesh = ttt::Mesh{1, 2};
  const ttt::LoadedModel divided = ttt::load(tiny().folder, mesh);
  EXPECT_NE(message([&] {
              (void)compare(*divided.model, model(), reference().input_ids(), options);
            }).find("on one device"),
            std::string::npos);
}

TEST(Compare, ModulesAloneReachWhatTheirFormatsPromise) {
  for (const char* precision : {"bf16", "bfp8_b", "accuracy", "performance", "bfp4_b"}) {
    const ttt::LoadedModel other = tiny().load(precision);
    CompareOptions options{.bound = expected_bound(precision), .isolate = true};
    options.bounds =
        instance_bounds(model().spec(), model().target(), other.model->target(), std::vector<Expectation>{});
    const Comparison c = compare(*other.model, model(), reference().input_ids(), options);
    EXPECT_EQ(c.first(), nullptr) << precision << ": " << to_string(*c.first());
    const auto attn = std::ranges::find(c.taps, "layers.1.attn", &TapDifference::tap);
    ASSERT_NE(attn, c.taps.end());
    EXPECT_GT(attn->bound.required_pcc, options.bound.required_pcc)
        << precision << ": tighter than a network";
  }
}

TEST(InstanceBounds, AreWhatIsRecordedWithRoom) {
  const ttt::ModelSpec& spec = model().spec();
  const ttt::Target f32 = model().target(), bf16 = ttt::make_target(ttt::hw::cpu(), "bf16");
  const auto plain = instance_bounds(spec, f32, bf16, {});
  EXPECT_NEAR(plain("layers.1.ffn")->required_pcc, 0.998, 1e-12);
  EXPECT_NEAR(plain("layers.1.attn.q")->required_pcc, 0.998, 1e-12) << "that of the module around it";
  for (const char* tap : {"embed", "layers.1", "layers.1.attn_norm", "norm", "logits", ""})
    EXPECT_FALSE(plain(tap)) << tap;
  EXPECT_EQ(instance_bounds(spec, f32, f32, {})("layers.1.ffn")->tolerance, 2e-3);

  const auto row = [&](const ttt::Target& target, double pcc, double error) {
    const auto instances = instances_by_path(spec, target);
    return Expectation{.key = instances.at("layers.1.ffn").key(),
                       .device = "another machine",
                       .pcc_at_least = pcc,
                       .error_at_most = error};
  };
  const auto tight = instance_bounds(spec, bf16, f32, {row(bf16, 0.99999, 0.1)});
  EXPECT_NEAR(tight("layers.2.ffn.up")->required_pcc, 0.9999, 1e-12) << "all layers are one instance";
  EXPECT_NEAR(tight("layers.2.attn")->required_pcc, 0.998, 1e-12);
  // Never more than the formats allow.
  EXPECT_NEAR(instance_bounds(spec, bf16, f32, {row(bf16, 0.9, 1)})("layers.1.ffn")->required_pcc, 0.998,
              1e-12);
  EXPECT_NEAR(instance_bounds(spec, f32, f32, {row(f32, 1, 1e-5)})("layers.1.ffn")->tolerance, 1e-4, 1e-12);
}

TEST(Compare, CorruptFilesAreErrors) {
  const fs::path file = tiny().folder / "corrupt.safetensors";
  std::ofstream(file) << "not a safetensors file at all";
  EXPECT_THROW(Reference::open(file), ttt::Error);
  std::ifstream whole(golden / "reference/llama.safetensors", std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(whole), {});
  std::ofstream(file, std::ios::binary) << bytes.substr(0, bytes.size() - 1000);
  EXPECT_THROW(Reference::open(file), ttt::Error);
}

// ---------------------------------------------------------------- documents and pages

TEST(Report, DocumentsSayWhatWasMeasured) {
  const ReportSubject subject{.model = "tiny", .architecture = "A", .family = "f", .token_texts = {}};
  const DebugRun run = debug_run(model(), reference().input_ids());
  const json ran = json::parse(to_json(run, subject));
  EXPECT_EQ(ran.at("kind"), "debug_run");
  EXPECT_EQ(ran.at("taps").size(), run.taps.size());
  EXPECT_EQ(ran.at("tokens").size(), 24u);
  const Comparison c = compare(model(), reference(), {.bound = {.tolerance = 1e-9}, .details = true});
  const json compared = json::parse(to_json(c, subject));
  EXPECT_EQ(compared.at("agrees"), false);
  EXPECT_EQ(compared.at("first_divergence"), c.first()->tap);
  EXPECT_EQ(compared.at("taps").at(3).at("row_errors").size(), 2u);
  const std::string documents[] = {ran.dump(), compared.dump()};
  const std::string page = html_report(documents);
  EXPECT_NE(page.find("\"debug_compare\""), std::string::npos);
  EXPECT_EQ(page.find("/*documents*/"), std::string::npos);
}

TEST(Report, RefusesWhatIsNoDocument) {
  for (const char* text :
       {"", "[1]", "{}", R"({"kind": 7})", R"({"kind": "unheard_of"})", R"({"kind": "perf"})",
        R"({"kind": "debug_run", "taps": [], "tokens": 3, "non_finite": []})"}) {
    const std::string documents[] = {text};
    EXPECT_NE(message([&] { (void)html_report(documents); }).find("document 1"), std::string::npos) << text;
  }
  const std::string hostile[] = {
      R"({"kind": "debug_run", "model": "</script><b>", "taps": [], "tokens": [], "non_finite": []})"};
  EXPECT_EQ(html_report(hostile).find("</script><b>"), std::string::npos);
}

// ---------------------------------------------------------------- profiles

TEST(Profile, SaysWhereTimeGoes) {
  const ProfileResult result =
      profile(model(), {.prompt_tokens = 24, .new_tokens = 4, .batch = 2, .threads = 2});
  ASSERT_EQ(result.phases.size(), 2u);
  EXPECT_GT(result.roof.read_bandwidth, 1e8);
  EXPECT_GT(result.roof.matrix_peak, 1e8);
  const PhaseProfile &prefill = result.phases[0], &decode = result.phases[1];
  EXPECT_EQ(prefill.tokens, 48u);
  EXPECT_EQ(decode.tokens, 2u);
  for (const PhaseProfile& phase : result.phases) {
    double sum = 0;
    for (const ttt::perf::Share& share : phase.shares) sum += share.seconds;
    EXPECT_NEAR(sum / phase.seconds, 1, 0.5) << "shares are those of the steps";
    EXPECT_GT(phase.plain_seconds, 0);
    EXPECT_GT(phase.bytes, 0u);
  }
  // Two users' prompts of 24 tokens through 64 x (64 + 2 x 32) weights in each of three layers.
  const auto linear = [](const PhaseProfile& phase, const char* module) {
    for (const ttt::perf::Share& share : ttt::perf::group(phase.shares, ttt::perf::GroupBy::module_and_op))
      if (share.module == module && share.op == "linear") return share;
    return ttt::perf::Share{};
  };
  EXPECT_EQ(linear(prefill, "attn.qkv").calls, 6u);
  EXPECT_EQ(linear(prefill, "attn.qkv").flops, 2u * 48 * 64 * 128 * 3);
  EXPECT_EQ(linear(decode, "ffn.down").flops, 2u * 2 * 64 * 112 * 3);
  EXPECT_GE(linear(decode, "ffn.down").bytes, 64u * 112 * 4 * 3);
  EXPECT_GE(result.counters.size(), 5u);
  EXPECT_FALSE(result.trace.empty());
  const std::string documents[] = {to_json(result, {.model = "tiny"})};
  EXPECT_NE(html_report(documents).find("attn.qkv"), std::string::npos);
  const json json_of = json::parse(documents[0]);
  EXPECT_EQ(json_of.at("phases").at(1).at("phase"), "decode");
}

TEST(Profile, HasTheTimeOfEveryModule) {
  const ProfileResult result = profile(model(), {.prompt_tokens = 16, .new_tokens = 4, .threads = 1});
  for (const PhaseProfile& phase : result.phases) {
    const auto find = [&](const char* path) {
      const auto found = std::ranges::find(phase.modules, path, &PhaseProfile::Module::path);
      return found == phase.modules.end() ? PhaseProfile::Module{} : *found;
    };
    const PhaseProfile::Module attn = find("layers.2.attn"), qkv = find("layers.2.attn.qkv");
    ASSERT_EQ(qkv.seconds.size(), 2u) << "the faster half";
    for (std::size_t i = 0; i < 2; ++i) EXPECT_GT(attn.seconds[i], qkv.seconds[i]);
    EXPECT_GT(attn.flops, qkv.flops);
    EXPECT_EQ(qkv.flops, 2u * phase.tokens * 64 * 128);
    EXPECT_GT(find("lm_head").bytes, 0u);
  }
}

// A profile with two feed-forwards of 1 ms each.
ProfileResult measured_profile() {
  ProfileResult result{.precision = "f32", .device = model().device().description()};
  result.roof = {.read_bandwidth = 1e9, .matrix_peak = 1e12};
  result.phases = {{.name = "prefill", .seconds = 3e-3}, {.name = "decode", .seconds = 3e-3}};
  for (const char* path : {"layers.0.ffn", "layers.1.ffn", "layers.1.ffn.up", "layers.0"})
    result.phases[0].modules.push_back({path, std::vector<double>(9, 1e-3), 100'000, 1000});
  return result;
}

TEST(Profile, ModulesStandBesideTheirExpectations) {
  Expectation row{.key = instances_by_path(model().spec(), model().target()).at("layers.0.ffn").key(),
                  .device = machine(model().device().description()),
                  .time = Timing{.median = 0.5e-3, .low = 0.49e-3, .high = 0.51e-3, .repeats = 15},
                  .bytes = 100'000,
                  .flops = 1000};
  ProfileResult result = measured_profile();
  judge(result, model(), {row});
  ASSERT_EQ(result.phases[0].judged.size(), 1u) << "one instance";
  const ModuleJudgement& slow = result.phases[0].judged[0];
  EXPECT_EQ(slow.key, row.key);
  EXPECT_EQ(slow.modules, 2u);
  EXPECT_EQ(slow.judgement.verdict, Verdict::worse);
  EXPECT_NEAR(slow.judgement.ratio, 2, 1e-9);
  EXPECT_NEAR(slow.measured_roof, 0.1, 1e-9) << "100 kB at 1 GB/s take 100 us";
  EXPECT_NEAR(slow.expected_roof, 0.2, 1e-9);
  EXPECT_TRUE(result.phases[1].judged.empty()) << "the row is of prefill";
  // Of half the work, 0.5 ms is what 1 ms is of all.
  row.bytes = 50'000;
  judge(result, model(), {row});
  EXPECT_EQ(result.phases[0].judged.at(0).judgement.verdict, Verdict::as_expected);
  const json document = json::parse(to_json(result, {.model = "tiny"}));
  EXPECT_EQ(document.at("phases").at(0).at("expectations").at(0).at("verdict"), "as expected");
  row.device = "another machine";
  judge(result, model(), {row});
  EXPECT_TRUE(result.phases[0].judged.empty());
}

TEST(Profile, RoofOfWork) {
  const Roof roof{.read_bandwidth = 10e9, .matrix_peak = 100e9};
  EXPECT_DOUBLE_EQ(roof.seconds(10'000'000, 1'000), 1e-3);
  EXPECT_DOUBLE_EQ(roof.seconds(10, 100'000'000), 1e-3);
  EXPECT_TRUE(roof.memory_bound(100, 999));
  EXPECT_FALSE(roof.memory_bound(100, 1001));
}

TEST(Profile, RefusesSizes) {
  EXPECT_THROW(profile(model(), {.prompt_tokens = 0}), ttt::Error);
  EXPECT_THROW(profile(model(), {.prompt_tokens = 127}), ttt::Error);
  EXPECT_THROW(profile(model(), {.prompt_tokens = 8, .new_tokens = 2, .repeats = 0}), ttt::Error);
}

// ---------------------------------------------------------------- suite

TEST(Suite, HasARowOfEveryPrecision) {
  SuiteOptions options{.load = tiny().options(""),
                       .reference = golden / "reference/llama.safetensors",
                       .bench = {.prompt_tokens = 8, .new_tokens = 3, .repeats = 1, .threads = 2}};
  const SuiteResult result = evaluate_suite(tiny().folder, options);
  EXPECT_EQ(result.reference.substr(0, 12), "transformers");
  EXPECT_EQ(result.tokens, 24u);
  ASSERT_EQ(result.rows.size(), ttt::precision_names().size());
  for (const SuiteRow& row : result.rows) {
    EXPECT_EQ(row.failure, "") << row.precision;
    EXPECT_GE(row.agreement.top5, row.agreement.top1);
    EXPECT_GT(row.speed.tokens_per_second_per_user, 0);
    EXPECT_EQ(row.agreement.positions, 12u);
    if (row.precision != "f32") continue;
    EXPECT_EQ(row.agreement.top1, 1);  // transformers ran in float32 too
    EXPECT_NEAR(row.perplexity / std::stod(reference().metadata("perplexity")), 1, 1e-3);
  }
  const std::string table = markdown(result);
  EXPECT_NE(table.find("| f32 | 100.0 | 100.0 |"), std::string::npos) << table;
  EXPECT_NE(table.find("| performance |"), std::string::npos);
}

TEST(Suite, WithoutAReferenceItsOwnFloat32RunIsOne) {
  SuiteOptions options{.load = tiny().options(""),
                       .precisions = {"f32", "no_such"},
                       .tokens = 40,
                       .bench = {.prompt_tokens = 8, .new_tokens = 2, .repeats = 1, .threads = 2}};
  const SuiteResult result = evaluate_suite(tiny().folder, options);
  EXPECT_EQ(result.reference, "its own float32 run");
  EXPECT_EQ(result.rows[0].agreement.top1, 1);
  EXPECT_NE(result.rows[1].failure.find("no_such"), std::string::npos);
  options.text = "some text";
  EXPECT_NE(message([&] { (void)evaluate_suite(tiny().folder, options); }).find("no tokenizer"),
            std::string::npos);
  EXPECT_THROW(evaluate_suite(tiny().folder / "nothing"), ttt::Error);
}

}  // namespace
