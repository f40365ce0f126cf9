// libFuzzer target: any template over any messages ends with a prompt or an Error, within its limits.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc tests/fuzz/jinja_fuzz.cpp
//     src/text/jinja_*.cpp src/text/chat_template.cpp src/base/*.cpp -lutf8proc -o jinja_fuzz
//   ./jinja_fuzz -max_len=4096 corpus/ tests/text/data/templates/
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/text/chat_template.h"

namespace {

constexpr std::string_view variables =
    R"({"n": 5, "f": 2.5, "s": "Hello é<|x|>", "z": 0, "t": true, "none": null, "l": [3, 1, 2], "d": {"b": 1, "a": [1, {"x": null}]},
        "users": [{"name": "Bo", "age": 3}, {"name": "al", "age": 1}], "html": "<a href='x'>T</a>", "big": 99999999999999999999})";

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // The template, and after a NUL byte the messages where given.
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t split = input.find('\0');
  const std::string source(input.substr(0, split));
  std::string messages(split == std::string_view::npos ? std::string_view() : input.substr(split + 1));
  if (messages.empty()) {
    messages =
        R"([{"role": "user", "content": "Hé <|im_end|>"}, {"role": "assistant", "content": "<think>a</think>b",
                   "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"x": [1, "y"]}}}]}])";
  }
  ttt::RenderOptions options;
  options.variables = variables;
  options.tools = R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])";
  options.limits.steps = 200'000;
  options.limits.memory_bytes = std::size_t{1} << 23;
  options.limits.output_bytes = std::size_t{1} << 18;
  options.limits.depth = 100;
  try {
    const ttt::ChatTemplate chat(source, {.bos = "<s>", .eos = "</s>"});
    const ttt::RenderedPrompt prompt = chat.render_json(messages, options);
    require(prompt.text.size() <= options.limits.output_bytes);
    require(ttt::utf8::repair(prompt.text) == prompt.text);
    for (const ttt::ByteRanges* ranges : {&prompt.untrusted, &prompt.generated}) {
      std::size_t last = 0;
      bool first = true;
      for (const auto& [begin, end] : *ranges) {
        require(begin < end && end <= prompt.text.size() && (first || begin > last));
        last = end;
        first = false;
      }
    }
  } catch (const ttt::Error& error) { require(error.what()[0] != '\0'); }
  return 0;
}
