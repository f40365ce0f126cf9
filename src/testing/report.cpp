#include "ttt/testing/report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "testing/built_in_text.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace {

using Json = nlohmann::ordered_json;

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Four significant digits are what a chart shows, and halve the page.
double rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return std::strtod(text, nullptr);
}

Json head(const char* kind, const ReportSubject& subject) {
  return {{"kind", kind},
          {"model", subject.model},
          {"architecture", subject.architecture},
          {"family", subject.family}};
}

void add_tokens(Json& json, const std::vector<std::int32_t>& ids, const ReportSubject& subject) {
  json["tokens"] = ids;
  if (!subject.token_texts.empty()) json["token_texts"] = subject.token_texts;
}

Json json_of(const debug::Statistics& s) {
  return {{"min", rounded(s.min)},  {"max", rounded(s.max)},   {"mean", rounded(s.mean)},
          {"rms", rounded(s.rms)},  {"zeros", s.zeros},        {"nan", s.nan},
          {"infinite", s.infinite}, {"histogram", s.histogram}};
}

Json json_of(const std::vector<debug::NonFinite>& all) {
  Json rows = Json::array();
  for (const debug::NonFinite& found : all)
    rows.push_back({{"op", found.op},
                    {"module", found.module},
                    {"shape", ttt::to_string(found.spec.shape)},
                    {"nan", found.nan},
                    {"infinite", found.infinite},
                    {"first", found.first}});
  return rows;
}

}  // namespace

ReportSubject report_subject(const LoadedModel& loaded, std::string name,
                             std::span<const std::int32_t> prompt) {
  ReportSubject subject{
      .model = std::move(name), .architecture = loaded.architecture, .family = loaded.family};
  if (!loaded.tokenizer) return subject;
  for (const std::int32_t id : prompt)
    subject.token_texts.push_back(
        loaded.tokenizer->decode(std::span(&id, 1), {.skip_special_tokens = false}));
  return subject;
}

std::string to_json(const DebugRun& run, const ReportSubject& subject) {
  Json json = head("debug_run", subject);
  json["precision"] = run.precision;
  json["device"] = run.device;
  add_tokens(json, run.prompt, subject);
  json["non_finite"] = json_of(run.non_finite);
  for (const debug::Intermediate& tap : run.taps) {
    Json row{{"tap", tap.tap}, {"rows", tap.rows}, {"features", tap.features}};
    row.update(json_of(debug::statistics(tap.values)));
    json["taps"].push_back(std::move(row));
  }
  return dumped(json);
}

std::string to_json(const Comparison& c, const ReportSubject& subject) {
  Json json = head("debug_compare", subject);
  json["ours"] = c.ours;
  json["theirs"] = c.theirs;
  json["expected"] = c.expected();
  json["required_pcc"] = c.isolated > 0 ? 0 : c.bound.required_pcc;
  json["tolerance"] = c.bound.tolerance;
  json["isolated_modules"] = c.isolated;
  const TapDifference* const first = c.first();
  const TapDifference* const steepest = c.steepest();
  json["agrees"] = first == nullptr;
  json["first_divergence"] = first ? first->tap : "";
  json["grows_most_at"] = steepest ? steepest->tap : "";
  add_tokens(json, c.prompt, subject);
  json["non_finite"] = json_of(c.non_finite);
  json["missing"] = c.missing;
  json["unknown"] = c.unknown;
  json["taps"] = Json::array();
  for (const TapDifference& tap : c.taps) {
    Json row{{"tap", tap.tap},
             {"rows", tap.rows},
             {"features", tap.features},
             {"good", tap.good},
             {"expected", to_string(tap.bound)},
             {"largest_error", rounded(tap.error)},
             {"relative_error", rounded(tap.relative)},
             {"pcc", tap.pcc},
             {"row", tap.row},
             {"feature", tap.feature},
             {"ours", tap.ours},
             {"theirs", tap.theirs}};
    if (!tap.problem.empty()) row["problem"] = tap.problem;
    if (!tap.row_errors.empty()) {
      for (const float error : tap.row_errors) row["row_errors"].push_back(rounded(error));
      row["errors"] = json_of(tap.errors);
    }
    json["taps"].push_back(std::move(row));
  }
  return dumped(json);
}

