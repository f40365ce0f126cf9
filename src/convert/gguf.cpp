#include "ttt/convert/gguf.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <limits>
#include <regex>
#include <unordered_map>

#include "tensor/hash.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

// Ids of metadata types.
enum class Kind : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

constexpr std::size_t kind_size(Kind kind) {
  switch (kind) {
    case Kind::u8:
    case Kind::i8:
    case Kind::boolean:
      return 1;
    case Kind::u16:
    case Kind::i16:
      return 2;
    case Kind::u32:
    case Kind::i32:
    case Kind::f32:
      return 4;
    case Kind::u64:
    case Kind::i64:
    case Kind::f64:
      return 8;
    case Kind::string:
      return 8;  // at least: its length
    case Kind::array:
      return 12;
  }
  return 0;
}

// Reads forward and never past the end.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  std::size_t position() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }
  void about(std::string what) { about_ = std::move(what); }
  std::string where() const { return about_.empty() ? source_ : about_ + " in " + source_; }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    const auto length = number<std::uint64_t>();
    const std::span<const std::byte> bytes = take(length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> take(std::uint64_t count) {
    if (count > left()) throw Error("the file ends in its header", where(), "download it again");
    const auto part = bytes_.subspan(at_, static_cast<std::size_t>(count));
    at_ += static_cast<std::size_t>(count);
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
  std::string about_;
  std::size_t at_ = 0;
};

Kind read_kind(Reader& in) {
  const auto id = in.number<std::uint32_t>();
  if (id > static_cast<std::uint32_t>(Kind::f64))
    throw Error("unknown metadata type " + std::to_string(id), in.where(),
                "the file is damaged, or newer than this program");
  return static_cast<Kind>(id);
}

std::int64_t integer(Reader& in, Kind kind) {
  switch (kind) {
    case Kind::u8:
      return in.number<std::uint8_t>();
    case Kind::i8:
      return in.number<std::int8_t>();
    case Kind::u16:
      return in.number<std::uint16_t>();
    case Kind::i16:
      return in.number<std::int16_t>();
    case Kind::u32:
      return in.number<std::uint32_t>();
    case Kind::i32:
      return in.number<std::int32_t>();
    default:
      return in.number<std::int64_t>();
  }
}

GgufArray read_array(Reader& in) {
  const Kind kind = read_kind(in);
  const auto count = in.number<std::uint64_t>();
  if (kind == Kind::array)
    throw Error("a list of lists", in.where(), "the file is damaged, or newer than this program");
  if (count > in.left() / kind_size(kind))
    throw Error("the file ends in its header", in.where(), "download it again");
  const auto fill = [&](auto values, auto read) {
    values.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) values.push_back(read());
    return GgufArray(std::move(values));
  };
  switch (kind) {
    case Kind::string:
      return fill(std::vector<std::string>(), [&] { return in.text(); });
    case Kind::boolean:
      return fill(std::vector<bool>(), [&] { return in.number<std::uint8_t>() != 0; });
    case Kind::f32:
      return fill(std::vector<double>(), [&] { return static_cast<double>(in.number<float>()); });
    case Kind::f64:
      return fill(std::vector<double>(), [&] { return in.number<double>(); });
    case Kind::u64:
      return fill(std::vector<std::int64_t>(), [&] {
        const auto value = in.number<std::uint64_t>();
        if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
          throw Error("a number beyond 2^63", in.where());
        return static_cast<std::int64_t>(value);
      });
    default:
      return fill(std::vector<std::int64_t>(), [&] { return integer(in, kind); });
  }
}

GgufValue read_value(Reader& in) {
  const Kind kind = read_kind(in);
  switch (kind) {
    case Kind::string:
      return in.text();
    case Kind::boolean:
      return in.number<std::uint8_t>() != 0;
    case Kind::f32:
      return static_cast<double>(in.number<float>());
    case Kind::f64:
      return in.number<double>();
    case Kind::array:
      return read_array(in);
    case Kind::u64: {
      const auto value = in.number<std::uint64_t>();
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return value;
      return static_cast<std::int64_t>(value);
    }
    default:
      return integer(in, kind);
  }
}

using Metadata = std::map<std::string, GgufValue, std::less<>>;

struct Part {
  std::shared_ptr<const MappedFile> file;
  std::span<const std::byte> bytes;
  std::string source;
  std::filesystem::path path;
  Metadata metadata;
  std::vector<GgufTensor> tensors;
  std::uint64_t header_hash = 0;

