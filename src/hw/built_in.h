// The files of data/recipes, data/tuning and data/roofline, built in.
#pragma once

#include <span>
#include <string_view>

namespace ttt::inline v2::hw {

struct BuiltIn {
  std::string_view name, json;
};
std::span<const BuiltIn> recipes();  // by name
std::span<const BuiltIn> tuning_files();
std::string_view built_in_calibration();

}  // namespace ttt::inline v2::hw
