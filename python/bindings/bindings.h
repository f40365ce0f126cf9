// What the parts of the Python module share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "ttt/convert/load.h"
#include "ttt/testing/evaluate.h"

namespace ttt_python {

namespace nb = nanobind;

// What Python holds of a loaded model: everything made from it keeps it alive.
using ModelPtr = std::shared_ptr<ttt::LoadedModel>;

struct Model {
  ModelPtr loaded;
  const ttt::CausalLM& network() const { return *loaded->model; }
};

void bind_text(nb::module_&);   // Tokenizer, ChatTemplate, StreamDecoder
void bind_model(nb::module_&);  // ModelSpec, WeightMap, load, describe, Model, Batch, State, Tensor, Taps
void bind_generation(nb::module_&);  // SamplingParams, Generator, results
void bind_evaluation(nb::module_&);  // perplexity, token agreement, goldens
void bind_testing(nb::module_&);     // Selection, select_tests
void bind_observers(nb::module_&);   // DebugRun, Comparison, Profile, the HTML report

// Lets Python handle Ctrl-C and other signals; throws what it raises. Called without the GIL, from time to
// time by whatever takes long.
inline void check_signals() {
  const nb::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

inline ttt::testing::Progress interruptible() {
  return [](std::size_t, std::size_t) { check_signals(); };
}

inline nb::object parse_json(const std::string& text) {
  return nb::module_::import_("json").attr("loads")(text);
}
// JSON text of what is text already, or of a Python object.
inline std::string json_text(const nb::object& value) {
  if (nb::isinstance<nb::str>(value)) return nb::cast<std::string>(value);
  return nb::cast<std::string>(nb::module_::import_("json").attr("dumps")(value));
}

// A numpy array over memory that `owner` holds.
template <class T, class Owner>
nb::ndarray<nb::numpy, T> numpy_array(T* data, std::initializer_list<std::size_t> shape,
                                      std::unique_ptr<Owner> owner) {
  nb::capsule keep(owner.get(), [](void* p) noexcept { delete static_cast<Owner*>(p); });
  (void)owner.release();
  return nb::ndarray<nb::numpy, T>(data, shape, keep);
}

}  // namespace ttt_python
