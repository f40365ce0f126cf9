// What measurements of the machine share.
#pragma once

namespace ttt::inline v2::testing {

int usable_threads();  // that the process may use

}  // namespace ttt::inline v2::testing
