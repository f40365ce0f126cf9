#include "ttt/tensor/dtype.h"

#include <array>
#include <string>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

struct Names {
  DataType type;
  std::string_view short_name, long_name;
};

constexpr std::array<Names, 8> names = {{
    {DataType::f32, "f32", "float32"},
    {DataType::bf16, "bf16", "bfloat16"},
    {DataType::bfp8_b, "bfp8_b", "bfloat8_b"},
    {DataType::bfp4_b, "bfp4_b", "bfloat4_b"},
    {DataType::i32, "i32", "int32"},
    {DataType::u32, "u32", "uint32"},
    {DataType::u16, "u16", "uint16"},
    {DataType::u8, "u8", "uint8"},
}};

}  // namespace

std::string_view name(DataType type) {
  for (const Names& n : names) {
    if (n.type == type) return n.short_name;
  }
  return "invalid";
}

DataType parse_dtype(std::string_view text) {
  for (const Names& n : names) {
    if (text == n.short_name || text == n.long_name) return n.type;
  }
  std::string choices;
  for (const Names& n : names) choices += (choices.empty() ? "" : ", ") + std::string(n.short_name);
  throw Error("unknown dtype \"" + printable(text) + "\"", {}, "use one of " + choices);
}

}  // namespace ttt::inline v2
