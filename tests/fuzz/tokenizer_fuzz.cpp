#include "input.h"
#include "ttt/text/stream_decoder.h"
#include "ttt/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const ttt::Tokenizer tokenizer = ttt::Tokenizer::from_json(as_text(data, size));
    const auto ids = tokenizer.encode("Hello, world \xf0\x9f\x98\x80 12\n\xff<s>");
    ttt::StreamDecoder stream(tokenizer);
    if (stream.push(ids) + stream.finish() != tokenizer.decode(ids)) __builtin_trap();
  });
}
