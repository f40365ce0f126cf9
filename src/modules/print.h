// Rows of plans: how single fields are spelt.
#pragma once

#include "ttt/modules/linear.h"

namespace ttt::inline v2 {

inline void row(PlanRows& rows, const ModuleName& name, std::string_view field, std::string_view value) {
  rows.push_back({name.path, std::string(field), std::string(value)});
}
inline std::string text(float value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", static_cast<double>(value));
  return buffer;
}
inline std::string extents(const LazyWeight& weight) {
  return "[" + std::to_string(weight.cols()) + ", " + std::to_string(weight.rows()) + "]";
}

}  // namespace ttt::inline v2
