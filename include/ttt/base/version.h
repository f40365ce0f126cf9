// The one place that spells the version of the library.
#pragma once

#define TTT_VERSION_MAJOR 2
#define TTT_VERSION_MINOR 0
#define TTT_VERSION_PATCH 0

namespace ttt::inline v2 {

// "major.minor.patch" of the library that is running (not of the headers one was compiled with).
const char* version();

}  // namespace ttt::inline v2
