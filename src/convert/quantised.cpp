#include "convert/quantised.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "tensor/hash.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::detail {

namespace {

using Shape64 = std::vector<std::int64_t>;

std::string shape_text(const Shape64& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::int64_t elements(const Shape64& shape) {
  std::int64_t n = 1;
  for (std::int64_t extent : shape) n *= extent;
  return n;
}

[[noreturn]] void mismatch(const RawTensor& a, const RawTensor& b) {
  throw Error(
      "shapes that do not belong together: " + shape_text(a.info.shape) + " and " + shape_text(b.info.shape),
      printable(a.info.name, 200) + " and " + printable(b.info.name, 200), "the checkpoint is damaged");
}

const RawTensor& need(const FindRaw& find, const std::string& name, const RawTensor& of) {
  if (const RawTensor* t = find(name)) return *t;
  throw Error("is missing beside " + printable(of.info.name, 200), printable(name, 200),
              "the checkpoint is incomplete");
}

std::uint64_t fingerprint(std::string_view scheme, std::initializer_list<const RawTensor*> parts,
                          std::int64_t variant = 0) {
  Hasher hash;
  hash.add(scheme).add(static_cast<std::uint64_t>(variant));
  for (const RawTensor* part : parts) hash.add(part == nullptr ? 0 : part->values.fingerprint);
  return hash.value();
}

// The values of a small tensor, once.
std::vector<float> floats(const RawTensor& t) {
  std::vector<float> values(static_cast<std::size_t>(elements(t.info.shape)));
  to_float(t.info.type, t.values.bytes.data(), values.size(), values.data());
  return values;
}

std::uint32_t word(const RawTensor& t, std::int64_t index) {
  std::uint32_t value;
  std::memcpy(&value, t.values.bytes.data() + index * 4, 4);
  return value;
}

std::string stem(std::string_view name, std::string_view suffix) {
  return std::string(name.substr(0, name.size() - suffix.size()));
}

CheckpointTensor virtual_info(const RawTensor& part, std::string name, Shape64 shape, std::string scheme) {
  CheckpointTensor info = part.info;
  info.name = std::move(name);
  info.shape = std::move(shape);
  info.scheme = std::move(scheme);
  return info;
}

// --- 8-bit numbers with scales ---
// Per axis a scale covers all, one, or a block of the weight's values. Integers may have zero points of the
// scales' shape.
std::optional<VirtualTensor> scaled_bytes(const RawTensor& weight, const FindRaw& find, const Json& config) {
  const std::string& name = weight.info.name;
  const RawTensor* scale = find(name + "_scale_inv");
  if (scale == nullptr) scale = find(name + "_scale");
  if (scale == nullptr) return std::nullopt;
  const bool integers = weight.info.type == StorageType::i8;
  const RawTensor* zero = integers ? find(name + "_zero_point") : nullptr;
  if (zero != nullptr && zero->info.shape != scale->info.shape) mismatch(*zero, *scale);
  const Shape64& shape = weight.info.shape;
  if (shape.size() < 2) return std::nullopt;

  Shape64 scales = scale->info.shape;
  while (scales.size() > shape.size() && scales.back() == 1) scales.pop_back();
  if (scales.size() == 1 && scales[0] == shape[0]) scales.resize(shape.size(), 1);  // one per row
  while (scales.size() < shape.size()) scales.insert(scales.begin(), 1);
  if (scales.size() != shape.size()) mismatch(weight, *scale);

  std::array<std::int64_t, 2> block{128, 128};
  if (config.is_object() && config.contains("weight_block_size") && config["weight_block_size"].is_array() &&
      config["weight_block_size"].size() == 2) {
    for (std::size_t i = 0; i < 2; ++i) {
      const Json& n = config["weight_block_size"][i];
      if (n.is_number_unsigned() && n.get<std::uint64_t>() >= 1 && n.get<std::uint64_t>() < (1u << 30))
        block[i] = n.get<std::int64_t>();
    }
  }
  Shape64 covers(shape.size());
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (scales[axis] == 1) {
      covers[axis] = std::max<std::int64_t>(shape[axis], 1);
    } else if (scales[axis] == shape[axis]) {
      covers[axis] = 1;
    } else {
      std::int64_t width = axis + 2 >= shape.size() ? block[axis + 2 - shape.size()] : 1;
      if (integers && scales[axis] > 0 && shape[axis] % scales[axis] == 0) width = shape[axis] / scales[axis];
      if ((shape[axis] + width - 1) / width != scales[axis]) mismatch(weight, *scale);
      covers[axis] = width;
    }
  }

  const std::int64_t cols = shape.back(), rows = elements(shape) / std::max<std::int64_t>(cols, 1);
  const auto fill = [weight, scales, covers, shape, values = floats(*scale),
                     zeros = zero != nullptr ? floats(*zero) : std::vector<float>(),
                     cols](std::int64_t begin, std::int64_t count, float* out) {
    for (std::int64_t r = begin; r < begin + count; ++r, out += cols) {
      to_float(weight.info.type, weight.values.bytes.data() + r * cols, static_cast<std::size_t>(cols), out);
      std::int64_t index = 0, stride = scales.back(), rest = r;
      for (std::size_t axis = shape.size() - 1; axis-- > 0;) {
        index += rest % shape[axis] / covers[axis] * stride;
        stride *= scales[axis];
        rest /= shape[axis];
      }
      for (std::int64_t c = 0; c < cols; ++c) {
        const auto at = static_cast<std::size_t>(index + c / covers.back());
        out[c] = (zeros.empty() ? out[c] : out[c] - zeros[at]) * values[at];
      }
    }
  };
  const std::string kind = integers ? "int8" : "fp8";
  const std::string scheme =
      scale->info.shape.empty() || elements(scale->info.shape) == 1
          ? kind
          : kind + " " + std::to_string(covers[shape.size() - 2]) + "x" + std::to_string(covers.back());
  VirtualTensor out;
  out.info = virtual_info(weight, name, shape, scheme);
  out.parts = {name, scale->info.name};
  if (zero != nullptr) out.parts.push_back(zero->info.name);
  out.source = [=, print = fingerprint(kind, {&weight, scale, zero}, block[0] << 32 | block[1])] {
    return computed_source(
        {.rows = rows, .cols = cols, .fingerprint = print, .name = weight.values.name, .fill = fill});
  };
  return out;
}

constexpr float fp4_values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

// --- MXFP4 as transformers keeps it: X_blocks U8 [..., out, in / 32, 16], X_scales U8 [..., out, in / 32]
// --- Two values per byte, the low nibble first. The tensor X itself is [..., in, out].
std::optional<VirtualTensor> mxfp4(const RawTensor& blocks, const FindRaw& find) {
  const std::string name = stem(blocks.info.name, "_blocks");
  const RawTensor& scales = need(find, name + "_scales", blocks);
  const Shape64& shape = blocks.info.shape;
  if (blocks.info.type != StorageType::u8 || scales.info.type != StorageType::u8 || shape.size() < 3 ||
      shape.back() != 16 ||
      !std::ranges::equal(shape.begin(), shape.end() - 1, scales.info.shape.begin(), scales.info.shape.end()))
    mismatch(blocks, scales);
  const std::int64_t out = shape[shape.size() - 3], in = shape[shape.size() - 2] * 32;
  const std::int64_t experts = elements(shape) / 16 / std::max<std::int64_t>(out * (in / 32), 1);
  const auto fill = [blocks, scales, in](std::int64_t begin, std::int64_t count, float* y) {
    const auto* packed = reinterpret_cast<const std::uint8_t*>(blocks.values.bytes.data()) + begin * in / 2;
    const auto* exponent =
        reinterpret_cast<const std::uint8_t*>(scales.values.bytes.data()) + begin * (in / 32);
    for (std::int64_t block = 0; block < count * (in / 32); ++block) {
      const float scale = std::ldexp(1.0f, static_cast<int>(*exponent++) - 127);
      for (int i = 0; i < 16; ++i, ++packed) {
        *y++ = fp4_values[*packed & 15] * scale;
        *y++ = fp4_values[*packed >> 4] * scale;
      }
    }
  };
  const auto stored = [=, print = fingerprint("mxfp4", {&blocks, &scales})] {
    return computed_source({.rows = experts * out,
                            .cols = in,
                            .fingerprint = print,
                            .name = blocks.values.name,
                            .exact_in_bf16 = true,
                            .fill = fill});
  };
  Shape64 whole(shape.begin(), shape.end() - 3);
  whole.insert(whole.end(), {in, out});
  VirtualTensor tensor;
  tensor.info = virtual_info(blocks, name, std::move(whole), "mxfp4");
  tensor.parts = {blocks.info.name, scales.info.name};
  tensor.transposed = stored;
  tensor.source = [=] {
    std::vector<WeightSourcePtr> parts;
    const WeightSourcePtr all = stored();
    for (std::int64_t e = 0; e < experts; ++e)
      parts.push_back(transpose(strided_rows(all, {e * out, {{out, 1}}})));
    return parts.size() == 1 ? parts[0] : concat_rows(std::move(parts));
  };
  return tensor;
}

std::int64_t config_int(const Json& config, const char* key, std::int64_t fallback) {
  if (!config.is_object() || !config.contains(key) || !config[key].is_number_integer()) return fallback;
  const std::int64_t value = config[key].get<std::int64_t>();
  return value < -1 || value > (1 << 20) ? fallback : value;
}

std::string config_text(const Json& config, const char* key) {
  return config.is_object() && config.contains(key) && config[key].is_string()
             ? config[key].get<std::string>()
             : "";
}

// --- GPTQ: qweight I32 [in / pack, out], qzeros I32 [groups, out / pack], scales [groups, out], g_idx I32
// [in] or absent --- weight[o][i] = scales[g][o] (q[i][o] - zero[g][o]), where the first version of the
// format stores zero - 1.
std::optional<VirtualTensor> gptq(const RawTensor& q, const FindRaw& find, const Json& config) {
  const std::string name = stem(q.info.name, ".qweight");
  const RawTensor &zeros = need(find, name + ".qzeros", q), &scales = need(find, name + ".scales", q);
  const RawTensor* order = find(name + ".g_idx");
  const std::int64_t bits = config_int(config, "bits", 4);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
    throw Error("GPTQ of " + std::to_string(bits) + " bits", printable(q.info.name, 200),
                "2, 3, 4 and 8 bits are read");
  if (q.info.shape.size() != 2 || q.info.type != StorageType::i32 || zeros.info.type != StorageType::i32)
    mismatch(q, zeros);
  if (scales.info.shape.size() != 2 || scales.info.shape[1] != q.info.shape[1]) mismatch(q, scales);
  const std::int64_t out = q.info.shape[1], words = q.info.shape[0], groups = scales.info.shape[0];
  // Numbers run through the 32-bit words of a column without a gap: three bits straddle them.
  if (words * 32 % bits != 0) mismatch(q, scales);
  const std::int64_t in = words * 32 / bits;
  if (groups < 1 || zeros.info.shape.size() != 2 || zeros.info.shape[0] != groups ||
      zeros.info.shape[1] * 32 / bits < out)
    mismatch(zeros, scales);
  const std::int64_t configured = config_int(config, "group_size", -1);
  const std::int64_t group_size = configured > 0 ? configured : (in + groups - 1) / groups;

  std::vector<std::int32_t> group(static_cast<std::size_t>(in));
  for (std::int64_t i = 0; i < in; ++i)
    group[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / group_size);
  if (order != nullptr) {
    if (order->info.type != StorageType::i32 || order->info.shape != Shape64{in}) mismatch(q, *order);
    for (std::int64_t i = 0; i < in; ++i)
      group[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(word(*order, i));
  }
  for (std::int32_t g : group) {
    if (g < 0 || g >= groups) mismatch(q, order != nullptr ? *order : scales);
  }
  const bool second_version = config_text(config, "checkpoint_format") == "gptq_v2";
  const int bias = second_version ? 0 : 1;

  const auto fill = [=, values = floats(scales)](std::int64_t begin, std::int64_t count, float* y) {
    const std::uint32_t mask = (1u << bits) - 1;
    // Number `index` of a run of words that lie `stride` apart.
    const auto number = [&](const RawTensor& t, std::int64_t first, std::int64_t stride, std::int64_t index) {
      const std::int64_t bit = index * bits, at = first + bit / 32 * stride;
      std::uint64_t pair = word(t, at);
      if (bit % 32 + bits > 32) pair |= static_cast<std::uint64_t>(word(t, at + stride)) << 32;
      return static_cast<std::uint32_t>(pair >> bit % 32) & mask;
    };
    const std::int64_t zero_cols = zeros.info.shape[1];
    std::vector<float> zero(static_cast<std::size_t>(groups));
    for (std::int64_t o = begin; o < begin + count; ++o, y += in) {
      for (std::int64_t g = 0; g < groups; ++g)
        zero[static_cast<std::size_t>(g)] = static_cast<float>(
            (number(zeros, g * zero_cols, 1, o) + static_cast<std::uint32_t>(bias)) & mask);
      for (std::int64_t i = 0; i < in; ++i) {
        const auto g = static_cast<std::size_t>(group[static_cast<std::size_t>(i)]);
        y[i] = values[g * static_cast<std::size_t>(out) + static_cast<std::size_t>(o)] *
               (static_cast<float>(number(q, o, out, i)) - zero[g]);
      }
    }
  };
  VirtualTensor tensor;
  tensor.info = virtual_info(q, name + ".weight", {out, in}, "gptq " + std::to_string(bits) + " bits");
  tensor.parts = {q.info.name, zeros.info.name, scales.info.name};
  if (order != nullptr) tensor.parts.push_back(order->info.name);
  tensor.source = [=, print = fingerprint("gptq", {&q, &zeros, &scales, order}, bits * 4 + bias)] {
    return computed_source(
        {.rows = out, .cols = in, .fingerprint = print, .name = q.values.name, .fill = fill});
  };
  return tensor;
}

// --- AWQ: qweight I32 [in, out / 8], qzeros I32 [groups, out / 8], scales [groups, out] ---
// weight[o][i] = scales[g][o] (q[i][o] - zero[g][o]); of eight columns, column c is nibble 0 4 1 5 2 6 3 7
// [c] of a word.
std::optional<VirtualTensor> awq(const RawTensor& q, const FindRaw& find, const Json& config) {
  const std::string name = stem(q.info.name, ".qweight");
  const RawTensor &zeros = need(find, name + ".qzeros", q), &scales = need(find, name + ".scales", q);
  if (config_int(config, "bits", config_int(config, "w_bit", 4)) != 4)
    throw Error("AWQ of another width than 4 bits", printable(q.info.name, 200));
  if (q.info.shape.size() != 2 || q.info.type != StorageType::i32 || zeros.info.type != StorageType::i32)
    mismatch(q, zeros);
  const std::int64_t in = q.info.shape[0], out = q.info.shape[1] * 8;
  if (scales.info.shape.size() != 2 || scales.info.shape[1] != out || scales.info.shape[0] < 1)
    mismatch(q, scales);
  const std::int64_t groups = scales.info.shape[0];
  if (zeros.info.shape != Shape64{groups, out / 8} || in % groups != 0) mismatch(zeros, scales);
  const std::int64_t group_size = in / groups;

  const auto fill = [=, values = floats(scales)](std::int64_t begin, std::int64_t count, float* y) {
    static constexpr int nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    for (std::int64_t o = begin; o < begin + count; ++o, y += in) {
      const int shift = nibble[o % 8] * 4;
      for (std::int64_t i = 0; i < in; ++i) {
        const std::int64_t g = i / group_size;
        const auto number = static_cast<int>(word(q, i * (out / 8) + o / 8) >> shift & 15);
        const auto zero = static_cast<int>(word(zeros, g * (out / 8) + o / 8) >> shift & 15);
        y[i] = values[static_cast<std::size_t>(g * out + o)] * static_cast<float>(number - zero);
      }
    }
  };
  VirtualTensor tensor;
  tensor.info = virtual_info(q, name + ".weight", {out, in}, "awq 4 bits");
  tensor.parts = {q.info.name, zeros.info.name, scales.info.name};
  tensor.source = [=, print = fingerprint("awq", {&q, &zeros, &scales})] {
    return computed_source(
        {.rows = out, .cols = in, .fingerprint = print, .name = q.values.name, .fill = fill});
  };
  return tensor;
}

// --- compressed-tensors, floats of 4 bits: X.weight_packed U8 [out, in / 2], the low nibble first;
// X.weight_scale [out, groups], 8-bit floats that X.weight_global_scale [1] divides, or exponents (U8)
std::optional<VirtualTensor> packed_floats(const RawTensor& packed, const FindRaw& find) {
  const std::string name = stem(packed.info.name, "_packed");
  const RawTensor& scales = need(find, name + "_scale", packed);
  const RawTensor* global = find(name + "_global_scale");
  if (packed.info.shape.size() != 2 || scales.info.shape.size() != 2 || scales.info.shape[1] < 1 ||
      scales.info.shape[0] != packed.info.shape[0] || packed.info.shape[1] * 2 % scales.info.shape[1] != 0)
    mismatch(packed, scales);
  if (global != nullptr && elements(global->info.shape) != 1) mismatch(packed, *global);
  const std::int64_t out = packed.info.shape[0], in = packed.info.shape[1] * 2, groups = scales.info.shape[1],
                     group = in / groups;
  std::vector<float> factors;
  if (scales.info.type == StorageType::u8) {
    for (const std::byte exponent : scales.values.bytes)
      factors.push_back(std::ldexp(1.0f, static_cast<int>(exponent) - 127));
  } else {
    factors = floats(scales);
    if (global != nullptr) {
      const float divisor = floats(*global)[0];
      for (float& factor : factors) factor /= divisor;
    }
  }
  const auto fill = [packed, factors = std::move(factors), in, group](std::int64_t begin, std::int64_t count,
                                                                      float* y) {
    const std::byte* bytes = packed.values.bytes.data() + begin * in / 2;
    for (std::int64_t k = 0; k < count * in; ++k) {
      const auto pair = static_cast<unsigned>(bytes[k / 2]);
      *y++ = fp4_values[k % 2 == 0 ? pair & 15u : pair >> 4] *
             factors[static_cast<std::size_t>((begin * in + k) / group)];
    }
  };
  VirtualTensor tensor;
  tensor.info =
      virtual_info(packed, name, {out, in}, scales.info.type == StorageType::u8 ? "mxfp4" : "nvfp4");
  tensor.parts = {packed.info.name, scales.info.name};
  if (global != nullptr) tensor.parts.push_back(global->info.name);
  tensor.source = [=, print = fingerprint("packed floats", {&packed, &scales, global})] {
    return computed_source(
        {.rows = out, .cols = in, .fingerprint = print, .name = packed.values.name, .fill = fill});
  };
  return tensor;
}

// --- compressed-tensors, integers: X.weight_packed I32 [out, words], X.weight_scale [out or 1, groups],
// X.weight_shape I64 [2]; X.weight_zero_point I32 [words, groups] or I8, X.weight_g_idx I32 [in] or absent
// --- weight[o][i] = scale[o][g] (q[o][i] - zero[o][g]). 32 / bits numbers in a word from the lowest bit,
// 2^(bits - 1) added to each.
std::optional<VirtualTensor> packed_integers(const RawTensor& packed, const FindRaw& find) {
  const std::string name = stem(packed.info.name, "_packed");
  const RawTensor &scales = need(find, name + "_scale", packed), &shape = need(find, name + "_shape", packed);
  const RawTensor *zeros = find(name + "_zero_point"), *order = find(name + "_g_idx");
  const Shape64& words = packed.info.shape;
  if (words.size() != 2 || elements(shape.info.shape) != 2 ||
      (shape.info.type != StorageType::i64 && shape.info.type != StorageType::i32))
    mismatch(packed, shape);
  const std::vector<float> extents = floats(shape);
  const auto out = static_cast<std::int64_t>(extents[0]), in = static_cast<std::int64_t>(extents[1]);
  int bits = 0;
  for (const int candidate : {2, 4, 8}) {  // the largest that fits: the widths differ but for a few columns
    const std::int64_t per_word = 32 / candidate;
    if (in > 0 && (in + per_word - 1) / per_word == words[1]) bits = candidate;
  }
  if (out != words[0]) mismatch(packed, shape);
  if (bits == 0)
    throw Error("packed integers of another width than 2, 4 or 8 bits", printable(packed.info.name, 200),
                "save the dequantised model");
  const std::int64_t per_word = 32 / bits;
  Shape64 grid = scales.info.shape;
  while (grid.size() < 2) grid.push_back(1);
  if (grid.size() != 2 || (grid[0] != out && grid[0] != 1) || grid[1] < 1 || grid[1] > in)
    mismatch(packed, scales);
  const std::int64_t groups = grid[1], group_size = (in + groups - 1) / groups;

  std::vector<std::int32_t> group(static_cast<std::size_t>(in));
  for (std::int64_t i = 0; i < in; ++i)
    group[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i / group_size);
  if (order != nullptr) {
    if (order->info.type != StorageType::i32 || order->info.shape != Shape64{in}) mismatch(packed, *order);
    for (std::int64_t i = 0; i < in; ++i) {
      const auto g = static_cast<std::int32_t>(word(*order, i));
      if (g >= groups) mismatch(packed, *order);
      if (g >= 0) group[static_cast<std::size_t>(i)] = g;  // -1: no order was chosen
    }
  }
  const std::int32_t offset = 1 << (bits - 1);
  const std::uint32_t mask = (1u << bits) - 1;
  const auto number = [=](const RawTensor& t, std::int64_t at, std::int64_t place) {
    return static_cast<std::int32_t>(word(t, at) >> (place * bits) & mask) - offset;
  };
  std::vector<float> zero(static_cast<std::size_t>(grid[0] * groups));
  if (zeros != nullptr) {
    const bool plain = zeros->info.type != StorageType::i32;
    if (plain ? zeros->info.shape != scales.info.shape
              : zeros->info.shape != Shape64{(grid[0] + per_word - 1) / per_word, groups})
      mismatch(*zeros, scales);
    if (plain) {
      zero = floats(*zeros);
    } else {
      for (std::int64_t o = 0; o < grid[0]; ++o) {
        for (std::int64_t g = 0; g < groups; ++g)
          zero[static_cast<std::size_t>(o * groups + g)] =
              static_cast<float>(number(*zeros, o / per_word * groups + g, o % per_word));
      }
    }
  }
  const auto fill = [=, factors = floats(scales), width = words[1], scale_rows = grid[0]](
                        std::int64_t begin, std::int64_t count, float* y) {
    for (std::int64_t o = begin; o < begin + count; ++o) {
      const auto row = static_cast<std::size_t>(scale_rows == 1 ? 0 : o * groups);
      for (std::int64_t i = 0; i < in; ++i) {
        const std::size_t at = row + static_cast<std::size_t>(group[static_cast<std::size_t>(i)]);
        *y++ = factors[at] *
               (static_cast<float>(number(packed, o * width + i / per_word, i % per_word)) - zero[at]);
      }
    }
  };
  VirtualTensor tensor;
  tensor.info = virtual_info(packed, name, {out, in}, "packed " + std::to_string(bits) + " bits");
  tensor.parts = {packed.info.name, scales.info.name, shape.info.name};
  for (const RawTensor* part : {zeros, order}) {
    if (part != nullptr) tensor.parts.push_back(part->info.name);
  }
  tensor.source = [=, print = fingerprint("packed integers", {&packed, &scales, zeros, order}, bits)] {
    return computed_source(
        {.rows = out, .cols = in, .fingerprint = print, .name = packed.values.name, .fill = fill});
  };
  return tensor;
}

}  // namespace

std::optional<VirtualTensor> assemble(const RawTensor& part, const FindRaw& find, const Json& config) {
  const std::string& name = part.info.name;
  if (part.info.type == StorageType::f8_e4m3 || part.info.type == StorageType::f8_e5m2 ||
      (part.info.type == StorageType::i8 && name.ends_with(".weight")))
    return scaled_bytes(part, find, config);
  if (name.ends_with(".weight_packed")) {
    if (part.info.type == StorageType::i32) return packed_integers(part, find);
    if (part.info.type == StorageType::u8) return packed_floats(part, find);
  }
  if (name.ends_with("_blocks") && find(stem(name, "_blocks") + "_scales") != nullptr)
    return mxfp4(part, find);
  if (name.ends_with(".qweight")) {
    const std::string method = config_text(config, "quant_method");
    // AWQ packs the outputs, GPTQ the inputs.
    if (method == "awq") return awq(part, find, config);
    return gptq(part, find, config);
  }
  return std::nullopt;
}

bool is_runtime_scale(std::string_view name) {
  for (std::string_view suffix : {".input_scale", ".input_zero_point", ".input_global_scale",
                                  ".activation_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale"}) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

}  // namespace ttt::inline v2::detail
