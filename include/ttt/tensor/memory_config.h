// Where a tensor lives, in TTNN's terms. Plain data; the CPU backend ignores it, the planner and TTNN do not.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ttt::inline v2 {

enum class Layout : std::uint8_t { row_major, tile };
enum class BufferType : std::uint8_t { dram, l1 };
enum class TensorMemoryLayout : std::uint8_t { interleaved, height_sharded, width_sharded, block_sharded };
enum class ShardOrientation : std::uint8_t { row_major, col_major };

struct CoreCoord {
  int x = 0, y = 0;
  auto operator<=>(const CoreCoord&) const = default;
};

// Cores [start, end], both inclusive, as ttnn.CoreRange.
struct CoreRange {
  CoreCoord start{}, end{};
  int cores() const { return (end.x - start.x + 1) * (end.y - start.y + 1); }
  auto operator<=>(const CoreRange&) const = default;
};

struct ShardSpec {
  CoreRange grid{};
  int height = 0, width = 0;  // elements of one shard
  ShardOrientation orientation = ShardOrientation::row_major;
  auto operator<=>(const ShardSpec&) const = default;
};

struct MemoryConfig {
  TensorMemoryLayout memory_layout = TensorMemoryLayout::interleaved;
  BufferType buffer_type = BufferType::dram;
  std::optional<ShardSpec> shard_spec{};  // set exactly when memory_layout is a sharded one
  bool operator==(const MemoryConfig&) const = default;
};

// "dram interleaved", "l1 width_sharded 8x4 [32, 64]", "l1 block_sharded 2x2 at 1,1 [64, 32] col_major"
std::string to_string(const MemoryConfig&);
MemoryConfig parse_memory_config(std::string_view);  // reads that; Error names what cannot be read

}  // namespace ttt::inline v2
