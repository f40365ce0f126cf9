#include "ttt/testing/fixture.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t golden = 0x9e3779b97f4a7c15;
constexpr std::int64_t max_elements = std::int64_t{1} << 28;
constexpr std::array<std::pair<std::string_view, FixtureKind>, 5> kinds = {
    {{"matrix", FixtureKind::matrix},
     {"matrix_in_out", FixtureKind::matrix_in_out},
     {"embedding", FixtureKind::embedding},
     {"norm", FixtureKind::norm},
     {"bias", FixtureKind::bias}}};

std::uint64_t fnv(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

// The random bits of a name and seed: draw(i) costs the same for any i.
class Draws {
 public:
  Draws(std::string_view name, std::uint64_t seed) : base_(mix(fnv(name) ^ mix(seed + golden))) {}
  std::uint64_t operator()(std::uint64_t i) const { return mix(base_ + (i + 1) * golden); }

 private:
  std::uint64_t base_;
};

// floor(sqrt(x)) for x < 2^63. The floating-point root is only a first guess.
std::int64_t integer_sqrt(std::int64_t x) {
  auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(x)));
  while (root * root > x) --root;
  while ((root + 1) * (root + 1) <= x) ++root;
  return root;
}

// bf16 bits of v * 2^-32, rounded to nearest, ties to even.
std::uint16_t round_to_bf16(std::int64_t v) {
  if (v == 0) return 0;
  const auto magnitude = static_cast<std::uint64_t>(v < 0 ? -v : v);
  int shift = static_cast<int>(std::bit_width(magnitude)) - 8;  // the eight leading bits are kept
  std::uint64_t kept = 0;
  if (shift <= 0) {
    kept = magnitude << -shift;
  } else {
    const std::uint64_t rest = magnitude & ((std::uint64_t{1} << shift) - 1),
                        half = std::uint64_t{1} << (shift - 1);
    kept = magnitude >> shift;
    if (rest > half || (rest == half && (kept & 1) != 0)) ++kept;
    if (kept == 256) kept = 128, ++shift;
  }
  const int exponent = shift + 7 - 32 + 127;
  return static_cast<std::uint16_t>((v < 0 ? 0x8000 : 0) | exponent << 7 | static_cast<int>(kept & 127));
}

// Number of elements of a shape that fixtures allow.
std::int64_t count(std::span<const std::int64_t> shape, std::string_view name) {
  std::int64_t product = 1;
  for (const std::int64_t dim : shape) {
    if (dim < 1 || dim > max_elements / product)
      throw Error("a dimension is below 1 or the tensor exceeds 2^28 elements", printable(name),
                  "change its shape");
    product *= dim;
  }
  if (shape.empty()) throw Error("a tensor has no dimensions", printable(name), "give it a shape");
  return product;
}

// ------------------------------------------------------------------------------------------------ fixture
// files
struct Row {
  std::string name;
  std::vector<std::int64_t> shape;
  FixtureKind kind = FixtureKind::matrix;
  std::optional<std::int64_t> gain;
};

struct Fixture {
  std::uint64_t seed = 0;
  bool f32 = false;
  std::size_t shards = 1;
  Json config;
  std::vector<Row> rows;
};

void refuse_unknown(const Json& object, std::span<const std::string_view> known, const std::string& where) {
  for (const auto& item : object.items())
    if (std::ranges::find(known, item.key()) == known.end()) {
      const std::string near = nearest(item.key(), known);
      throw Error("unknown key '" + printable(item.key()) + "'", where,
                  near.empty() ? "remove it" : "did you mean '" + near + "'?");
    }
}

Row parse_row(const Json& json, const std::string& where) {
  static constexpr std::array<std::string_view, 4> known = {"name", "shape", "kind", "gain"};
  refuse_unknown(json, known, where);
  Row row{.name = json.at("name").get<std::string>(),
          .shape = json.at("shape").get<std::vector<std::int64_t>>(),
          .kind = fixture_kind(json.at("kind").get<std::string>()),
          .gain = std::nullopt};
  if (json.contains("gain")) row.gain = json.at("gain").get<std::int64_t>();
  count(row.shape, row.name);
  return row;
}

