// The open end of a described network: the modules that its family brings along.
#pragma once

#include "ttt/convert/load.h"
#include "ttt/model/build.h"

namespace ttt::inline v2 {

// From the library that it was described by; empty: the family has none. Error when the library was built for
// another minor release.
CustomModules custom_modules(const Description&);

}  // namespace ttt::inline v2
