#include "input.h"
#include "text/tokenizer_impl.h"
#include "ttt/text/tokenizer.h"

// Rank files, and tekken files, which begin as JSON does.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const std::string_view text = as_text(data, size);
    if (text.starts_with('{')) {
      ttt::text::read_tekken(text, "input");
      return;
    }
    ttt::RankEncoding encoding;
    encoding.pattern = R"(\p{L}+|\p{N}{1,3}|\s+|.)";
    encoding.special_tokens = {{"<s>", 300}};
    const ttt::Tokenizer tokenizer = ttt::Tokenizer::from_ranks(text, encoding);
    const std::string_view sample = "Hello, world \xf0\x9f\x98\x80 12";
    if (tokenizer.decode(tokenizer.encode(sample)) != sample) __builtin_trap();
  });
}
