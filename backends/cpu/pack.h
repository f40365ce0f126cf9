// Conversion between a matrix as Hugging Face stores it and panels (layout.h).
#pragma once

#include "cpu_device.h"

namespace ttt::inline v2::cpu {

// Packs outputs [0, 32) of one panel: values[n][in] for n < outputs, rows `ld` floats apart.
void pack_panel(const Packed&, const float* values, std::int64_t ld, std::int64_t outputs, std::byte* panel);
// The exact values of `count` <= 32 outputs of a panel: values[n][in], rows `ld` floats apart.
void unpack_panel(const Packed&, const std::byte* panel, std::int64_t count, float* values, std::int64_t ld);

}  // namespace ttt::inline v2::cpu
