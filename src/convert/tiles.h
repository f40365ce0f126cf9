// Weights in TTNN's block formats inside safetensors: U8 tensors of tiles, as ttt convert writes them.
//
// The header's __metadata__ has under "ttt" the text of a JSON object
//   {"version": 1, "precision": "bfp8_b", "tensors": {NAME: {"dtype": "bfp8_b", "shape": [576, 1536],
//    "output_axis": -2}}}
// with the tensor's dtype and shape as a Hugging Face checkpoint has it. The stored bytes are [(experts,)
// rows / 32, columns / 32, bytes of a tile]: the tiles of [in, out], row by row, whichever axis of `shape`
// the outputs are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/quantised.h"
#include "ttt/tensor/dtype.h"

namespace ttt::inline v2::detail {

struct TileInfo {
  DataType dtype = DataType::bfp8_b;
  std::vector<std::int64_t> shape{};  // at least two axes
  int output_axis = -2;               // -2: [.., out, in], as most weights are; -1: [.., in, out]
};

// What a file says of its tensors; empty `precision`: ttt convert has not written it.
struct TileHeader {
  std::string precision{};
  std::map<std::string, TileInfo, std::less<>> tensors{};
};
constexpr std::string_view tile_header_key = "ttt";
std::string dump_tile_header(const TileHeader&);
// Error names the field. `where`: the file.
TileHeader parse_tile_header(std::string_view json, const std::string& where);

std::vector<std::int64_t> stored_shape(const TileInfo&);
// Packs the rows of `source` (the leading axes of the shape in one). Memory: one matrix in its packed form.
void write_tiles(const WeightSource& source, const TileInfo&,
                 const std::function<void(std::span<const std::byte>)>& sink);
// Error when the stored tensor has another type or size.
VirtualTensor read_tiles(const RawTensor&, const TileInfo&);

}  // namespace ttt::inline v2::detail
