// The element types that checkpoints use, and their values as float32: safetensors' dtypes and ggml's block
// formats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "ttt/tensor/dtype.h"

namespace ttt::inline v2 {

enum class StorageType : std::uint8_t {
  // safetensors and GGUF; e8m0 is a power of two (scales of MXFP4)
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  // GGUF
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq1_s,
  iq1_m,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4,
};

std::string_view name(StorageType);  // "F32", "F8_E4M3", "Q4_K": as safetensors and ggml spell them

// Values are stored in blocks along the last axis: `values` of them in `bytes`. Plain types: 1 and their
// size.
struct BlockSize {
  int values = 1, bytes = 0;
};
BlockSize block_size(StorageType);
constexpr bool is_quantised(StorageType t) { return t >= StorageType::q4_0; }
// True when every value of the type is a bfloat16, a float32.
bool exact_in(StorageType, DataType);

// `count` values from the front of `bytes`; count is a multiple of the block's values. Bit-exact with the
// Python package gguf. `bytes` need not be aligned. Precondition: bytes has count / values * bytes of them.
void to_float(StorageType, const std::byte* bytes, std::size_t count, float* out);

// The id that a GGUF file gives a type, and the dtype that a safetensors header spells; unset: unknown.
std::optional<StorageType> storage_from_ggml(std::uint32_t id);
std::optional<StorageType> storage_from_safetensors(std::string_view dtype);

}  // namespace ttt::inline v2
