#include "input.h"
#include "ttt/convert/weight_map.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const ttt::WeightMap map = ttt::WeightMap::from_json(as_text(data, size));
    if (!(ttt::WeightMap::from_json(map.to_json()) == map)) __builtin_trap();
  });
}
