// ttt models: the families of the installed and given libraries, what of them is shown to work, and what each
// costs in tests.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/testing/check.h"
#include "ttt/testing/networks.h"
#include "ttt/testing/registry.h"

namespace ttt_cli {

namespace {

using ttt::testing::Evidence;
using ttt::testing::ScalingRow;

struct ModelsFlags {
  std::vector<std::string> libraries, skus;
  std::string source = "models", evidence, precision = "performance", svg;
  bool json = false, markdown = false, scaling = false;
};

ttt::LoadOptions load_options(const ModelsFlags& flags) {
  return {.model_libraries = {flags.libraries.begin(), flags.libraries.end()}};
}

// ---------------------------------------------------------------- support matrix

std::string lines_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return std::to_string(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
}

struct MatrixRow {
  std::string architecture, family, file, lines, level, f32, bf16, precisions;
  bool passed = false;

  void print() const {
    const std::string link =
        file.empty() ? family : "[" + std::filesystem::path(file).filename().string() + "](" + file + ")";
    std::printf("| %s | %s | %s | %s | %s | %s | %s |\n", architecture.c_str(), link.c_str(), lines.c_str(),
                level.c_str(), f32.empty() ? "no golden" : f32.c_str(), bf16.c_str(), precisions.c_str());
  }
};

std::vector<MatrixRow> matrix(const ModelsFlags& flags, const std::vector<Evidence>& evidence) {
  std::vector<MatrixRow> rows;
  for (const ttt::FamilyInfo& family : ttt::families(load_options(flags).model_libraries)) {
    const std::filesystem::path source = ttt::testing::family_source(family.name, flags.source);
    for (const std::string& architecture : family.architectures) {
      MatrixRow row{.architecture = architecture, .family = family.name};
      if (!source.empty()) row.file = source.generic_string(), row.lines = lines_of(source);
      row.level = architecture != family.architectures.front() ? "alias"
                  : family.modules                             ? "custom module"
                                                               : "spec";
      // Of several goldens of an architecture the worst counts.
      std::size_t goldens = 0, passed = 0;
      std::optional<double> error, pcc;
      std::vector<std::string> precisions;
      for (const Evidence& e : evidence) {
        if (e.architecture != architecture) continue;
        ++goldens;
        passed += std::ranges::all_of(e.runs, [](const auto& run) { return run.second.passed; });
        for (const auto& [precision, run] : e.runs) {
          if (precision == "f32") error = std::max(error.value_or(0), run.largest_error);
          if (precision == "bf16") pcc = std::min(pcc.value_or(1), run.pcc);
          if (run.passed && std::ranges::find(precisions, precision) == precisions.end())
            precisions.push_back(precision);
        }
      }
      char text[64];
      const std::string of = std::to_string(passed) + "/" + std::to_string(goldens) + " pass";
      if (error)
        std::snprintf(text, sizeof text, "%s, largest error %.0e", of.c_str(), *error), row.f32 = text;
      if (pcc) std::snprintf(text, sizeof text, "PCC %.5f", *pcc), row.bf16 = text;
      row.passed = goldens > 0 && passed == goldens;
      std::ranges::reverse(precisions);
      row.precisions = joined(precisions);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

void print_matrix(const ModelsFlags& flags) {
  std::printf("| architecture | file | lines | level | golden, f32 | golden, bf16 | precisions |\n");
  std::printf("|---|---|---:|---|---|---|---|\n");
  const std::vector<MatrixRow> rows =
      matrix(flags, flags.evidence.empty() ? ttt::testing::golden_evidence()
                                           : ttt::testing::parse_evidence(read_text(flags.evidence)));
  for (const MatrixRow& row : rows) row.print();
  const auto passed = std::ranges::count_if(rows, [](const MatrixRow& row) { return row.passed; });
  std::printf("\n%zu architectures, %zd with goldens that all pass.\n", rows.size(), passed);
}

// ---------------------------------------------------------------- scaling

// A chart with a logarithmic axis, as SVG: one line per series over the number of models.
struct Series {
  std::string label, colour;
  std::vector<double> values;
};
std::string chart(const std::vector<Series>& series) {
  constexpr double width = 860, height = 460, left = 70, right = 250, top = 30, bottom = 50;
  double largest = 10;
  std::size_t count = 2;
  for (const Series& s : series) {
    count = std::max(count, s.values.size());
    for (double v : s.values) largest = std::max(largest, v);
  }
  const double decades = std::ceil(std::log10(largest));
  const auto x = [&](double i) { return left + (width - left - right) * i / static_cast<double>(count - 1); };
  const auto y = [&](double v) {
    return height - bottom - (height - top - bottom) * std::log10(std::max(v, 1.0)) / decades;
  };
  std::ostringstream svg;
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << " " << height
      << "\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" "
         "fill=\"#fff\"/>\n";
  for (int d = 0; d <= static_cast<int>(decades); ++d) {
    const double at = y(std::pow(10.0, d));
    svg << "<line x1=\"" << left << "\" x2=\"" << width - right << "\" y1=\"" << at << "\" y2=\"" << at
        << "\" stroke=\"#ddd\"/><text x=\"" << left - 8 << "\" y=\"" << at + 4 << "\" text-anchor=\"end\">"
        << static_cast<long long>(std::pow(10.0, d)) << "</text>\n";
  }
  for (std::size_t i = 0; i < count; i += 10)
    svg << "<text x=\"" << x(static_cast<double>(i)) << "\" y=\"" << height - bottom + 20
        << "\" text-anchor=\"middle\">" << i + (i == 0) << "</text>\n";
  svg << "<text x=\"" << (left + width - right) / 2 << "\" y=\"" << height - 10
      << "\" text-anchor=\"middle\">models, in the order of the registry</text>\n";
  for (const Series& s : series) {
    svg << "<polyline fill=\"none\" stroke=\"" << s.colour << "\" stroke-width=\"2\" points=\"";
    for (std::size_t i = 0; i < s.values.size(); ++i)
      svg << fixed(x(static_cast<double>(i)), 1) << "," << fixed(y(s.values[i]), 1) << " ";
    const double last = s.values.empty() ? 1 : s.values.back();
    svg << "\"/><text x=\"" << width - right + 8 << "\" y=\"" << y(last) + 4 << "\" fill=\"" << s.colour
        << "\">" << s.label << ": " << fixed(last, last < 10 ? 1 : 0) << "</text>\n";
  }
  svg << "</svg>\n";
  return svg.str();
}

void write_chart(const std::string& path, const std::vector<ScalingRow>& rows) {
  std::vector<Series> series{{"Models x Platforms x Tests", "#c0392b", {}},
                             {"module instances", "#2c6fbb", {}},
                             {"module kinds", "#1b8a5a", {}},
                             {"seconds of goldens", "#8e6bbf", {}}};
  for (const ScalingRow& row : rows) {
    series[0].values.push_back(static_cast<double>(row.product));
    series[1].values.push_back(static_cast<double>(row.instances));
    series[2].values.push_back(static_cast<double>(row.kinds));
    series[3].values.push_back(row.golden_seconds);
  }
  std::ofstream file(path, std::ios::binary);
  file << chart(series);
  if (!file.flush()) throw ttt::Error("can not be written", ttt::printable(path, 200), "change --svg");
}

void scaling(const ModelsFlags& flags) {
  std::vector<ttt::Target> targets;
  for (const ttt::Sku* sku : ttt::hw::all()) {
    const bool wanted = flags.skus.empty() ? sku->arch != ttt::Arch::cpu
                                           : std::ranges::find(flags.skus, sku->name) != flags.skus.end();
    if (wanted) targets.push_back(ttt::make_target(*sku, flags.precision, sku->mesh));
  }
  for (const std::string& name : flags.skus) (void)ttt::hw::find(name);  // an unknown one is an error
  const std::vector<ScalingRow> rows = ttt::testing::scaling(targets, load_options(flags));
  if (!flags.svg.empty()) write_chart(flags.svg, rows);
  if (flags.json) {
    Json list = Json::array();
    for (const ScalingRow& row : rows)
      list.push_back({{"architecture", row.architecture},
                      {"family", row.family},
                      {"new_kinds", row.new_kinds},
                      {"kinds", row.kinds},
                      {"new_instances", row.new_instances},
                      {"instances", row.instances},
                      {"product", row.product},
                      {"golden_s", row.golden_seconds}});
    print_json({{"platforms", targets.size()}, {"precision", flags.precision}, {"models", std::move(list)}});
    return;
  }
  Table table({"models", "architecture", "new kinds", "kinds", "new instances", "instances",
               "models x platforms x tests", "goldens s"});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const ScalingRow& row = rows[i];
    table.add({std::to_string(i + 1), row.architecture, std::to_string(row.new_kinds),
               std::to_string(row.kinds), std::to_string(row.new_instances), std::to_string(row.instances),
               std::to_string(row.product), fixed(row.golden_seconds, 1)});
  }
  table.print();
  std::printf(
      "%zu platforms, precision %s. An instance is a module kind at a shape, in number formats, in prefill "
      "or decode, "
      "on one platform;\nthe last but one column counts those of every model by itself, as if nothing were "
      "shared.\n",
      targets.size(), flags.precision.c_str());
}

// ---------------------------------------------------------------- list

void list(const ModelsFlags& flags) {
  const std::vector<ttt::FamilyInfo> all = ttt::families(load_options(flags).model_libraries);
  if (flags.json) {
    Json rows = Json::array();
    for (const ttt::FamilyInfo& family : all)
      rows.push_back({{"family", family.name},
                      {"architectures", family.architectures},
                      {"gguf", family.gguf},
                      {"library", family.library.string()}});
    print_json({{"models", std::move(rows)}});
    return;
  }
  Table table({"family", "architectures", "gguf", "library"});
  for (const ttt::FamilyInfo& family : all)
    table.add(
        {family.name, joined(family.architectures), joined(family.gguf), family.library.filename().string()});
  table.print();
}

}  // namespace

void print_support_row(const ttt::testing::CheckResult& result,
                       const std::vector<std::filesystem::path>& libraries) {
  ModelsFlags flags;
  for (const auto& library : libraries) flags.libraries.push_back(library.string());
  std::vector<Evidence> evidence;
  if (result.golden) evidence.push_back(ttt::testing::evidence_of(*result.golden));
  for (const MatrixRow& row : matrix(flags, evidence)) {
    if (row.architecture == result.architecture) row.print();
  }
}

void add_models(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("models", "The model families of the installed and given libraries");
  auto flags = std::make_shared<ModelsFlags>();
  app->add_option("--models", flags->libraries, "Model libraries besides the installed ones and $TTT_MODELS")
      ->type_name("LIB");
  CLI::Option* markdown = app->add_flag("--markdown", flags->markdown,
                                        "Print the support matrix: file, lines, level, goldens, precisions");
  app->add_option("--source", flags->source, "Folder of the model files, for their lines")
      ->capture_default_str()
      ->type_name("DIR")
      ->needs(markdown);
  app->add_option("--evidence", flags->evidence,
                  "What goldens showed, as ttt eval golden --record writes it; default: what the release has")
      ->type_name("FILE")
      ->needs(markdown);
  CLI::Option* scale = app->add_flag("--scaling", flags->scaling,
                                     "Print how the test set grows with each model, in the registry's order")
                           ->excludes(markdown);
  app->add_option("--sku", flags->skus, "Platforms to count; default: all cards (see ttt hw)")
      ->type_name("NAME")
      ->needs(scale);
  app->add_option("--precision", flags->precision, "Number formats of the instances")
      ->capture_default_str()
      ->type_name("NAME")
      ->needs(scale);
  app->add_option("--svg", flags->svg, "Also draw it")->type_name("FILE")->needs(scale);
  add_json_flag(app, flags->json);
  examples(app,
           {"ttt models", "ttt models --models build/libmine.so --json", "ttt models --markdown > matrix.md",
            "ttt models --scaling --svg scaling.svg", "ttt models --scaling --sku n150 --precision bf16"});
  app->callback([flags] {
    if (flags->markdown) return print_matrix(*flags);
    if (flags->scaling) return scaling(*flags);
    list(*flags);
  });
}

}  // namespace ttt_cli
