#include "input.h"
#include "ttt/convert/gguf.h"
#include "ttt/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const auto file = ttt::GgufFile::from_bytes(as_bytes(data, size), "input");
    for (const ttt::GgufTensor& tensor : file.tensors()) {
      const std::span<const std::byte> bytes = file.bytes(tensor);
      const ttt::BlockSize block = ttt::block_size(tensor.type);
      std::vector<float> values(bytes.size() / static_cast<std::size_t>(block.bytes) *
                                static_cast<std::size_t>(block.values));
      ttt::to_float(tensor.type, bytes.data(), values.size(), values.data());
    }
    expect_error_or_success([&] { file.architecture(); });
    const ttt::Tokenizer tokenizer = ttt::Tokenizer::from_vocabulary(file.vocabulary());
    tokenizer.decode(tokenizer.encode("Hello, world \xf0\x9f\x98\x80 12"));
  });
}
