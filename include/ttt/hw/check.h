// What TTNN would refuse, refused before it is asked: the same reasons, in words that say what to change,
// without a device. Each function returns when the configuration is valid and throws Error otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ttt/hw/choose.h"
#include "ttt/tensor/tensor.h"

namespace ttt::inline v2::hw {

// A tensor: layout and dtype, shards within the grid or the banks, whole tiles, the whole tensor covered, and
// room for it alone in the memory it asks for.
void check_tensor(const Sku&, const TensorSpec&);

// A matrix product with all its placements.
struct MatmulCheck {
  TensorSpec x, w, y;  // y.memory: how the kernel leaves it
  MatmulProgramConfig program_config{};
  ComputeKernelConfig compute_kernel_config{};
};
void check_matmul(const Sku&, const MatmulCheck&);

// Attention of `queries` queries at position `start` over a paged cache.
struct AttentionCheck {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0, v_head_dim = 0, queries = 0, start = 0, block_size = 0;
  std::int64_t users = 1;  // of a decode step
  DataType query = DataType::bf16, cache = DataType::bf16;
  bool decode = false, is_causal = true, mask = false;
  bool latent = false;  // the values are the keys' first v_head_dim columns
  SDPAProgramConfig program_config{};
};
void check_attention(const Sku&, const AttentionCheck&);

// Users of one paged_update_cache: x [1, users, kv_heads, head_dim], sharded one user to a core.
void check_cache_update(const Sku&, std::int64_t users, std::int64_t kv_heads, std::int64_t head_dim,
                        DataType x);

// Bytes of a tensor on its fullest core (0: it lies in DRAM) and in its fullest DRAM bank (0: it lies in L1),
// in whole tiles and pages.
std::size_t l1_core_bytes(const Sku&, const TensorSpec&);
std::size_t dram_bank_bytes(const Sku&, const TensorSpec&);

// Refuses more than a core's L1; `where` and `fix` are for the message.
void check_l1(const Sku&, std::size_t bytes, const std::string& where, const std::string& fix);

// DRAM of one device for tensors: all of it without what TTNN keeps at the bottom of each bank.
std::size_t usable_dram_bytes(const Sku&);
// Weights, caches and activations of one device together.
void check_device_memory(const Sku&, std::size_t dram_bytes);
// A mesh that the system has; reduce_scatter over an axis that must stay whole tiles.
void check_mesh(const Sku&, const Mesh&);
void check_scatter(std::int64_t extent, int devices);

}  // namespace ttt::inline v2::hw
