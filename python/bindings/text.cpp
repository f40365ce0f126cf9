#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/runtime/chat.h"
#include "ttt/text/stream_decoder.h"

namespace ttt_python {

namespace {

using Ids = std::vector<std::int32_t>;
using Unlocked = nb::call_guard<nb::gil_scoped_release>;

ttt::RenderOptions render_options(bool add_generation_prompt, bool continue_final_message,
                                  const nb::object& tools, const nb::object& variables) {
  ttt::RenderOptions options;
  options.add_generation_prompt = add_generation_prompt;
  options.continue_final_message = continue_final_message;
  if (!tools.is_none()) options.tools = json_text(tools);
  if (!variables.is_none()) options.variables = json_text(variables);
  return options;
}

}  // namespace

void bind_text(nb::module_& m) {
  nb::class_<ttt::Tokenizer>(m, "Tokenizer",
                             "Text to token ids and back. Immutable; any number of threads may use one.")
      .def_static(
          "from_file", &ttt::Tokenizer::from_file, nb::arg("path"), Unlocked(),
          "From a tokenizer.json, tokenizer.model, tekken.json or *.tiktoken, or a folder that holds one.")
      .def_static(
          "from_checkpoint",
          [](const std::filesystem::path& path) { return ttt::Checkpoint::open(path).tokenizer(); },
          nb::arg("path"), Unlocked(),
          "The tokenizer of a Hugging Face folder or a GGUF file; no weight is read.")
      .def(
          "encode",
          [](const ttt::Tokenizer& t, std::string_view text, bool special, bool parse) {
            return t.encode(text, {.add_special_tokens = special, .parse_special = parse});
          },
          nb::arg("text"), nb::kw_only(), nb::arg("add_special_tokens") = true,
          nb::arg("parse_special") = true, Unlocked(),
          "Ids of a text. parse_special=False: text from users, in which special tokens stay plain text.")
      .def(
          "decode",
          [](const ttt::Tokenizer& t, const Ids& ids, bool skip) {
            return t.decode(ids, {.skip_special_tokens = skip});
          },
          nb::arg("ids"), nb::kw_only(), nb::arg("skip_special_tokens") = true, Unlocked(), "Text of ids.")
      .def("token_to_id", &ttt::Tokenizer::token_to_id, nb::arg("token"),
           "Id of a token as the vocabulary spells it.")
      .def(
          "id_to_token",
          [](const ttt::Tokenizer& t, std::int32_t id) -> std::optional<std::string> {
            const auto token = t.id_to_token(id);
            return token ? std::optional(std::string(*token)) : std::nullopt;
          },
          nb::arg("id"), "Token as the vocabulary spells it.")
      .def(
          "token_bytes",
          [](const ttt::Tokenizer& t, std::int32_t id) {
            const std::string_view bytes = t.token_bytes(id);
            return nb::bytes(bytes.data(), bytes.size());
          },
          nb::arg("id"), "Bytes that the id adds to a text; may be part of a UTF-8 sequence.")
      .def("is_special", &ttt::Tokenizer::is_special, nb::arg("id"))
      .def_prop_ro("vocab_size", &ttt::Tokenizer::vocab_size, "Largest id + 1.")
      .def_prop_ro("bos_id", &ttt::Tokenizer::bos_id)
      .def_prop_ro("eos_id", &ttt::Tokenizer::eos_id)
      .def_prop_ro("pad_id", &ttt::Tokenizer::pad_id)
      .def_prop_ro("unk_id", &ttt::Tokenizer::unk_id)
      .def_prop_ro("end_ids", &ttt::Tokenizer::end_ids, "Ids that end a generation.");

  nb::class_<ttt::StreamDecoder>(m, "StreamDecoder",
                                 "Text of ids that arrive one by one; never half a character.")
      .def(nb::init<ttt::Tokenizer>(), nb::arg("tokenizer"))
      .def("push", nb::overload_cast<std::int32_t>(&ttt::StreamDecoder::push), nb::arg("id"),
           "The text that is certain now.")
      .def("finish", &ttt::StreamDecoder::finish, "What was still held back.");

  nb::class_<ttt::ChatTemplate>(m, "ChatTemplate", "A checkpoint's chat template. Immutable and thread-safe.")
      .def_prop_ro("source", &ttt::ChatTemplate::source, "The Jinja source.")
      .def(
          "render",
          [](const ttt::ChatTemplate& t, const nb::object& messages, bool generation, bool proceed,
             const nb::object& tools, const nb::object& variables) {
            const ttt::RenderOptions options = render_options(generation, proceed, tools, variables);
            const std::string json = json_text(messages);
            const nb::gil_scoped_release unlocked;
            return t.render_json(json, options).text;
          },
          nb::arg("messages"), nb::kw_only(), nb::arg("add_generation_prompt") = true,
          nb::arg("continue_final_message") = false, nb::arg("tools") = nb::none(),
          nb::arg("variables") = nb::none(),
          nb::sig("def render(self, messages: list[dict] | str, *, add_generation_prompt: bool = True, "
                  "continue_final_message: "
                  "bool = False, tools: list[dict] | str | None = None, variables: dict | str | None = None) "
                  "-> str"),
          "The conversation as the model reads it. Messages and tools as OpenAI clients send them, or their "
          "JSON.")
      .def(
          "encode",
          [](const ttt::ChatTemplate& t, const ttt::Tokenizer& tokenizer, const nb::object& messages,
             bool generation, bool proceed, const nb::object& tools, const nb::object& variables) {
            const ttt::RenderOptions options = render_options(generation, proceed, tools, variables);
            const std::string json = json_text(messages);
            const nb::gil_scoped_release unlocked;
            return ttt::encode_prompt(tokenizer, t.render_json(json, options),
                                      ttt::control_ids(tokenizer, t));
          },
          nb::arg("tokenizer"), nb::arg("messages"), nb::kw_only(), nb::arg("add_generation_prompt") = true,
          nb::arg("continue_final_message") = false, nb::arg("tools") = nb::none(),
          nb::arg("variables") = nb::none(),
          nb::sig("def encode(self, tokenizer: Tokenizer, messages: list[dict] | str, *, "
                  "add_generation_prompt: bool = True, "
                  "continue_final_message: bool = False, tools: list[dict] | str | None = None, variables: "
                  "dict | str | None "
                  "= None) -> list[int]"),
          "Ids of the rendered conversation; special tokens that users spell stay plain text.");
}

}  // namespace ttt_python
