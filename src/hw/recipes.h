// The recipes of data/recipes, built in.
#pragma once

#include <span>
#include <string_view>

namespace ttt::inline v2::hw {

struct Recipe {
  std::string_view name, json;
};
std::span<const Recipe> recipes();  // by name

}  // namespace ttt::inline v2::hw