  void read();
};

template <class T>
const T* find_as(const Metadata& metadata, std::string_view key, const std::string& source,
                 const char* kind) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) throw Error("is no " + std::string(kind), std::string(key) + " in " + source);
  return value;
}

void Part::read() {
  Reader in(bytes, source);
  if (bytes.size() < 24 || std::memcmp(bytes.data(), "GGUF", 4) != 0)
    throw Error("no GGUF file", source, "it does not begin with GGUF; is the download complete?");
  in.take(4);
  const auto version = in.number<std::uint32_t>();
  if (version != 2 && version != 3) {
    if ((version & 0xFFFFu) == 0)
      throw Error("a big-endian GGUF file", source,
                  "convert it with gguf-py's gguf_convert_endian.py, or download the little-endian one");
    throw Error("GGUF version " + std::to_string(version), source,
                version == 1 ? "convert the model again: version 1 was given up in 2023"
                             : "versions 2 and 3 are read");
  }
  const auto tensor_count = in.number<std::uint64_t>(), value_count = in.number<std::uint64_t>();
  // A tensor takes at least 24 bytes here, a value 13: what can not fit is refused before memory is asked
  // for.
  if (tensor_count > in.left() / 24 || value_count > in.left() / 13)
    throw Error(
        std::to_string(tensor_count) + " tensors and " + std::to_string(value_count) + " values announced",
        source, "the file is damaged");

  for (std::uint64_t i = 0; i < value_count; ++i) {
    in.about("metadata entry " + std::to_string(i));
    std::string key = in.text();
    in.about(printable(key));
    if (key.size() > 65'535) throw Error("a key of " + std::to_string(key.size()) + " bytes", in.where());
    if (!metadata.emplace(std::move(key), read_value(in)).second)
      throw Error("a key that occurs twice", in.where());
  }

  std::uint64_t alignment = 32;
  if (const auto* value = find_as<std::int64_t>(metadata, "general.alignment", source, "integer")) {
    if (*value < 1 || *value > (1 << 20) || !std::has_single_bit(static_cast<std::uint64_t>(*value)))
      throw Error("an alignment of " + std::to_string(*value), "general.alignment in " + source);
    alignment = static_cast<std::uint64_t>(*value);
  }

  tensors.reserve(static_cast<std::size_t>(tensor_count));
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    in.about("tensor " + std::to_string(i));
    GgufTensor t;
    t.name = in.text();
    in.about(printable(t.name, 200));
    const auto rank = in.number<std::uint32_t>();
    if (rank > 4) throw Error(std::to_string(rank) + " axes", in.where(), "the file is damaged");
    t.shape.resize(rank);
    std::uint64_t elements = 1;
    bool overflow = false;
    for (std::uint32_t axis = rank; axis-- > 0;) {
      const auto extent = in.number<std::uint64_t>();
      overflow |= extent > std::uint64_t{1} << 48 || __builtin_mul_overflow(elements, extent, &elements);
      t.shape[axis] = static_cast<std::int64_t>(extent);
    }
    const auto type_id = in.number<std::uint32_t>();
    const std::optional<StorageType> type = storage_from_ggml(type_id);
    if (!type)
      throw Error("unknown tensor type " + std::to_string(type_id), in.where(),
                  "the file is newer than this program; use another quantisation");
    t.type = *type;
    const BlockSize block = block_size(*type);
    const auto values = static_cast<std::uint64_t>(block.values);
    const std::uint64_t row = rank == 0 ? 1 : static_cast<std::uint64_t>(t.shape.back());
    if (overflow || row % values != 0)
      throw Error("rows of " + std::to_string(row) + " values of " + std::string(ttt::name(*type)),
                  in.where(), "the file is damaged");
    overflow = __builtin_mul_overflow(elements / values, static_cast<std::uint64_t>(block.bytes), &t.bytes);
    t.offset = in.number<std::uint64_t>();
    if (overflow || t.offset % alignment != 0)
      throw Error("an offset of " + std::to_string(t.offset), in.where(), "the file is damaged");
    tensors.push_back(std::move(t));
  }
  in.about({});
  const std::uint64_t data = (in.position() + alignment - 1) / alignment * alignment;
  header_hash = detail::hash_bytes(bytes.first(in.position()));

  std::vector<const GgufTensor*> order;
  for (GgufTensor& t : tensors) {
    std::uint64_t end = 0;
    const bool overflow =
        __builtin_add_overflow(t.offset, data, &t.offset) || __builtin_add_overflow(t.offset, t.bytes, &end);
    if (overflow || end > bytes.size())
      throw Error("the file ends before the tensor does", printable(t.name, 200) + " in " + source,
                  "download it again");
    order.push_back(&t);
  }
  std::ranges::sort(order, {}, [](const GgufTensor* t) { return std::pair(t->offset, t->bytes); });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes)
      throw Error("overlaps " + printable(order[i - 1]->name, 200),
                  printable(order[i]->name, 200) + " in " + source, "the file is damaged");
  }
}

}  // namespace