std::string to_json(const ProfileResult& result, const ReportSubject& subject) {
  Json json = head("perf", subject);
  json["precision"] = result.precision;
  json["device"] = result.device;
  json["prompt_tokens"] = result.prompt_tokens;
  json["batch_users"] = result.batch;
  json["read_bandwidth_gb_per_s"] = rounded(result.roof.read_bandwidth / 1e9);
  json["matrix_peak_gflop_per_s"] = rounded(result.roof.matrix_peak / 1e9);
  const auto row_of = [&](const perf::Share& s) {
    const double least = result.roof.seconds(s.bytes, s.flops);
    Json row{{"module", s.module}, {"op", s.op}};
    if (s.layer >= 0) row["layer"] = s.layer;
    row.update({{"calls", s.calls},
                {"time_ms", rounded(s.seconds * 1e3)},
                {"bytes", s.bytes},
                {"flops", s.flops},
                {"of_roof_percent", rounded(s.seconds > 0 ? 100 * least / s.seconds : 0)},
                {"bound", least == 0                                   ? ""
                          : result.roof.memory_bound(s.bytes, s.flops) ? "memory"
                                                                       : "compute"}});
    return row;
  };
  json["phases"] = Json::array();
  for (const PhaseProfile& phase : result.phases) {
    Json rows = Json::array(), layers = Json::array();
    for (const perf::Share& share : perf::group(phase.shares, perf::GroupBy::module_and_op))
      rows.push_back(row_of(share));
    for (const perf::Share& share : phase.shares)
      layers.push_back({{"layer", share.layer},
                        {"module", share.module},
                        {"op", share.op},
                        {"time_ms", rounded(share.seconds * 1e3)}});
    Json judged = Json::array();
    for (const ModuleJudgement& j : phase.judged)
      judged.push_back({{"key", j.key},
                        {"modules", j.modules},
                        {"time_us", rounded(j.measured.median * 1e6)},
                        {"expected_us", rounded(j.expected * 1e6)},
                        {"ratio", rounded(j.judgement.ratio)},
                        {"ratio_low", rounded(j.judgement.low)},
                        {"ratio_high", rounded(j.judgement.high)},
                        {"of_roof_percent", rounded(100 * j.measured_roof)},
                        {"expected_of_roof_percent", rounded(100 * j.expected_roof)},
                        {"verdict", name(j.judgement.verdict)}});
    const double least = result.roof.seconds(phase.bytes, phase.flops);
    json["phases"].push_back({{"phase", phase.name},
                              {"tokens", phase.tokens},
                              {"time_ms", rounded(phase.seconds * 1e3)},
                              {"time_without_zones_ms", rounded(phase.plain_seconds * 1e3)},
                              {"bytes", phase.bytes},
                              {"flops", phase.flops},
                              {"of_roof_percent", rounded(100 * least / phase.seconds)},
                              {"rows", std::move(rows)},
                              {"expectations", std::move(judged)},
                              {"by_layer", std::move(layers)}});
  }
  json["counters"] = Json::array();
  for (const ProfileResult::Counter& counter : result.counters) {
    Json values = Json::array();
    for (const auto& [time, value] : counter.values) values.push_back({rounded(time), value});
    json["counters"].push_back({{"counter", counter.name}, {"values", std::move(values)}});
  }
  return dumped(json);
}

std::string html_report(std::span<const std::string> documents) {
  std::string all;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const auto fail = [&](const char* what) {
      throw Error(what, "document " + std::to_string(i + 1),
                  "give what ttt debug or ttt perf printed with --json");
    };
    const Json json = Json::parse(documents[i], nullptr, false);
    if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string()) fail("no result of a run");
    // What the page reads without asking.
    struct Need {
      const char* kind;
      std::vector<const char*> arrays;
    };
    static const std::vector<Need> needs{{"debug_run", {"taps", "tokens", "non_finite"}},
                                         {"debug_compare", {"taps", "tokens", "non_finite"}},
                                         {"perf", {"phases", "counters"}}};
    const auto need = std::ranges::find(needs, json["kind"].get<std::string>(),
                                        [](const Need& n) { return std::string(n.kind); });
    if (need == needs.end()) fail("a kind of result that has no page");
    for (const char* array : need->arrays) {
      if (!json.contains(array) || !json[array].is_array()) fail("a result without its rows");
    }
    all += (i > 0 ? "," : "") + dumped(json);
  }
  // Inside of a script element nothing may end it.
  std::string safe;
  for (const char c : all) {
    if (c == '<') {
      safe += "\\u003c";
    } else {
      safe += c;
    }
  }
  std::string page(report_page);
  const std::string mark = "/*documents*/";
  return page.replace(page.find(mark), mark.size(), safe);
}

}  // namespace ttt::inline v2::testing
