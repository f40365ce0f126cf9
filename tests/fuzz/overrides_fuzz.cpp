#include "input.h"
#include "ttt/hw/target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    ttt::Target target = ttt::make_target(ttt::hw::n150(), "performance");
    target.layers = 4;
    ttt::add_overrides(target, as_text(data, size), "input");
    for (const char* module : {"layers.3.attn.q", "lm_head", ""}) {
      expect_error_or_success([&] { target.weight_dtype(module); });
      expect_error_or_success([&] { target.compute_config(module); });
    }
  });
}