struct GgufFile::State {
  std::vector<Part> parts;
  std::vector<std::filesystem::path> files;
  std::vector<std::shared_ptr<const MappedFile>> mapped;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string_view, std::size_t> index;
  std::uint64_t header_hash = 0;

  const Part& first() const { return parts.front(); }
  void collect();
};

// All parts into one list. The metadata of the first part speaks for all.
void GgufFile::State::collect() {
  detail::Hasher hash;
  std::size_t count = 0;
  for (const Part& part : parts) count += part.tensors.size();
  tensors.reserve(count);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    for (GgufTensor& t : parts[i].tensors) {
      t.file = static_cast<std::uint32_t>(i);
      tensors.push_back(std::move(t));
    }
    hash.add(parts[i].header_hash);
    files.push_back(parts[i].path);
    mapped.push_back(parts[i].file);
  }
  header_hash = hash.value();
  index.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (!index.emplace(tensors[i].name, i).second)
      throw Error("two tensors of one name",
                  printable(tensors[i].name, 200) + " in " + parts[tensors[i].file].source);
  }
  if (const auto* wanted =
          find_as<std::int64_t>(first().metadata, "split.tensors.count", first().source, "integer")) {
    if (static_cast<std::uint64_t>(*wanted) != count)
      throw Error(std::to_string(count) + " tensors in place of " + std::to_string(*wanted), first().source,
                  "download all parts again");
  }
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  auto state = std::make_shared<State>();
  const auto add = [&](const std::filesystem::path& file) {
    Part& part = state->parts.emplace_back();
    part.path = file;
    part.source = printable(file.string(), 400);
    part.file = MappedFile::open(file);
    part.bytes = part.file->bytes();
    part.read();
  };
  static const std::regex split_name("(.*)-([0-9]{5})-of-([0-9]{5})\\.gguf");
  std::smatch match;
  const std::string file_name = path.filename().string();
  if (std::regex_match(file_name, match, split_name)) {
    const std::string stem = match[1], count_text = match[3];
    int count = 0;
    std::from_chars(count_text.data(), count_text.data() + count_text.size(), count);
    for (int i = 1; i <= count; ++i) {
      char number[32];
      std::snprintf(number, sizeof number, "-%05d-of-%05d.gguf", i, count);
      const std::filesystem::path part = path.parent_path() / (stem + number);
      if (!std::filesystem::exists(part))
        throw Error("a part is missing", printable(part.string(), 400), "download all parts into one folder");
      add(part);
    }
    if (count == 0) throw Error("part of nothing", printable(file_name));
  } else {
    add(path);
    const Part& only = state->parts.front();
    const auto* parts = find_as<std::int64_t>(only.metadata, "split.count", only.source, "integer");
    if (parts != nullptr && *parts > 1)
      throw Error("one part of " + std::to_string(*parts), only.source,
                  "give the parts their names NAME-00001-of-0000N.gguf again");
  }
  state->collect();
  GgufFile file;
  file.state_ = std::move(state);
  return file;
}

GgufFile GgufFile::from_bytes(std::span<const std::byte> bytes, std::string source) {
  auto state = std::make_shared<State>();
  Part& part = state->parts.emplace_back();
  part.bytes = bytes;
  part.source = std::move(source);
  part.read();
  state->collect();
  GgufFile file;
  file.state_ = std::move(state);
  return file;
}

