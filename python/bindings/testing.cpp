// Which tests a question is about, and module instances run: what `ttt tests` does.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "ttt/testing/instance_run.h"
#include "ttt/testing/selection.h"

namespace ttt_python {

namespace {

namespace testing = ttt::testing;

nb::dict dict_of(const testing::SelectedInstance& s) {
  nb::dict row;
  row["key"] = s.instance.key();
  row["kind"] = s.instance.kind.key();
  row["network"] = s.network->name;
  row["architecture"] = s.network->description.architecture;
  row["path"] = s.instance.path;
  row["why"] = s.reason;
  return row;
}

const char* word(testing::Outcome outcome) {
  return outcome == testing::Outcome::passed ? "pass" : outcome == testing::Outcome::failed ? "fail" : "skip";
}

nb::dict run(const testing::SelectedInstance& s, const testing::InstanceOptions& options) {
  testing::InstanceResult result;
  {
    const nb::gil_scoped_release unlocked;
    result = testing::run_instance(s, options);
    check_signals();
  }
  nb::dict row = dict_of(s);
  row["outcome"] = word(result.outcome);
  row["detail"] = result.detail;
  row["pcc"] = result.pcc;
  row["error"] = result.error;
  row["seconds"] = result.seconds;
  return row;
}

}  // namespace

void bind_testing(nb::module_& m) {
  nb::class_<testing::Selection>(m, "Selection", "Tests that a question is about.")
      .def_prop_ro(
          "instances",
          [](const testing::Selection& s) {
            nb::list rows;
            for (const auto& instance : s.instances) rows.append(dict_of(instance));
            return rows;
          },
          nb::sig("def instances(self) -> list[dict]"), "Module instances: key, kind, network, path, why.")
      .def_ro("of_instances", &testing::Selection::of_instances, "Instances of the whole set.")
      .def_prop_ro(
          "tests",
          [](const testing::Selection& s) {
            nb::list rows;
            for (const auto& c : s.cases) {
              nb::dict row;
              row["test"] = c.name;
              row["why"] = c.reason;
              rows.append(row);
            }
            return rows;
          },
          nb::sig("def tests(self) -> list[dict]"), "Tests of ctest that a change can break: test, why.")
      .def_ro("notes", &testing::Selection::notes)
      .def(
          "run",
          [](const testing::Selection& s, const std::string& backend, int threads, std::size_t memory_mb,
             int repeats) {
            nb::list rows;
            for (const auto& instance : s.instances)
              rows.append(run(
                  instance,
                  {.backend = backend, .threads = threads, .memory = memory_mb << 20, .repeats = repeats}));
            return rows;
          },
          nb::kw_only(), nb::arg("backend") = "cpu", nb::arg("threads") = 0, nb::arg("memory_mb") = 256,
          nb::arg("repeats") = 0,
          nb::sig(
              "def run(self, *, backend: str = 'cpu', threads: int = 0, memory_mb: int = 256, repeats: int "
              "= 0) -> list[dict]"),
          "Runs the instances: outcome, detail, pcc, error, and the seconds of each of `repeats` samples.");
  m.def(
      "select_tests",
      [](const std::filesystem::path& model, const std::string& family, std::vector<std::string> skus,
         const std::string& precision, const std::string& module, const std::string& changed,
         std::vector<std::string> files, const std::filesystem::path& added,
         const std::filesystem::path& build, std::vector<std::filesystem::path> model_libraries) {
        return testing::select_tests({.model = model,
                                      .family = family,
                                      .skus = std::move(skus),
                                      .precision = precision,
                                      .module = module,
                                      .changed = changed,
                                      .files = std::move(files),
                                      .added = added,
                                      .build = build,
                                      .model_libraries = std::move(model_libraries)});
      },
      nb::kw_only(), nb::arg("model") = "", nb::arg("family") = "",
      nb::arg("skus") = std::vector<std::string>(), nb::arg("precision") = "performance",
      nb::arg("module") = "", nb::arg("changed") = "", nb::arg("files") = std::vector<std::string>(),
      nb::arg("added") = "", nb::arg("build") = "",
      nb::arg("model_libraries") = std::vector<std::filesystem::path>(),
      nb::call_guard<nb::gil_scoped_release>(),
      "Tests by model, family, platforms, module, change (a git range) or new checkpoint, as `ttt tests "
      "select`.");
}

}  // namespace ttt_python
