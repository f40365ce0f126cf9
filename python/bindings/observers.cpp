// What a model computes on the way, where it leaves another run, and where its time goes: `ttt debug` and
// `ttt perf`.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "bindings.h"
#include "ttt/base/error.h"
#include "ttt/testing/expectations.h"
#include "ttt/testing/report.h"

namespace ttt_python {

namespace {

namespace fs = std::filesystem;
namespace testing = ttt::testing;
using Unlocked = nb::call_guard<nb::gil_scoped_release>;

// Results with what their documents say of the model.
struct DebugRun {
  testing::DebugRun run;
  testing::ReportSubject subject;

  const ttt::debug::Intermediate& at(const std::string& tap) const {
    const ttt::debug::Intermediate* found = run.find(tap);
    if (found == nullptr) throw nb::key_error(tap.c_str());
    return *found;
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> names;
    for (const auto& tap : run.taps) names.push_back(tap.tap);
    return names;
  }
};
struct Comparison {
  testing::Comparison comparison;
  testing::ReportSubject subject;
};
struct Profile {
  testing::ProfileResult result;
  testing::ReportSubject subject;
};

nb::ndarray<nb::numpy, float> rows_of(const ttt::debug::Intermediate& tap) {
  auto values = std::make_unique<std::vector<float>>(tap.values);
  float* const data = values->data();
  return numpy_array(data, {static_cast<std::size_t>(tap.rows), static_cast<std::size_t>(tap.features)},
                     std::move(values));
}

std::vector<testing::Expectation> expectations(const std::optional<fs::path>& path) {
  if (!path) return testing::known_expectations("cpu");
  std::ifstream file(*path, std::ios::binary);
  if (!file) throw ttt::Error("can not be read", ttt::printable(path->string(), 200), "check the path");
  return testing::parse_expectations(std::string(std::istreambuf_iterator<char>(file), {}));
}

DebugRun run(const Model& model, const std::string& name, const std::vector<std::int32_t>& prompt,
             const std::string& taps, const std::string& layers, std::size_t decode, bool hunt) {
  DebugRun result{
      testing::debug_run(
          model.network(), prompt,
          {.taps = testing::select_taps(taps, layers), .decode = decode, .hunt = hunt, .inputs = {}}),
      testing::report_subject(*model.loaded, name, prompt)};
  check_signals();
  return result;
}

struct CompareArguments {
  std::string taps, layers;
  std::size_t decode;
  bool isolate, hunt;
  double pcc, tolerance;
  std::optional<fs::path> expectations;

