// The tables of data/models, built in.
#pragma once

#include <string_view>

namespace ttt::inline v2::testing {

extern const std::string_view architectures_json;
extern const std::string_view evidence_json;

}  // namespace ttt::inline v2::testing
