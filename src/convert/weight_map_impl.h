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

// Whether a name of the pattern's key has these numbers; `values`: of the variables, -1 where one does not
// occur.
bool fits(const RulePattern&, const std::vector<std::int64_t>& numbers, std::vector<std::int64_t>& values);
// The name with these values; a variable without one as it is spelled.
std::string substitute(const RulePattern&, const std::vector<std::int64_t>& values);

// '*' any text, {name} a number.
bool glob(std::string_view pattern, std::string_view name);

// Without ".weight" or ".bias".
std::string_view without_suffix(std::string_view name);
// As ignore() and transpose() match: the pattern may leave ".weight" and ".bias" out.
bool matches_tensor(std::string_view pattern, std::string_view name);
// As apply() matches: a pattern without ".bias" leaves biases alone.
bool matches_slot(std::string_view pattern, std::string_view slot);

}  // namespace detail

}  // namespace ttt::inline v2
