// Numbers as messages show them.
#pragma once

#include <string>

namespace ttt::inline v2::testing {

std::string short_number(double);  // three significant digits

}  // namespace ttt::inline v2::testing
