// The operations of a WeightMap, for bind_weights().
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/weight_map.h"

namespace ttt::inline v2 {

struct WeightMap::Operation {
  enum class Kind : std::uint8_t {
    strip,
    layers,
    transpose,
    rename,
    split,
    stack,
    concat,
    slice,
    ignore,
    apply,
    permute,
    alias,
    optional,
    surplus
  };
  Kind kind = Kind::rename;
  std::vector<std::string> from{};  // prefix, checkpoint pattern, or slot pattern of those that act on slots
  std::vector<std::string> to{};    // slots
  SplitLayout layout{};
  Transform transform{};
  std::int64_t begin = 0, count = 0;  // slice
  std::int64_t heads = 0;             // permute

  bool operator==(const Operation&) const = default;
};

namespace detail {

std::string_view name(WeightMap::Operation::Kind);

// "{layer}" in its place, at most once.
std::string expand_layer(std::string_view pattern, std::string_view layer);

// A name whose purely numeric parts are replaced by '#': tensors that differ in numbers only have one key.
struct NumberedName {
  std::string key;
  std::vector<std::int64_t> numbers;
};
NumberedName numbered(std::string_view name);

// A pattern of a rule: the key, and for every '#' either a number or the index of a variable (~index).
struct RulePattern {
  std::string key;
  std::vector<std::int64_t> slots;     // >= 0: that number; < 0: variable ~value
  std::vector<std::string> variables;  // names, in the order of their first occurrence
};
// `variables`: those that are known already (of the rule's left side); unknown ones are appended.
RulePattern compile_rule(std::string_view pattern, std::vector<std::string> variables = {});

// '*' any text, {name} a number.
bool glob(std::string_view pattern, std::string_view name);

}  // namespace detail

}  // namespace ttt::inline v2
