// How measured numbers are written into files.
#pragma once

#include <string>

namespace ttt::inline v2::testing {

// Three significant digits: what an error and a time are good for.
double rounded(double value);
// "2026-11-26", UTC.
std::string today();

}  // namespace ttt::inline v2::testing
