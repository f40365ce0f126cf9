// What whoever runs a module shows on its behalf.
#pragma once

#include <functional>

#include "ttt/modules/module.h"

namespace ttt::inline v2 {

// Runs a module and shows what it gets ("layers.3.attn.in") and what it gives ("layers.3.attn"; not again
// where the module itself, or a part that goes by its name, has shown that). Only for whoever found
// debug::tapping().
Tensor shown(const Tensor& x, const ModuleName& module, const std::function<Tensor(const Tensor&)>& forward);

}  // namespace ttt::inline v2
