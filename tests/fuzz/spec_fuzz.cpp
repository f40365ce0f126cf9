#include "input.h"
#include "ttt/model/spec.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const ttt::ModelSpec spec = ttt::parse_spec(as_text(data, size));
    ttt::validate(spec);
    ttt::weight_slots(spec);
    if (!(ttt::parse_spec(ttt::to_json(spec)) == spec)) __builtin_trap();
  });
}
