// How a kernel is to run on a card, in TTNN's terms. Plain data, chosen by plans; the CPU backend has no use
// for it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "ttt/hw/sku.h"

namespace ttt::inline v2 {

struct ComputeKernelConfig {
  MathFidelity math_fidelity = MathFidelity::hifi2;
  bool math_approx_mode = false;
  bool fp32_dest_acc_en = true;
  bool packer_l1_acc = true;
  bool operator==(const ComputeKernelConfig&) const = default;
};

// Sizes are in tiles. A core makes per_core_M x per_core_N of them, out_block_h x out_block_w at a time (0:
// all of them), in sub-blocks that fit its destination registers, from blocks of in0_block_w of the inner
// dimension.
struct MatmulMultiCoreReuseMultiCastProgramConfig {
  CoreCoord compute_with_storage_grid_size{};
  int in0_block_w = 1, out_subblock_h = 1, out_subblock_w = 1, out_block_h = 0, out_block_w = 0,
      per_core_M = 1, per_core_N = 1;
  bool transpose_mcast = false;
  bool operator==(const MatmulMultiCoreReuseMultiCastProgramConfig&) const = default;
};
struct MatmulMultiCoreReuseMultiCast1DProgramConfig {
  CoreCoord compute_with_storage_grid_size{};
  int in0_block_w = 1, out_subblock_h = 1, out_subblock_w = 1, out_block_h = 0, out_block_w = 0,
      per_core_M = 1, per_core_N = 1;
  bool mcast_in0 = true;
  bool operator==(const MatmulMultiCoreReuseMultiCast1DProgramConfig&) const = default;
};
struct MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig {
  int in0_block_w = 1, per_core_M = 1, per_core_N = 1;
  bool operator==(const MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig&) const = default;
};
// monostate: TTNN chooses.
using MatmulProgramConfig = std::variant<std::monostate, MatmulMultiCoreReuseMultiCastProgramConfig,
                                         MatmulMultiCoreReuseMultiCast1DProgramConfig,
                                         MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>;

struct SDPAProgramConfig {
  CoreCoord compute_with_storage_grid_size{};
  int q_chunk_size = 0, k_chunk_size = 0;  // 0: TTNN chooses
  bool exp_approx_mode = false;
  int max_cores_per_head_batch = 16;  // decode: cores that share the keys of one user and key head
  bool operator==(const SDPAProgramConfig&) const = default;
};

std::string_view name(MathFidelity);                 // "lofi", "hifi2", ...
MathFidelity parse_math_fidelity(std::string_view);  // Error names the choices
std::string to_string(const ComputeKernelConfig&);   // "hifi2 fp32_dest_acc packer_l1_acc"
// As TTNN prints it, "auto" for none:
// "MatmulMultiCoreReuseMultiCast1DProgramConfig(compute_with_storage_grid_size=8x4, ..)".
std::string to_string(const MatmulProgramConfig&);
// Reads that; absent fields keep their defaults. Error names what cannot be read.
MatmulProgramConfig parse_program_config(std::string_view);

}  // namespace ttt::inline v2
