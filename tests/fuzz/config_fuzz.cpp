#include "input.h"
#include "ttt/convert/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return expect_error_or_success([&] {
    const ttt::HfConfig config = ttt::HfConfig::parse(as_text(data, size)).text();
    for (auto read :
         {&ttt::HfConfig::layers, &ttt::HfConfig::heads, &ttt::HfConfig::kv_heads, &ttt::HfConfig::head_dim})
      expect_error_or_success([&] { (config.*read)(); });
    expect_error_or_success([&] { config.rope(); });
    expect_error_or_success([&] { config.window(3, 6); });
    expect_error_or_success([&] { config.act(); });
    config.unread();
    config.merge_record(config.record_json());
  });
}
