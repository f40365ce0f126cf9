#include "ttt/testing/expectations.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "testing/measure.h"
#include "testing/process.h"
#include "testing/registry_data.h"
#include "testing/rounding.h"
#include "ttt/base/error.h"
#include "ttt/base/version.h"
#include "ttt/ops/backend.h"

namespace ttt::inline v2::testing {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// ---------------------------------------------------------------- statistics

namespace {

// Of sorted values, by linear interpolation.
double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto i = static_cast<std::size_t>(at);
  const double next = sorted[std::min(i + 1, sorted.size() - 1)];
  return sorted[i] + (at - static_cast<double>(i)) * (next - sorted[i]);
}

}  // namespace

Timing summarize(std::span<const double> samples) {
  if (samples.empty()) throw Error("no samples", "summarize", "measure at least once");
  std::vector<double> sorted(samples.begin(), samples.end());
  std::ranges::sort(sorted);
  Timing t{.median = quantile(sorted, 0.5), .repeats = static_cast<int>(samples.size())};
  t.spread = t.median > 0 ? (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / t.median : 0;
  std::minstd_rand random(1);
  std::vector<double> medians(2000), resample(sorted.size());
  for (double& m : medians) {
    for (double& value : resample) value = sorted[random() % sorted.size()];
    std::ranges::sort(resample);
    m = quantile(resample, 0.5);
  }
  std::ranges::sort(medians);
  t.low = quantile(medians, 0.025);
  t.high = quantile(medians, 0.975);
  return t;
}

// ---------------------------------------------------------------- rows

double Expectation::bandwidth_share() const {
  return time && read_bandwidth > 0 ? static_cast<double>(bytes) / time->median / read_bandwidth : 0;
}
double Expectation::gflops() const { return time ? static_cast<double>(flops) / time->median / 1e9 : 0; }

std::string Expectation::row() const {
  Json row{
      {"key", key}, {"device", device}, {"pcc_at_least", pcc_at_least}, {"error_at_most", error_at_most}};
  if (time) {
    row["time_us"] = rounded(time->median * 1e6);
    row["time_low_us"] = rounded(time->low * 1e6);
    row["time_high_us"] = rounded(time->high * 1e6);
    row["spread"] = rounded(time->spread);
    row["repeats"] = time->repeats;
    row["bytes"] = bytes;
    row["flops"] = flops;
    row["read_gb_per_s"] = rounded(read_bandwidth / 1e9);
    row["of_read_bandwidth"] = rounded(bandwidth_share());
    row["gflops"] = rounded(gflops());
  }
  row["version"] = version;
  row["commit"] = commit;
  row["date"] = date;
  return row.dump();
}

std::vector<Expectation> parse_expectations(std::string_view lines) {
  std::vector<Expectation> all;
  std::istringstream text{std::string(lines)};
  std::size_t number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    if (line.empty()) continue;
    const Json row = Json::parse(line, nullptr, false);
    try {
      Expectation e{.key = row.at("key").get<std::string>(),
                    .device = row.at("device").get<std::string>(),
                    .pcc_at_least = row.at("pcc_at_least").get<double>(),
                    .error_at_most = row.at("error_at_most").get<double>(),
                    .version = row.at("version").get<std::string>(),
                    .commit = row.at("commit").get<std::string>(),
                    .date = row.at("date").get<std::string>()};
      if (row.contains("time_us")) {
        e.time = Timing{.median = row.at("time_us").get<double>() / 1e6,
                        .low = row.at("time_low_us").get<double>() / 1e6,
                        .high = row.at("time_high_us").get<double>() / 1e6,
                        .spread = row.at("spread").get<double>(),
                        .repeats = row.at("repeats").get<int>()};
        e.bytes = row.at("bytes").get<std::uint64_t>();
        e.flops = row.at("flops").get<std::uint64_t>();
        e.read_bandwidth = row.at("read_gb_per_s").get<double>() * 1e9;
      }
      all.push_back(std::move(e));
    } catch (const Json::exception&) {
      throw Error("no row of expectations", "line " + std::to_string(number),
                  "rows are written by ttt expect record");
    }
  }
  return all;
}

const std::vector<Expectation>& known_expectations(std::string_view sku) {
  static const std::map<std::string, std::vector<Expectation>, std::less<>> all = [] {
    std::map<std::string, std::vector<Expectation>, std::less<>> tables;
    for (const ExpectationTable& table : expectation_tables)
      tables[std::string(table.sku)] = parse_expectations(table.lines);
    return tables;
  }();
  static const std::vector<Expectation> none;
  const auto found = all.find(sku);
  return found == all.end() ? none : found->second;
}

