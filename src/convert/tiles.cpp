#include "convert/tiles.h"

#include <algorithm>

#include "convert/json.h"
#include "tensor/hash.h"
#include "ttt/base/error.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2::detail {

namespace {

// The shape as matrices [in, out] of tiles.
struct Matrices {
  std::int64_t count = 1, in = 0, out = 0;
  std::int64_t tile_rows() const { return (in + tile_size - 1) / tile_size; }
  std::int64_t tile_cols() const { return (out + tile_size - 1) / tile_size; }
  std::size_t tiles() const { return static_cast<std::size_t>(tile_rows() * tile_cols()); }
};

Matrices matrices(const TileInfo& info) {
  Matrices m;
  const std::size_t rank = info.shape.size();
  for (std::size_t i = 0; i + 2 < rank; ++i) m.count *= info.shape[i];
  m.in = info.shape[rank - 1];
  m.out = info.shape[rank - 2];
  if (info.output_axis == -1) std::swap(m.in, m.out);
  return m;
}

// Sixteen values of [in, out]: row `in`, columns from `out` on, which is a multiple of 16.
void decode_at(const std::byte* tiles, const Matrices& m, std::int64_t in, std::int64_t out, DataType dtype,
               float* values) {
  const auto tile = static_cast<std::size_t>(in / tile_size * m.tile_cols() + out / tile_size);
  const std::byte* at = tiles + tile * tile_bytes(dtype);
  const auto face = static_cast<std::size_t>(in % tile_size / face_size * 2 + out % tile_size / face_size);
  const std::size_t row = face * face_size + static_cast<std::size_t>(in % face_size);
  BlockFloat16 block{.exponent = static_cast<std::uint8_t>(at[row])};
  constexpr std::size_t exponents = std::size_t{4} * face_size;
  if (dtype == DataType::bfp8_b) {
    for (std::size_t i = 0; i < face_size; ++i)
      block.values[i] = static_cast<std::uint8_t>(at[exponents + row * face_size + i]);
  } else {
    for (std::size_t i = 0; i < face_size; ++i) {
      const auto pair = static_cast<unsigned>(at[exponents + (row * face_size + i) / 2]);
      block.values[i] = static_cast<std::uint8_t>(i % 2 == 0 ? pair & 15u : pair >> 4);
    }
  }
  decode_block(block, dtype, values);
}

// The values as matrices whose rows are outputs, or with `inputs` whose rows are inputs.
class TileSource final : public WeightSource {
 public:
  TileSource(StoredValues values, const TileInfo& info, bool inputs)
      : v_(std::move(values)), dtype_(info.dtype), m_(matrices(info)), inputs_(inputs) {}

  std::int64_t rows() const override { return m_.count * height(); }
  std::int64_t cols() const override { return inputs_ ? m_.out : m_.in; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    while (count > 0) {  // one matrix after the other
      const std::int64_t matrix = begin / height(), first = begin % height();
      const std::int64_t n = std::min(count, height() - first);
      const std::byte* tiles =
          v_.bytes.data() + static_cast<std::size_t>(matrix) * m_.tiles() * tile_bytes(dtype_);
      if (inputs_) {
        read_inputs(tiles, first, n, out);
      } else {
        read_outputs(tiles, first, n, out);
      }
      out += n * cols();
      begin += n;
      count -= n;
    }
  }
  std::uint64_t fingerprint() const override {
    return Hasher()
        .add("tiles")
        .add(v_.fingerprint)
        .add(static_cast<std::uint64_t>(m_.in))
        .add(static_cast<std::uint64_t>(m_.out))
        .add(static_cast<std::uint64_t>(inputs_))
        .value();
  }
  std::string describe() const override { return v_.name; }
  bool exact_in(DataType type) const override {
    return type == DataType::f32 || type == DataType::bf16 || type == dtype_;
  }
  void release() const override {
    if (v_.file != nullptr) v_.file->forget(v_.offset, v_.bytes.size());
  }

 private:
  std::int64_t height() const { return inputs_ ? m_.in : m_.out; }

  void read_inputs(const std::byte* tiles, std::int64_t first, std::int64_t n, float* out) const {
    float block[face_size];
    for (std::int64_t i = first; i < first + n; ++i, out += m_.out) {
      for (std::int64_t o = 0; o < m_.out; o += face_size) {
        decode_at(tiles, m_, i, o, dtype_, block);
        std::copy_n(block, std::min<std::int64_t>(face_size, m_.out - o), out + o);
      }
    }
  }
  void read_outputs(const std::byte* tiles, std::int64_t first, std::int64_t n, float* out) const {
    float block[face_size];
    for (std::int64_t o = first / face_size * face_size; o < first + n; o += face_size) {
      const std::int64_t from = std::max(o, first), to = std::min(o + face_size, first + n);
      for (std::int64_t i = 0; i < m_.in; ++i) {
        decode_at(tiles, m_, i, o, dtype_, block);
        for (std::int64_t r = from; r < to; ++r) out[(r - first) * m_.in + i] = block[r - o];
      }
    }
  }

  StoredValues v_;
  DataType dtype_;
  Matrices m_;
  bool inputs_;
};

}  // namespace

