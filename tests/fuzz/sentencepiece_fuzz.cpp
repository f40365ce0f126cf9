#include "input.h"
#include "ttt/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const ttt::Tokenizer tokenizer = ttt::Tokenizer::from_sentencepiece(as_text(data, size));
    tokenizer.decode(tokenizer.encode("Hello, world \xf0\x9f\x98\x80 12"));
  });
}