Fixture parse_fixture(const std::filesystem::path& path) {
  static constexpr std::array<std::string_view, 5> known = {"seed", "dtype", "shards", "config", "tensors"};
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error("cannot read the fixture", path.string(), "check the path");
  std::string where = path.string();
  try {
    const Json json = Json::parse(in);
    if (!json.is_object()) throw Error("the fixture is no JSON object", where, "see docs/references.md");
    refuse_unknown(json, known, where);
    Fixture fixture;
    fixture.seed = json.at("seed").get<std::uint64_t>();
    const auto dtype = json.at("dtype").get<std::string>();
    if (dtype != "BF16" && dtype != "F32")
      throw Error("dtype '" + printable(dtype) + "' is not supported", where, "use BF16 or F32");
    fixture.f32 = dtype == "F32";
    fixture.config = json.at("config");
    for (const Json& row : json.at("tensors")) {
      where = path.string() + ", tensors[" + std::to_string(fixture.rows.size()) + "]";
      fixture.rows.push_back(parse_row(row, where));
    }
    where = path.string();
    const std::int64_t shards = json.value("shards", std::int64_t{1});
    if (shards < 1 || static_cast<std::uint64_t>(shards) > std::max<std::size_t>(fixture.rows.size(), 1) ||
        shards > 99999)
      throw Error("'shards' must lie between 1 and the number of tensors", where, "change it");
    fixture.shards = static_cast<std::size_t>(shards);
    return fixture;
  } catch (const Json::exception& e) {
    throw Error(printable(e.what(), 200), where, "see docs/references.md for what a fixture holds");
  }
}

// ------------------------------------------------------------------------------------------------ writing
void append_little_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out)
    throw Error("cannot write the file", path.string(), "check the folder's permissions and the free space");
}

std::string data_of(const Row& row, const Fixture& fixture) {
  std::string out;
  const std::vector<std::uint16_t> values =
      fixture_values(row.name, fixture.seed, row.kind, row.shape, row.gain);
  out.reserve(values.size() * (fixture.f32 ? 4 : 2));
  for (const std::uint16_t bits : values) {
    if (fixture.f32)
      append_little_endian(out, std::uint64_t{bits} << 16, 4);
    else
      append_little_endian(out, bits, 2);
  }
  return out;
}

// One safetensors file of `rows`; returns the size of its data.
std::size_t write_safetensors(const std::filesystem::path& path, std::span<const Row> rows,
                              const Fixture& fixture) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const Row& row : rows) {
    const std::size_t begin = data.size();
    data += data_of(row, fixture);
    header[row.name] = {{"dtype", fixture.f32 ? "F32" : "BF16"},
                        {"shape", row.shape},
                        {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length;
  append_little_endian(length, text.size(), 8);
  write_file(path, length + text + data);
  return data.size();
}

std::string five_digits(std::size_t n) {
  const std::string digits = std::to_string(n);
  return std::string(5 - std::min<std::size_t>(5, digits.size()), '0') + digits;
}

}  // namespace

FixtureKind fixture_kind(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& [known, kind] : kinds) {
    if (known == name) return kind;
    names.push_back(known);
  }
  const std::string near = nearest(name, names);
  throw Error(
      "unknown kind of tensor '" + printable(name) + "'", "",
      near.empty() ? "use matrix, matrix_in_out, embedding, norm or bias" : "did you mean '" + near + "'?");
}