void record_expectations(const fs::path& path, std::span<const Expectation> measured) {
  std::map<std::pair<std::string, std::string>, std::string> rows;
  const auto put = [&](const Expectation& e) { rows[{e.key, e.device}] = e.row(); };
  if (std::ifstream file(path); file)
    std::ranges::for_each(parse_expectations(std::string(std::istreambuf_iterator<char>(file), {})), put);
  std::ranges::for_each(measured, put);
  std::ofstream file(path, std::ios::binary);
  for (const auto& [key, row] : rows) file << row << "\n";
  if (!file.flush())
    throw Error("can not be written", printable(path.string(), 200), "check the path and the disk");
}

Expectation expectation_of(const SelectedInstance& selected, const InstanceResult& result, std::string device,
                           double read_bandwidth) {
  Expectation e{.key = selected.instance.key(),
                .device = std::move(device),
                .pcc_at_least = std::floor((1 - 2 * (1 - result.pcc)) * 1e7) / 1e7,
                .error_at_most = rounded(1.5 * result.error),
                .bytes = result.bytes,
                .flops = result.flops,
                .read_bandwidth = read_bandwidth,
                .version = version(),
                .commit = "unknown",
                .date = today()};
  if (!result.seconds.empty()) e.time = summarize(result.seconds);
  if (const fs::path build = own_build_folder(); !build.empty()) {
    try {
      e.commit = output_of({"git", "describe", "--always", "--dirty", "--exclude", "*"}, build, "");
      while (e.commit.ends_with('\n')) e.commit.pop_back();
    } catch (const Error&) {  // no repository
      e.commit = "unknown";
    }
  }
  return e;
}

// ---------------------------------------------------------------- comparison

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::better:
      return "better";
    case Verdict::as_expected:
      return "as expected";
    case Verdict::worse:
      return "worse";
    case Verdict::inaccurate:
      return "FAIL";
    case Verdict::noisy:
      return "noisy";
    case Verdict::unknown:
      return "unknown";
  }
  return "";
}

namespace {

std::string text(const char* format, double a, double b, double c) {
  char line[160];
  std::snprintf(line, sizeof line, format, a, b, c);
  return line;
}

}  // namespace

const Expectation* find_expectation(const std::vector<Expectation>& known, std::string_view key,
                                    std::string_view device) {
  const Expectation* found = nullptr;
  for (const Expectation& e : known) {
    if (e.key == key && (found == nullptr || e.device == device)) found = &e;
  }
  return found;
}

Judgement judge(const Timing& measured, const Timing& expected, double tolerance, double most_spread) {
  Judgement j{.ratio = measured.median / expected.median,
              .low = measured.low / expected.high,
              .high = measured.high / expected.low};
  j.why = text("%.2f times the recorded time, between %.2f and %.2f", j.ratio, j.low, j.high);
  if (measured.spread > most_spread) {
    j.verdict = Verdict::noisy;
    j.why = text("spread of %.0f %%, at most %.0f %% tells something", 100 * measured.spread,
                 100 * most_spread, 0);
  } else if (j.low > 1 + tolerance) {
    j.verdict = Verdict::worse;
  } else if (j.high < 1 / (1 + tolerance)) {
    j.verdict = Verdict::better;
  } else {
    j.verdict = Verdict::as_expected;
  }
  return j;
}

Judgement judge(const std::vector<Expectation>& known, const SelectedInstance& selected,
                const InstanceResult& result, std::string_view device, double tolerance, double most_spread) {
  const Expectation* expected = find_expectation(known, selected.instance.key(), device);
  if (result.outcome == Outcome::failed) return {.verdict = Verdict::inaccurate, .why = result.detail};
  if (result.outcome == Outcome::skipped) return {.verdict = Verdict::unknown, .why = result.detail};
  if (expected == nullptr) return {.verdict = Verdict::unknown, .why = "nothing is recorded"};
  if (!(result.pcc >= expected->pcc_at_least))
    return {.verdict = Verdict::inaccurate,
            .why = text("PCC %.7f, at least %.7f is expected", result.pcc, expected->pcc_at_least, 0)};
  if (!(result.error <= expected->error_at_most))
    return {.verdict = Verdict::inaccurate,
            .why = text("error %.3g, at most %.3g is expected", result.error, expected->error_at_most, 0)};
  const std::string accuracy = text("PCC %.7f", result.pcc, 0, 0);
  if (result.seconds.empty()) return {.verdict = Verdict::as_expected, .why = accuracy};
  if (expected->device != device || !expected->time)
    return {.verdict = Verdict::unknown, .why = accuracy + "; no time of this machine is recorded"};
  return judge(summarize(result.seconds), *expected->time, tolerance, most_spread);
}

std::string machine(std::string_view description) {
  std::string model = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      model = line.substr(colon + 2);
      break;
    }
  }
  return model + ", " + std::string(description);
}

std::string machine(const std::string& backend, int threads) {
  return machine(open_device(backend, {.threads = threads, .isa = {}, .sku = {}})->description());
}

}  // namespace ttt::inline v2::testing