const std::vector<std::filesystem::path>& GgufFile::files() const { return state_->files; }
const std::vector<GgufTensor>& GgufFile::tensors() const { return state_->tensors; }
std::uint64_t GgufFile::header_hash() const { return state_->header_hash; }
const std::shared_ptr<const MappedFile>& GgufFile::file(std::uint32_t index) const {
  return state_->mapped.at(index);
}
const std::map<std::string, GgufValue, std::less<>>& GgufFile::metadata() const {
  return state_->first().metadata;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto it = state_->index.find(name);
  return it == state_->index.end() ? nullptr : &state_->tensors[it->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& t) const {
  return state_->parts.at(t.file).bytes.subspan(t.offset, t.bytes);
}

const GgufValue* GgufFile::find_value(std::string_view key) const {
  const auto it = metadata().find(key);
  return it == metadata().end() ? nullptr : &it->second;
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  const auto* value = find_as<std::int64_t>(metadata(), key, state_->first().source, "integer");
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (value != nullptr && std::holds_alternative<std::int64_t>(*value))
    return static_cast<double>(std::get<std::int64_t>(*value));
  const auto* found = find_as<double>(metadata(), key, state_->first().source, "number");
  return found ? std::optional(*found) : std::nullopt;
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  const auto* value = find_as<bool>(metadata(), key, state_->first().source, "flag");
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::string> GgufFile::text(std::string_view key) const {
  const auto* value = find_as<std::string>(metadata(), key, state_->first().source, "text");
  return value ? std::optional(*value) : std::nullopt;
}

std::string GgufFile::architecture() const {
  if (std::optional<std::string> name = text("general.architecture")) return *std::move(name);
  throw Error("general.architecture is missing", state_->first().source, "the file is no model");
}

Vocabulary GgufFile::vocabulary() const {
  const std::string& source = state_->first().source;
  const std::string prefix = "tokenizer.ggml.";
  const auto list = [&]<class T>(const char* key, std::vector<T> fallback) -> std::vector<T> {
    const auto* array = find_as<GgufArray>(metadata(), prefix + key, source, "list");
    if (array == nullptr) return fallback;
    if (const auto* values = std::get_if<std::vector<T>>(array)) return *values;
    if (std::visit([](const auto& values) { return values.empty(); }, *array)) return {};
    throw Error("a list of another type", prefix + key + " in " + source);
  };
  const auto id = [&](const char* key) -> std::optional<std::int32_t> {
    const std::optional<std::int64_t> value = integer(prefix + key);
    if (!value) return std::nullopt;
    // Converters write -1 (or its unsigned form) for "none".
    if (*value == -1 || *value == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
    if (*value < 0 || *value > std::numeric_limits<std::int32_t>::max())
      throw Error("a token id of " + std::to_string(*value), prefix + key + " in " + source);
    return static_cast<std::int32_t>(*value);
  };

  Vocabulary v;
  v.source = source;
  if (!text(prefix + "model")) throw Error("has no vocabulary: tokenizer.ggml.model is missing", source);
  v.model = *text(prefix + "model");
  v.pre = text(prefix + "pre").value_or("");
  v.tokens = list("tokens", std::vector<std::string>());
  for (double score : list("scores", std::vector<double>())) v.scores.push_back(static_cast<float>(score));
  for (std::int64_t type : list("token_type", std::vector<std::int64_t>())) {
    if (type < 0 || type > 6)
      throw Error("token type " + std::to_string(type), prefix + "token_type in " + source);
    v.token_types.push_back(static_cast<TokenType>(type));
  }
  v.merges = list("merges", std::vector<std::string>());
  v.bos_id = id("bos_token_id");
  v.eos_id = id("eos_token_id");
  v.eot_id = id("eot_token_id");
  v.eom_id = id("eom_token_id");
  v.unknown_id = id("unknown_token_id");
  v.separator_id = id("seperator_token_id");  // as the format spells it
  if (!v.separator_id) v.separator_id = id("separator_token_id");
  v.padding_id = id("padding_token_id");
  v.cls_id = id("cls_token_id");
  v.mask_id = id("mask_token_id");
  v.add_bos = flag(prefix + "add_bos_token");
  v.add_eos = flag(prefix + "add_eos_token");
  v.add_sep = flag(prefix + "add_sep_token");
  v.add_space_prefix = flag(prefix + "add_space_prefix");
  v.remove_extra_whitespaces = flag(prefix + "remove_extra_whitespaces");
  v.escape_whitespaces = flag(prefix + "escape_whitespaces");
  if (const GgufValue* value = find_value(prefix + "precompiled_charsmap")) {
    if (std::holds_alternative<GgufArray>(*value)) {
      for (std::int64_t byte : list("precompiled_charsmap", std::vector<std::int64_t>()))
        v.precompiled_charsmap.push_back(static_cast<char>(byte));
    } else if (const auto* bytes = std::get_if<std::string>(value)) {
      v.precompiled_charsmap = *bytes;
    }
  }
  return v;
}

}  // namespace ttt::inline v2