std::vector<std::uint16_t> fixture_values(std::string_view name, std::uint64_t seed, FixtureKind kind,
                                          std::span<const std::int64_t> shape,
                                          std::optional<std::int64_t> gain) {
  const std::int64_t n = count(shape, name);
  if (gain && (*gain < 1 || *gain > 10000))
    throw Error("the gain is outside 1 to 10000", printable(name), "change it");
  const Draws draw(name, seed);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(n));

  const auto uniform = [&](std::int64_t centre, std::int64_t scale) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = round_to_bf16(centre + (2 * static_cast<std::int64_t>(draw(i) >> 48) - 65535) * scale);
  };
  const auto normal = [&](std::int64_t default_gain, std::int64_t fan_in) {
    const std::int64_t g = gain.value_or(default_gain);
    const std::int64_t scale = integer_sqrt(3 * g * g * (std::int64_t{1} << 32) / (10000 * fan_in));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint64_t d = draw(i);
      const auto sum =
          static_cast<std::int64_t>((d & 0xffff) + (d >> 16 & 0xffff) + (d >> 32 & 0xffff) + (d >> 48));
      values[i] = round_to_bf16((sum - 131070) * scale);
    }
  };
  switch (kind) {
    case FixtureKind::matrix:
      normal(110, shape.back());
      break;
    case FixtureKind::matrix_in_out:
      normal(110, shape.front());
      break;
    case FixtureKind::embedding:
      normal(60, 1);
      break;
    case FixtureKind::norm:
      uniform(std::int64_t{1} << 32, 26214);
      break;
    case FixtureKind::bias:
      uniform(0, 19661);
      break;
  }
  return values;
}

std::vector<std::int64_t> fixture_prompt(std::uint64_t seed, std::size_t length, std::int64_t vocab,
                                         std::int64_t first) {
  if (first < 0 || vocab <= first || vocab > max_elements)
    throw Error("no token id lies between first and vocab", "fixture_prompt", "give 0 <= first < vocab");
  const Draws draw("prompt", seed);
  std::vector<std::int64_t> ids(length);
  for (std::size_t i = 0; i < length; ++i)
    ids[i] =
        first + static_cast<std::int64_t>((draw(i) >> 32) * static_cast<std::uint64_t>(vocab - first) >> 32);
  return ids;
}

void write_fixture(const std::filesystem::path& path, const std::filesystem::path& folder) {
  const Fixture fixture = parse_fixture(path);
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed)
    throw Error("cannot make the folder (" + failed.message() + ")", folder.string(), "choose another one");
  write_file(folder / "config.json", fixture.config.dump(2) + "\n");
  if (fixture.shards == 1) {
    write_safetensors(folder / "model.safetensors", fixture.rows, fixture);
    return;
  }
  std::size_t total = 0, begin = 0;
  Json weight_map = Json::object();
  for (std::size_t shard = 0; shard < fixture.shards; ++shard) {
    std::size_t end = begin;  // tensor j of n goes to the shard floor(j * shards / n)
    while (end < fixture.rows.size() && end * fixture.shards / fixture.rows.size() == shard) ++end;
    const std::string name =
        "model-" + five_digits(shard + 1) + "-of-" + five_digits(fixture.shards) + ".safetensors";
    total += write_safetensors(folder / name, std::span(fixture.rows).subspan(begin, end - begin), fixture);
    for (; begin < end; ++begin) weight_map[fixture.rows[begin].name] = name;
  }
  write_file(folder / "model.safetensors.index.json",
             Json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) + "\n");
}

std::string source_sha256(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed))
    if (entry.path().extension() == ".safetensors" && entry.path().filename() != "golden.safetensors")
      files.push_back(entry.path());
  if (failed)
    throw Error("cannot list the folder (" + failed.message() + ")", folder.string(), "check the path");
  std::ranges::sort(files);
  std::string bytes;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    bytes.append(std::istreambuf_iterator<char>(in), {});
    if (!in) throw Error("cannot read the file", file.string(), "check its permissions");
  }
  return sha256(std::as_bytes(std::span(bytes)));
}

}  // namespace ttt::inline v2::testing
