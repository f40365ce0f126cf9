#include "ttt/tensor/memory_config.h"

namespace ttt::inline v2 {

namespace {

std::string range(const CoreRange& r) {
  const std::string size =
      std::to_string(r.end.x - r.start.x + 1) + "x" + std::to_string(r.end.y - r.start.y + 1);
  if (r.start == CoreCoord{}) return size;
  return size + " at " + std::to_string(r.start.x) + "," + std::to_string(r.start.y);
}

const char* name(TensorMemoryLayout layout) {
  switch (layout) {
    case TensorMemoryLayout::interleaved:
      return "interleaved";
    case TensorMemoryLayout::height_sharded:
      return "height_sharded";
    case TensorMemoryLayout::width_sharded:
      return "width_sharded";
    case TensorMemoryLayout::block_sharded:
      return "block_sharded";
  }
  return "invalid";
}

}  // namespace

std::string to_string(const MemoryConfig& config) {
  std::string text = config.buffer_type == BufferType::dram ? "dram " : "l1 ";
  text += name(config.memory_layout);
  if (config.shard_spec) {
    const ShardSpec& shard = *config.shard_spec;
    text += " " + range(shard.grid) + " [" + std::to_string(shard.height) + ", " +
            std::to_string(shard.width) + "]";
    if (shard.orientation == ShardOrientation::col_major) text += " col_major";
  }
  return text;
}

}  // namespace ttt::inline v2