  testing::CompareOptions options(const Model& model, const ttt::Target& other) const {
    testing::CompareOptions o{
        .debug = {.taps = testing::select_taps(taps, layers), .decode = decode, .hunt = hunt, .inputs = {}},
        .details = true,
        .isolate = isolate};
    o = testing::expecting(std::move(o), model.network(), other, ttt_python::expectations(expectations));
    if (tolerance > 0) o.bound = {.tolerance = tolerance}, o.bounds = {};
    if (pcc > 0) o.bound.required_pcc = pcc, o.bounds = {};
    return o;
  }
};

Comparison compared(const Model& model, const std::string& name, testing::Comparison c) {
  testing::ReportSubject subject = testing::report_subject(*model.loaded, name, c.prompt);
  check_signals();
  return {std::move(c), std::move(subject)};
}

}  // namespace

void bind_observers(nb::module_& m) {
  nb::class_<DebugRun>(
      m, "DebugRun",
      "What a model computed on the way: a mapping from the names of intermediates to float32 "
      "arrays [tokens, features], in the order of execution.")
      .def("keys", &DebugRun::keys)
      .def(
          "__iter__", [](const DebugRun& r) { return nb::iter(nb::cast(r.keys())); },
          nb::sig("def __iter__(self) -> collections.abc.Iterator[str]"))
      .def("__len__", [](const DebugRun& r) { return r.run.taps.size(); })
      .def("__contains__",
           [](const DebugRun& r, const std::string& tap) { return r.run.find(tap) != nullptr; })
      .def(
          "__getitem__", [](const DebugRun& r, const std::string& tap) { return rows_of(r.at(tap)); },
          nb::arg("tap"), nb::sig("def __getitem__(self, tap: str) -> numpy.ndarray"))
      .def_prop_ro("prompt", [](const DebugRun& r) { return r.run.prompt; })
      .def_prop_ro(
          "non_finite",
          [](const DebugRun& r) {
            std::vector<std::string> found;
            for (const auto& n : r.run.non_finite) found.push_back(ttt::debug::to_string(n));
            return found;
          },
          "Operations that made NaN or infinities out of finite operands, the first one first.")
      .def(
          "save", [](const DebugRun& r, const fs::path& path) { testing::write_reference(r.run, path); },
          nb::arg("path"), Unlocked(),
          "Writes a reference file, which compare() and `ttt debug compare` read.")
      .def_prop_ro(
          "document", [](const DebugRun& r) { return parse_json(testing::to_json(r.run, r.subject)); },
          nb::sig("def document(self) -> dict"), "The statistics, as `ttt debug run --json` prints them.");
  m.def("debug_run", &run, nb::arg("model"), nb::arg("name"), nb::arg("prompt"), nb::kw_only(),
        nb::arg("taps") = "", nb::arg("layers") = "", nb::arg("decode") = 0, nb::arg("hunt") = true,
        Unlocked());

  nb::class_<Comparison>(m, "Comparison",
                         "Intermediates of a model beside those of a reference or another run.")
      .def_prop_ro("agrees", [](const Comparison& c) { return c.comparison.first() == nullptr; })
      .def_prop_ro(
          "first_divergence",
          [](const Comparison& c) -> std::optional<std::string> {
            const testing::TapDifference* first = c.comparison.first();
            return first == nullptr ? std::nullopt : std::optional(first->tap);
          },
          "The first intermediate that differs more than expected: the module to look at.")
      .def_prop_ro("grows_most_at",
                   [](const Comparison& c) -> std::optional<std::string> {
                     const testing::TapDifference* steepest = c.comparison.steepest();
                     return steepest == nullptr ? std::nullopt : std::optional(steepest->tap);
                   })
      .def_prop_ro("expected", [](const Comparison& c) { return c.comparison.expected(); })
      .def_prop_ro(
          "document",
          [](const Comparison& c) { return parse_json(testing::to_json(c.comparison, c.subject)); },
          nb::sig("def document(self) -> dict"),
          "Everything, as `ttt debug compare --json` prints it; its \"taps\" are in the order of execution.")
      .def("__repr__", [](const Comparison& c) {
        const testing::TapDifference* first = c.comparison.first();
        return "<ttt.debug.Comparison: " +
               (first == nullptr ? std::to_string(c.comparison.taps.size()) + " intermediates as expected"
                                 : "first divergence " + testing::to_string(*first)) +
               ">";
      });
  using Path = std::optional<fs::path>;
  m.def(
      "debug_compare_reference",
      [](const Model& model, const std::string& name, const fs::path& reference, std::string taps,
         std::string layers, std::size_t decode, bool isolate, bool hunt, double pcc, double tolerance,
         Path rows) {
        const testing::Reference file = testing::Reference::open(reference);
        const CompareArguments a{std::move(taps), std::move(layers), decode, isolate, hunt, pcc,
                                 tolerance,       std::move(rows)};
        const ttt::Target other = ttt::make_target(model.network().target().sku, file.precision());
        return compared(model, name, testing::compare(model.network(), file, a.options(model, other)));
      },
      nb::arg("model"), nb::arg("name"), nb::arg("reference"), nb::kw_only(), nb::arg("taps") = "",
      nb::arg("layers") = "", nb::arg("decode") = 0, nb::arg("isolate") = false, nb::arg("hunt") = true,
      nb::arg("pcc") = 0.0, nb::arg("tolerance") = 0.0, nb::arg("expectations") = nb::none(), Unlocked());
  m.def(
      "debug_compare_models",
      [](const Model& model, const std::string& name, const Model& other,
         const std::vector<std::int32_t>& prompt, std::string taps, std::string layers, std::size_t decode,
         bool isolate, bool hunt, double pcc, double tolerance, Path rows) {
        const CompareArguments a{std::move(taps), std::move(layers), decode, isolate, hunt, pcc,
                                 tolerance,       std::move(rows)};
        return compared(model, name,
                        testing::compare(model.network(), other.network(), prompt,
                                         a.options(model, other.network().target())));
      },
      nb::arg("model"), nb::arg("name"), nb::arg("other"), nb::arg("prompt"), nb::kw_only(),
      nb::arg("taps") = "", nb::arg("layers") = "", nb::arg("decode") = 0, nb::arg("isolate") = false,
      nb::arg("hunt") = true, nb::arg("pcc") = 0.0, nb::arg("tolerance") = 0.0,
      nb::arg("expectations") = nb::none(), Unlocked());

  nb::class_<Profile>(m, "Profile", "Where the time of prefill and of a decode step goes.")
      .def_prop_ro(
          "document", [](const Profile& p) { return parse_json(testing::to_json(p.result, p.subject)); },
          nb::sig("def document(self) -> dict"), "Everything, as `ttt perf run --json` prints it.")
      .def_prop_ro(
          "phases",
          [](const Profile& p) -> nb::object {
            const nb::object document = parse_json(testing::to_json(p.result, p.subject));
            return document["phases"];
          },
          nb::sig("def phases(self) -> list[dict]"),
          "Prefill and decode: time_ms, bytes, flops, of_roof_percent, and rows of every module and "
          "operation.")
      .def_prop_ro(
          "trace", [](const Profile& p) { return nb::bytes(p.result.trace.data(), p.result.trace.size()); },
          "A trace for https://ui.perfetto.dev; write it into a file.");
  m.def(
      "profile",
      [](const Model& model, const std::string& name, int prompt_tokens, int new_tokens, int batch,
         int repeats, int threads, bool serving, const Path& rows) {
        Profile p{testing::profile(model.network(), {.prompt_tokens = prompt_tokens,
                                                     .new_tokens = new_tokens,
                                                     .batch = batch,
                                                     .repeats = repeats,
                                                     .threads = threads,
                                                     .serving = serving,
                                                     .progress = interruptible()}),
                  testing::report_subject(*model.loaded, name)};
        testing::judge(p.result, model.network(), expectations(rows));
        return p;
      },
      nb::arg("model"), nb::arg("name"), nb::kw_only(), nb::arg("prompt_tokens") = 128,
      nb::arg("new_tokens") = 16, nb::arg("batch") = 1, nb::arg("repeats") = 3, nb::arg("threads") = 0,
      nb::arg("serving") = true, nb::arg("expectations") = nb::none(), Unlocked());

  m.def(
      "html_report",
      [](const std::vector<nb::object>& documents) {
        std::vector<std::string> texts;
        for (const nb::object& document : documents) texts.push_back(json_text(document));
        return testing::html_report(texts);
      },
      nb::arg("documents"),
      nb::sig("def html_report(documents: collections.abc.Sequence[dict | str]) -> str"));
}

}  // namespace ttt_python
