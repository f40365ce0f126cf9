#include "ttt/tensor/memory_config.h"

#include <cstdio>
#include <string>

#include "ttt/base/error.h"

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

// Every part is checked by writing the result again, so that what is read is exactly what to_string writes.
MemoryConfig parse_memory_config(std::string_view text) {
  const auto refuse = [&](const char* fix) -> Error {
    return Error("the memory config \"" + printable(text) + "\" cannot be read", {}, fix);
  };
  constexpr const char* example = "write it as \"dram interleaved\" or \"l1 width_sharded 8x4 [32, 64]\"";
  if (text.size() > 200) throw refuse(example);
  const std::string copy(text);
  MemoryConfig config;
  const std::size_t space = text.find(' ');
  const std::string_view where = text.substr(0, space);
  if (where != "dram" && where != "l1") throw refuse(example);
  config.buffer_type = where == "l1" ? BufferType::l1 : BufferType::dram;
  std::string_view rest = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
  bool known = false;
  for (TensorMemoryLayout layout : {TensorMemoryLayout::interleaved, TensorMemoryLayout::height_sharded,
                                    TensorMemoryLayout::width_sharded, TensorMemoryLayout::block_sharded}) {
    if (rest.substr(0, rest.find(' ')) == name(layout)) config.memory_layout = layout, known = true;
  }
  if (!known) throw refuse(example);
  if (config.memory_layout != TensorMemoryLayout::interleaved) {
    ShardSpec shard;
    int cols = 0, rows = 0, x = 0, y = 0;
    const std::string layout = std::string(where) + " " + name(config.memory_layout) + " ";
    if (copy.size() < layout.size()) throw refuse("name the cores and the shard, as 8x4 [32, 64]");
    const char* tail = copy.c_str() + layout.size();
    if (std::sscanf(tail, "%5dx%5d at %5d,%5d [%9d, %9d]", &cols, &rows, &x, &y, &shard.height,
                    &shard.width) != 6) {
      x = y = 0;
      if (std::sscanf(tail, "%5dx%5d [%9d, %9d]", &cols, &rows, &shard.height, &shard.width) != 4) {
        throw refuse("name the cores and the shard, as 8x4 [32, 64]");
      }
    }
    if (cols < 1 || rows < 1 || x < 0 || y < 0 || shard.height < 1 || shard.width < 1)
      throw refuse("use positive extents");
    shard.grid = {{x, y}, {x + cols - 1, y + rows - 1}};
    if (text.ends_with(" col_major")) shard.orientation = ShardOrientation::col_major;
    config.shard_spec = shard;
  }
  if (to_string(config) != text) throw refuse(example);
  return config;
}

}  // namespace ttt::inline v2
