// Profiles as traces that Perfetto shows (https://ui.perfetto.dev, which reads a file in the browser).
#pragma once

#include <string>
#include <string_view>

#include "ttt/perf/profile.h"

namespace ttt::inline v2::perf {

// The bytes of a perfetto.protos.Trace: one track of slices (steps, layers, modules, operations with their
// bytes and FLOPs) and one track per counter.
std::string perfetto_trace(const Profile&, std::string_view process = "ttt");

}  // namespace ttt::inline v2::perf