std::string dump_tile_header(const TileHeader& header) {
  Json tensors = Json::object();
  for (const auto& [name, info] : header.tensors) {
    tensors[name] = {
        {"dtype", ttt::name(info.dtype)}, {"shape", info.shape}, {"output_axis", info.output_axis}};
  }
  return dump_json({{"version", 1}, {"precision", header.precision}, {"tensors", std::move(tensors)}});
}

TileHeader parse_tile_header(std::string_view text, const std::string& where) {
  const auto fail = [&](const std::string& what, const std::string& field) {
    throw Error(what, printable(field, 200) + " of __metadata__.ttt in " + where,
                "convert the checkpoint again");
  };
  const Json json = parse_json(text, "__metadata__.ttt of " + where);
  TileHeader header;
  try {
    if (json.at("version") != 1) throw Error("written by another release", where, "convert again");
    header.precision = json.at("precision").get<std::string>();
    for (const auto& item : json.at("tensors").items()) {
      TileInfo info{.dtype = parse_dtype(item.value().at("dtype").get<std::string>()),
                    .shape = item.value().at("shape").get<std::vector<std::int64_t>>(),
                    .output_axis = item.value().at("output_axis").get<int>()};
      std::int64_t elements = 1;
      bool good = is_block_float(info.dtype) && info.shape.size() >= 2 && info.shape.size() <= 4 &&
                  (info.output_axis == -2 || info.output_axis == -1);
      for (const std::int64_t extent : info.shape) {
        good = good && extent >= 1 && extent <= (std::int64_t{1} << 40) / elements;
        elements *= good ? extent : 1;
      }
      if (!good) fail("no weight in a block format", item.key());
      header.tensors.emplace(item.key(), std::move(info));
    }
  } catch (const Json::exception&) { fail("is missing or of another type", "a field"); }
  return header;
}

std::vector<std::int64_t> stored_shape(const TileInfo& info) {
  const Matrices m = matrices(info);
  std::vector<std::int64_t> shape(info.shape.begin(), info.shape.end() - 2);
  shape.insert(shape.end(),
               {m.tile_rows(), m.tile_cols(), static_cast<std::int64_t>(tile_bytes(info.dtype))});
  return shape;
}

void write_tiles(const WeightSource& source, const TileInfo& info,
                 const std::function<void(std::span<const std::byte>)>& sink) {
  const Matrices m = matrices(info);
  const std::size_t bytes = tile_bytes(info.dtype),
                    tile_row = bytes * static_cast<std::size_t>(m.tile_cols());
  std::vector<float> rows, panel;
  if (info.output_axis == -1) {
    // 32 rows of the source are a row of tiles.
    for (std::int64_t matrix = 0; matrix < m.count; ++matrix) {
      for (std::int64_t i = 0; i < m.in; i += tile_size) {
        const std::int64_t n = std::min<std::int64_t>(tile_size, m.in - i);
        rows.resize(static_cast<std::size_t>(n * m.out));
        source.read(matrix * m.in + i, n, rows.data());
        const std::vector<std::uint8_t> row = pack_tiles(rows, n, m.out, info.dtype);
        sink(std::as_bytes(std::span(row)));
      }
    }
    return;
  }
  // 32 rows of the source are a column of tiles.
  std::vector<std::byte> packed(tile_row * static_cast<std::size_t>(m.tile_rows()));
  for (std::int64_t matrix = 0; matrix < m.count; ++matrix) {
    for (std::int64_t o = 0; o < m.out; o += tile_size) {
      const std::int64_t n = std::min<std::int64_t>(tile_size, m.out - o);
      rows.resize(static_cast<std::size_t>(n * m.in));
      panel.resize(rows.size());
      source.read(matrix * m.out + o, n, rows.data());
      for (std::int64_t r = 0; r < n; ++r) {
        for (std::int64_t i = 0; i < m.in; ++i)
          panel[static_cast<std::size_t>(i * n + r)] = rows[static_cast<std::size_t>(r * m.in + i)];
      }
      const std::vector<std::uint8_t> column = pack_tiles(panel, m.in, n, info.dtype);
      for (std::size_t t = 0; t < static_cast<std::size_t>(m.tile_rows()); ++t)
        std::ranges::copy(
            std::as_bytes(std::span(column)).subspan(t * bytes, bytes),
            packed.begin() +
                static_cast<std::ptrdiff_t>(t * tile_row + static_cast<std::size_t>(o / tile_size) * bytes));
    }
    sink(packed);
  }
}

VirtualTensor read_tiles(const RawTensor& stored, const TileInfo& info) {
  if (stored.info.type != StorageType::u8 || stored.info.shape != stored_shape(info))
    throw Error("does not hold the tiles that its header says", stored.values.name,
                "convert the checkpoint again");
  VirtualTensor tensor;
  tensor.info = stored.info;
  tensor.info.shape = info.shape;
  tensor.info.scheme = std::string(name(info.dtype));
  tensor.parts = {stored.info.name};
  const auto source = [values = stored.values, info](bool inputs) -> WeightSourcePtr {
    return std::make_shared<TileSource>(values, info, inputs);
  };
  tensor.source = [=] { return source(info.output_axis == -1); };
  tensor.transposed = [=] { return source(info.output_axis == -2); };
  return tensor;
}

}  // namespace ttt::inline v2::detail
