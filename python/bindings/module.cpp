// The Python module ttt._core: the public headers under the same names. docs/python.md is its page.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "ttt/base/error.h"
#include "ttt/base/version.h"
#include "ttt/hw/target.h"
#include "ttt/ops/backend.h"

namespace {

namespace nb = nanobind;

// ttt::Error becomes ttt.Error, which is written in Python (it has attributes).
void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const ttt::Error& error) {
    nb::object type = nb::module_::import_("ttt._error").attr("Error");
    nb::object value = type(error.problem(), error.where(), error.fix());
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "C++ core of ttt; import ttt instead.";
  nb::register_exception_translator(translate);
  m.def("version", &ttt::version, "Version of the library that is running, \"major.minor.patch\".");
  m.def("backend_names", &ttt::backend_names, "Backends that load() can open here.");
  m.def("precision_names", &ttt::precision_names,
        "Number formats and recipes that load() takes as precision.");
  m.def(
      "skus",
      [] {
        nb::dict all;
        for (const ttt::Sku* sku : ttt::hw::all())
          all[nb::str(sku->name.data(), sku->name.size())] =
              nb::str(sku->description.data(), sku->description.size());
        return all;
      },
      nb::sig("def skus() -> dict[str, str]"),
      "Hardware that plans can be resolved for: name and description.");
  ttt_python::bind_text(m);
  ttt_python::bind_model(m);
  ttt_python::bind_generation(m);
  ttt_python::bind_evaluation(m);
  ttt_python::bind_testing(m);
  ttt_python::bind_observers(m);
}
