#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "ttt/base/error.h"
#include "ttt/testing/evaluate.h"

namespace ttt_python {

namespace {

namespace testing = ttt::testing;
using Unlocked = nb::call_guard<nb::gil_scoped_release>;

const ttt::Tokenizer& tokenizer_of(const Model& model) {
  if (!model.loaded->tokenizer)
    throw ttt::Error("no tokenizer", "evaluate_perplexity", "load a checkpoint that has one");
  return *model.loaded->tokenizer;
}

testing::Bos parse_bos(const std::string& text) {
  if (text == "auto") return testing::Bos::automatic;
  if (text == "yes") return testing::Bos::yes;
  if (text == "no") return testing::Bos::no;
  throw ttt::Error("bos is '" + ttt::printable(text) + "'", "evaluate_perplexity", "use auto, yes or no");
}

}  // namespace

void bind_evaluation(nb::module_& m) {
  using Perplexity = testing::PerplexityResult;
  nb::class_<Perplexity>(m, "PerplexityResult")
      .def_ro("perplexity", &Perplexity::perplexity)
      .def_ro("word_perplexity", &Perplexity::word_perplexity)
      .def_ro("bits_per_byte", &Perplexity::bits_per_byte)
      .def_ro("tokens", &Perplexity::tokens)
      .def_ro("scored", &Perplexity::scored)
      .def_ro("words", &Perplexity::words)
      .def_ro("windows", &Perplexity::windows)
      .def_ro("seconds", &Perplexity::seconds);
  m.def(
      "evaluate_perplexity",
      [](const Model& model, const std::string& text, std::size_t tokens, int context, int stride,
         const std::string& bos) {
        return testing::evaluate_perplexity(model.network(), tokenizer_of(model), text,
                                            {.tokens = tokens,
                                             .context = context,
                                             .stride = stride,
                                             .bos = parse_bos(bos),
                                             .progress = interruptible()});
      },
      nb::arg("model"), nb::arg("text"), nb::kw_only(), nb::arg("tokens") = 0, nb::arg("context") = 0,
      nb::arg("stride") = 0, nb::arg("bos") = "auto", Unlocked(),
      "Token and word perplexity of a text, as `ttt eval perplexity` prints them.");

  using Accuracy = testing::TokenAccuracyResult;
  nb::class_<Accuracy>(m, "TokenAccuracyResult")
      .def_ro("top1", &Accuracy::top1)
      .def_ro("top5", &Accuracy::top5)
      .def_ro("positions", &Accuracy::positions)
      .def_ro("seconds", &Accuracy::seconds);
  m.def(
      "evaluate_tokens",
      [](const Model& model, const std::filesystem::path& reference, std::size_t prefill) {
        return testing::evaluate_tokens(model.network(), testing::Reference::open(reference),
                                        {.prefill = prefill, .progress = interruptible()});
      },
      nb::arg("model"), nb::arg("reference"), nb::kw_only(), nb::arg("prefill") = 512, Unlocked(),
      "Top-1 and top-5 agreement with a reference file by teacher forcing.");

  using Run = testing::GoldenRun;
  nb::class_<Run>(m, "GoldenRun", "One golden at one precision.")
      .def_ro("precision", &Run::precision)
      .def_ro("passed", &Run::passed)
      .def_ro("max_error", &Run::max_error)
      .def_ro("pcc", &Run::pcc)
      .def_ro("tokens_equal", &Run::tokens_equal)
      .def_ro("tokens", &Run::tokens)
      .def_ro("diverges", &Run::diverges)
      .def_ro("failure", &Run::failure);
  using Golden = testing::GoldenResult;
  nb::class_<Golden>(m, "GoldenResult")
      .def_ro("name", &Golden::name)
      .def_ro("architecture", &Golden::architecture)
      .def_ro("family", &Golden::family)
      .def_ro("runs", &Golden::runs)
      .def_prop_ro("passed", &Golden::passed);
  m.def(
      "evaluate_golden",
      [](const std::filesystem::path& path, std::vector<std::string> precisions, bool chunks, bool batch,
         const std::string& backend) {
        testing::GoldenOptions options{.load = {.backend = backend},
                                       .precisions = std::move(precisions),
                                       .chunks = chunks,
                                       .batch = batch};
        return testing::evaluate_golden(path, options);
      },
      nb::arg("path"), nb::kw_only(), nb::arg("precisions") = std::vector<std::string>{"f32", "bf16"},
      nb::arg("chunks") = false, nb::arg("batch") = false, nb::arg("backend") = "cpu", Unlocked(),
      "Runs a checkpoint against what transformers computed for it, as `ttt eval golden` does.");
}

}  // namespace ttt_python
