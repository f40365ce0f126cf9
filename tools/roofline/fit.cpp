// roofline_fit: how well the roofline predicts published measurements, and the terms that predict them best.
//
//   roofline_fit --rows published.csv --models full_size.json [--fit FILE] [--unseen] [--most SPEED FIRST]
//
// Prints the median absolute error over all rows, by SKU and by model. --fit searches the terms and writes
// them to FILE; --unseen also predicts each model's rows by terms that were fitted without them; with --most
// the exit status is 1 when an error over all rows is larger, in percent.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>

#include "ttt/base/error.h"
#include "ttt/convert/load.h"
#include "ttt/model/build.h"
#include "ttt/ops/backend.h"
#include "ttt/runtime/planner.h"
#include "ttt/tensor/shape_source.h"

namespace {

using namespace ttt;
using Json = nlohmann::ordered_json;

struct Options {
  std::string rows, models, fit;
  bool unseen = false;
  double most_speed = 0, most_first = 0;  // 0: no limit
};

struct Row {
  std::string model, sku, recipe, precision;
  std::int64_t batch = 0, context = 0;
  double speed = 0, first_ms = 0;  // published; 0: not
  Recording recording{};
};

std::vector<Row> read_rows(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("the rows cannot be read", path);
  std::vector<Row> rows;
  std::string line;
  for (std::getline(file, line); std::getline(file, line);) {
    std::vector<std::string> cells;
    std::istringstream text(line);
    for (std::string cell; std::getline(text, cell, ',');) cells.push_back(cell);
    cells.resize(8);
    const auto number = [](const std::string& cell) { return cell.empty() ? 0.0 : std::stod(cell); };
    rows.push_back({.model = cells[0],
                    .sku = cells[1],
                    .recipe = cells[2],
                    .precision = cells[3],
                    .batch = std::stoll(cells[4]),
                    .context = std::stoll(cells[5]),
                    .speed = number(cells[6]),
                    .first_ms = number(cells[7])});
  }
  return rows;
}

Recording record_row(const Row& row, const std::string& config) {
  const Sku& sku = hw::find(row.sku);
  const Mesh mesh = hw::whole_mesh(sku);
  const LoadOptions options{.backend = "null", .sku = row.sku, .mesh = mesh, .precision = row.precision};
  const Description d = describe_config(config, options);
  const auto device = open_device("null", {.mesh = mesh, .sku = row.sku});
  const auto weights = [](const WeightSlot& slot) {
    return LazyWeight(make_shape(slot.rows, slot.cols), slot.role, slot.name);
  };
  const auto lm = build(d.spec, weights, d.target, {.device = device, .cache = {}, .bound = {}});
  return record(*lm, {.batch = row.batch, .context = row.context});
}

// ---------------------------------------------------------------- errors

struct Errors {
  std::vector<double> speed, first;  // |predicted / published - 1|
  void add(const Row& row, const hw::Calibration& c) {
    const Roofline r = predict(hw::find(row.sku), row.recording, c);
    if (row.speed > 0) speed.push_back(std::abs(r.tokens_per_second_per_user / row.speed - 1));
    if (row.first_ms > 0) first.push_back(std::abs(r.time_to_first_token * 1e3 / row.first_ms - 1));
  }
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// What the search makes small: the mean absolute logarithm of predicted over published, which no single row
// dominates.
double loss(const std::vector<const Row*>& rows, const hw::Calibration& c) {
  double sum = 0;
  std::size_t count = 0;
  for (const Row* row : rows) {
    const Roofline r = predict(hw::find(row->sku), row->recording, c);
    if (row->speed > 0) sum += std::abs(std::log(r.tokens_per_second_per_user / row->speed)), ++count;
    if (row->first_ms > 0) sum += std::abs(std::log(r.time_to_first_token * 1e3 / row->first_ms)), ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

// ---------------------------------------------------------------- the search

// Every search begins here, so that none knows what another has found.
hw::Calibration beginning() {
  hw::Calibration c;
  for (const hw::CalibrationTerm& term : hw::calibration_terms())
    c.*term.value = std::sqrt(std::max(term.least, term.most * 1e-2) * term.most);
  return c;
}

// Each term by itself, in steps that shrink, over and over: the loss is not smooth.
hw::Calibration fit(const std::vector<const Row*>& rows) {
  hw::Calibration c = beginning();
  double best = loss(rows, c);
  for (double step = 4; step > 1.004; step = std::sqrt(step)) {
    for (bool better = true; better;) {
      better = false;
      for (const hw::CalibrationTerm& term : hw::calibration_terms()) {
        for (const double factor : {step, 1 / step}) {
          hw::Calibration other = c;
          const double from = std::max(c.*term.value, term.most * 1e-3);
          other.*term.value = std::clamp(from * factor, term.least, term.most);
          const double now = loss(rows, other);
          if (now < best - 1e-7) best = now, c = other, better = true;
        }
      }
    }
  }
  return c;
}

std::vector<const Row*> all_but(const std::vector<Row>& rows, std::string_view model) {
  std::vector<const Row*> kept;
  for (const Row& row : rows) {
    if (row.model != model) kept.push_back(&row);
  }
  return kept;
}

// ---------------------------------------------------------------- report

Json report(const Errors& e) {
  return {{"rows", e.speed.size()},
          {"speed_median_error_percent", 100 * median(e.speed)},
          {"first_token_rows", e.first.size()},
          {"first_token_median_error_percent", 100 * median(e.first)}};
}

void print(const std::string& name, const Json& e) {
  std::printf("%-28s %3d rows  speed %5.1f %%   %3d rows  first token %5.1f %%\n", name.c_str(),
              e.at("rows").get<int>(), e.at("speed_median_error_percent").get<double>(),
              e.at("first_token_rows").get<int>(), e.at("first_token_median_error_percent").get<double>());
}

int run(const Options& o) {
  std::vector<Row> rows = read_rows(o.rows);
  std::map<std::string, std::string> configs;
  std::ifstream models(o.models);
  if (!models) throw Error("the models cannot be read", o.models);
  for (const Json& model : Json::parse(models))
    configs[model.at("name").get<std::string>()] = model.at("config").dump();
  for (Row& row : rows) row.recording = record_row(row, configs.at(row.model));

  hw::Calibration c = hw::calibration();
  if (!o.fit.empty()) {
    c = fit(all_but(rows, ""));
    std::ofstream(o.fit) << hw::to_json(c);
  }
  Json result;
  Errors all, unseen;
  std::map<std::string, Errors> by_sku, by_model;
  for (const Row& row : rows) all.add(row, c), by_sku[row.sku].add(row, c), by_model[row.model].add(row, c);
  for (const auto& [model, seen] : by_model) {
    if (!o.unseen) break;
    const hw::Calibration without = fit(all_but(rows, model));
    for (const Row& row : rows) {
      if (row.model == model) unseen.add(row, without);
    }
  }
  result["all"] = report(all);
  if (o.unseen) result["by terms fitted without it"] = report(unseen);
  for (const auto& [sku, errors] : by_sku) result[sku] = report(errors);
  for (const auto& [model, errors] : by_model) result[model] = report(errors);
  std::printf("%-16s %-7s %-12s %5s %7s %18s %22s\n", "model", "sku", "recipe", "batch", "context",
              "tokens/s/user", "first token, ms");
  for (const Row& row : rows) {
    const Roofline r = predict(hw::find(row.sku), row.recording, c);
    std::printf("%-16s %-7s %-12s %5lld %7lld %8.1f of %6.1f", row.model.c_str(), row.sku.c_str(),
                row.recipe.c_str(), static_cast<long long>(row.batch), static_cast<long long>(row.context),
                r.tokens_per_second_per_user, row.speed);
    if (row.first_ms > 0) std::printf(" %10.1f of %8.1f", r.time_to_first_token * 1e3, row.first_ms);
    std::printf("\n");
  }
  std::printf("\nterms\n");
  for (const hw::CalibrationTerm& term : hw::calibration_terms())
    std::printf("  %-22s %.4g\n", std::string(term.name).c_str(), c.*term.value);
  std::printf("\nmedian absolute error\n");
  for (const auto& [name, errors] : result.items()) print(name, errors);
  const auto within = [](double error, double most) { return most == 0 || 100 * error <= most; };
  return within(median(all.speed), o.most_speed) && within(median(all.first), o.most_first) ? 0 : 1;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] {
      if (i + 1 >= argc) throw Error(flag + " without a value");
      return std::string(argv[++i]);
    };
    if (flag == "--rows")
      o.rows = value();
    else if (flag == "--models")
      o.models = value();
    else if (flag == "--fit")
      o.fit = value();
    else if (flag == "--unseen")
      o.unseen = true;
    else if (flag == "--most")
      o.most_speed = std::stod(value()), o.most_first = std::stod(value());
    else
      throw Error("no option " + printable(flag), {}, "see the head of tools/roofline/fit.cpp");
  }
  if (o.rows.empty() || o.models.empty()) throw Error("no --rows or no --models");
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
