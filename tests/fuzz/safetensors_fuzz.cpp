#include "input.h"
#include "ttt/convert/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const auto file = ttt::SafetensorsFile::from_bytes(as_bytes(data, size), "input");
    for (const ttt::SafetensorsTensor& tensor : file.tensors()) {
      expect_error_or_success([&] { file.floats(tensor.name); });
      expect_error_or_success([&] { file.integers(tensor.name); });
    }
  });
}
