// The way of every OpCall from ops.h to its backend.
#pragma once

#include <string_view>

#include "ttt/ops/backend.h"

namespace ttt::inline v2::ops {

// Throws Error "[linear] problem".
[[noreturn]] void fail(const OpCall& call, std::string_view problem, std::string_view where = {},
                       std::string_view fix = {});

// The backend of the call's first operand. Error when operands lie on different devices.
Backend& backend_of(const OpCall& call);

// Runs a checked call whose output_specs are set: by a kernel, else by simpler ops.
void execute(OpCall& call);

}  // namespace ttt::inline v2::ops
