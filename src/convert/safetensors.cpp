#include "ttt/convert/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "convert/json.h"
#include "tensor/hash.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

constexpr std::uint64_t header_limit = 100'000'000;  // as the reference implementation
constexpr std::size_t rank_limit = 16;

struct Parsed {
  std::vector<SafetensorsTensor> tensors;
  std::vector<bool> has_type, has_shape, has_offsets;
  std::map<std::string, std::string> metadata;
};

// The header is {"name": {"dtype": string, "shape": [n...], "data_offsets": [begin, end]}, "__metadata__":
// {string: string}} and nothing else. Read event by event: a name twice is noticed, and a hostile one costs
// no memory.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& source, Parsed& out) : source_(source), out_(out) {}

  bool null() override { return wrong("null"); }
  bool boolean(bool) override { return wrong("a flag"); }
  bool number_integer(number_integer_t) override { return wrong("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return wrong("a fraction"); }
  bool binary(binary_t&) override { return wrong("bytes"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::list) return wrong("a number");
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max()))
      return wrong("a number beyond 2^63");
    if (field_ == Field::shape) {
      if (tensor().shape.size() == rank_limit) return wrong("more than 16 axes");
      tensor().shape.push_back(static_cast<std::int64_t>(value));
    } else {
      if (offsets_ == 2) return wrong("more than two offsets");
      (offsets_++ == 0 ? tensor().offset : tensor().bytes) = value;  // begin, end
    }
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::metadata) {
      if (out_.metadata.size() < 100'000) out_.metadata.insert_or_assign(key_, text);
      return true;
    }
    if (place_ != Place::tensor || field_ != Field::dtype) return wrong("a string");
    const std::optional<StorageType> type = storage_from_safetensors(text);
    if (!type) throw Error("unknown dtype " + printable(text), where(), "convert the checkpoint to BF16");
    tensor().type = *type;
    out_.has_type.back() = true;
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::start) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      if (key_ == "__metadata__") {
        place_ = Place::metadata;
      } else {
        if (!names_.insert(key_).second) throw Error("two tensors of one name", where());
        out_.tensors.push_back({.name = key_});
        out_.has_type.push_back(false);
        out_.has_shape.push_back(false);
        out_.has_offsets.push_back(false);
        place_ = Place::tensor;
        field_ = Field::none;
      }
    } else {
      return wrong("an object");
    }
    return true;
  }

  bool key(string_t& text) override {
    if (place_ == Place::tensor) {
      if (text == "dtype") {
        field_ = Field::dtype;
      } else if (text == "shape") {
        field_ = Field::shape;
      } else if (text == "data_offsets") {
        field_ = Field::offsets;
      } else {
        throw Error("unknown field " + printable(text), where());
      }
      if (out_.has_type.back() && field_ == Field::dtype) return wrong("two dtypes");
    } else {
      key_ = text;
    }
    return true;
  }

  bool end_object() override {
    place_ = place_ == Place::top ? Place::end : Place::top;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || (field_ != Field::shape && field_ != Field::offsets))
      return wrong("a list");
    std::vector<bool>& seen = field_ == Field::shape ? out_.has_shape : out_.has_offsets;
    if (seen.back()) return wrong("two lists");
    seen.back() = true;
    offsets_ = 0;
    place_ = Place::list;
    return true;
  }

  bool end_array() override {
    if (field_ == Field::offsets && offsets_ != 2) return wrong("fewer than two offsets");
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    throw Error("the header is no JSON at byte " + std::to_string(position), source_, "the file is damaged");
  }

 private:
  enum class Place { start, top, metadata, tensor, list, end };
  enum class Field { none, dtype, shape, offsets };

  SafetensorsTensor& tensor() { return out_.tensors.back(); }
  std::string where() const { return printable(key_, 200) + " in " + source_; }
  [[noreturn]] bool wrong(const char* what) const {
    throw Error(std::string(what) + " where the header has none", where(), "the file is damaged");
  }

  const std::string& source_;
  Parsed& out_;
  Place place_ = Place::start;
  Field field_ = Field::none;
  int offsets_ = 0;
  std::string key_;
  std::unordered_set<std::string> names_;
};

// Bytes of a tensor; nothing when the product overflows.
std::optional<std::uint64_t> byte_count(const std::vector<std::int64_t>& shape, StorageType type) {
  std::uint64_t bytes = static_cast<std::uint64_t>(block_size(type).bytes);
  bool overflow = false, empty = false;
  for (std::int64_t extent : shape) {
    empty |= extent == 0;
    overflow |= __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes);
  }
  if (empty) return 0;
  return overflow ? std::nullopt : std::optional(bytes);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

struct SafetensorsFile::State {
  std::shared_ptr<const MappedFile> file;
  std::span<const std::byte> bytes;
  std::string source;
  std::vector<SafetensorsTensor> tensors;
  std::unordered_map<std::string_view, std::size_t> index;
  std::map<std::string, std::string> metadata;
  std::uint64_t header_hash = 0;

  void read();
};

void SafetensorsFile::State::read() {
  if (bytes.size() < 8) throw Error("no safetensors file: shorter than its header", source);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > header_limit)
    throw Error("a header of " + std::to_string(length) + " bytes", source, "at most 100 MB are read");
  if (length > bytes.size() - 8) throw Error("the file ends within its header", source, "download it again");
  const std::span<const std::byte> header = bytes.subspan(8, length);
  const char* text = reinterpret_cast<const char*>(header.data());
  if (length == 0 || text[0] != '{')
    throw Error("no safetensors file: the header does not begin with {", source);

  Parsed parsed;
  HeaderReader reader(source, parsed);
  nlohmann::json::sax_parse(text, text + length, &reader);  // throws from the reader
  tensors = std::move(parsed.tensors);
  metadata = std::move(parsed.metadata);

  const std::uint64_t data_size = bytes.size() - 8 - length;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    SafetensorsTensor& t = tensors[i];
    const std::string where = printable(t.name, 200) + " in " + source;
    if (!parsed.has_type[i] || !parsed.has_shape[i] || !parsed.has_offsets[i])
      throw Error("dtype, shape or data_offsets is missing", where);
    const std::uint64_t begin = t.offset, end = t.bytes;
    const std::optional<std::uint64_t> wanted = byte_count(t.shape, t.type);
    if (begin > end || !wanted || *wanted != end - begin)
      throw Error("data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "] do not fit " +
                      std::string(ttt::name(t.type)) + " " + shape_text(t.shape),
                  where, "the file is damaged");
    if (end > data_size) throw Error("the file ends before the tensor does", where, "download it again");
    t.bytes = end - begin;
  }
  std::ranges::stable_sort(tensors, {},
                           [](const SafetensorsTensor& t) { return std::pair(t.offset, t.bytes); });
  std::uint64_t expected = 0;
  for (SafetensorsTensor& t : tensors) {
    if (t.offset != expected)
      throw Error(t.offset < expected ? "two tensors overlap" : "a hole before a tensor",
                  printable(t.name, 200) + " in " + source, "the file is damaged");
    expected += t.bytes;
    t.offset += 8 + length;
  }
  if (expected != data_size)
    throw Error(std::to_string(data_size - expected) + " bytes behind the last tensor", source,
                "the file is damaged");
  index.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
  header_hash = detail::hash_bytes(header);
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto state = std::make_shared<State>();
  state->file = MappedFile::open(path);
  state->bytes = state->file->bytes();
  state->source = printable(path.string(), 400);
  state->read();
  SafetensorsFile file;
  file.state_ = std::move(state);
  return file;
}

SafetensorsFile SafetensorsFile::from_bytes(std::span<const std::byte> bytes, std::string source) {
  auto state = std::make_shared<State>();
  state->bytes = bytes;
  state->source = std::move(source);
  state->read();
  SafetensorsFile file;
  file.state_ = std::move(state);
  return file;
}

const std::vector<SafetensorsTensor>& SafetensorsFile::tensors() const { return state_->tensors; }

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = state_->index.find(name);
  return it == state_->index.end() ? nullptr : &state_->tensors[it->second];
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return state_->metadata; }
std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsTensor& t) const {
  return state_->bytes.subspan(t.offset, t.bytes);
}
std::uint64_t SafetensorsFile::header_hash() const { return state_->header_hash; }
const std::shared_ptr<const MappedFile>& SafetensorsFile::file() const { return state_->file; }

static const SafetensorsTensor& need(const SafetensorsFile& file, std::string_view name,
                                     const std::string& source) {
  if (const SafetensorsTensor* t = file.find(name)) return *t;
  std::vector<std::string_view> names;
  for (const SafetensorsTensor& t : file.tensors()) names.push_back(t.name);
  const std::string near = nearest(name, names);
  throw Error("no tensor " + printable(name, 200), source,
              near.empty() ? "" : "did you mean " + printable(near, 200) + "?");
}

std::vector<float> SafetensorsFile::floats(std::string_view name) const {
  const SafetensorsTensor& t = need(*this, name, state_->source);
  std::vector<float> values(t.bytes / static_cast<std::size_t>(block_size(t.type).bytes));
  to_float(t.type, bytes(t).data(), values.size(), values.data());
  return values;
}

std::vector<std::int64_t> SafetensorsFile::integers(std::string_view name) const {
  const SafetensorsTensor& t = need(*this, name, state_->source);
  const std::size_t width = static_cast<std::size_t>(block_size(t.type).bytes);
  const std::byte* data = bytes(t).data();
  std::vector<std::int64_t> values(t.bytes / width);
  const auto read = [&]<class T>(T) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      T value;
      std::memcpy(&value, data + i * width, width);
      if constexpr (std::is_same_v<T, std::uint64_t>) {
        if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
          throw Error("a value beyond 2^63", printable(name, 200) + " in " + state_->source);
      }
      values[i] = static_cast<std::int64_t>(value);
    }
  };
  switch (t.type) {
    case StorageType::i64:
      read(std::int64_t{});
      break;
    case StorageType::i32:
      read(std::int32_t{});
      break;
    case StorageType::i16:
      read(std::int16_t{});
      break;
    case StorageType::i8:
      read(std::int8_t{});
      break;
    case StorageType::u64:
      read(std::uint64_t{});
      break;
    case StorageType::u32:
      read(std::uint32_t{});
      break;
    case StorageType::u16:
      read(std::uint16_t{});
      break;
    case StorageType::u8:
    case StorageType::boolean:
      read(std::uint8_t{});
      break;
    default:
      throw Error(std::string(ttt::name(t.type)) + " values are no integers",
                  printable(name, 200) + " in " + state_->source);
  }
  return values;
}

// --- writing ---

namespace {

// A file under another name beside `path` until commit() renames it.
class NewFile {
 public:
  explicit NewFile(const std::filesystem::path& path) : path_(path), where_(printable(path.string(), 400)) {
    static std::atomic<unsigned> counter{0};
    do {
      temporary_ =
          path.string() + "." + std::to_string(::getpid()) + "-" + std::to_string(counter++) + ".tmp";
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && errno == EEXIST);
    if (descriptor_ < 0) {
      temporary_.clear();
      throw Error(std::string("can not be written: ") + std::strerror(errno), where_,
                  "choose another folder");
    }
    buffer_.reserve(buffer_size);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > buffer_size) flush();
    if (bytes.size() > buffer_size) {
      put(bytes);
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }

  void commit() {
    flush();
    bool good = ::fsync(descriptor_) == 0;
    good = ::close(std::exchange(descriptor_, -1)) == 0 && good;
    if (!good || ::rename(temporary_.c_str(), path_.c_str()) != 0) fail();
    temporary_.clear();
  }

 private:
  static constexpr std::size_t buffer_size = std::size_t{1} << 20;
  [[noreturn]] void fail() const {
    throw Error(std::string("can not be written: ") + std::strerror(errno), where_, "is the disk full?");
  }
  void flush() {
    put(buffer_);
    buffer_.clear();
  }
  void put(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(descriptor_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail();
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  std::filesystem::path path_;
  std::string where_, temporary_;
  int descriptor_ = -1;
  std::vector<std::byte> buffer_;
};

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata) {
  const std::string where = printable(path.string(), 400);
  detail::Json header = detail::Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::unordered_set<std::string_view> names;
  std::vector<std::uint64_t> sizes;
  std::uint64_t offset = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::string here = printable(entry.name, 200) + " in " + where;
    if (!names.insert(entry.name).second || entry.name == "__metadata__")
      throw Error("a tensor name that is taken", here);
    if (is_quantised(entry.type))
      throw Error(std::string(name(entry.type)) + " has no place in safetensors", here);
    for (std::int64_t extent : entry.shape) {
      if (extent < 0) throw Error("a negative extent in " + shape_text(entry.shape), here);
    }
    const std::optional<std::uint64_t> bytes = byte_count(entry.shape, entry.type);
    std::uint64_t end = 0;
    if (!bytes || __builtin_add_overflow(offset, *bytes, &end))
      throw Error("a tensor of " + shape_text(entry.shape), here);
    sizes.push_back(*bytes);
    header[entry.name] = {
        {"dtype", name(entry.type)}, {"shape", entry.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = detail::dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > header_limit)
    throw Error("a header of " + std::to_string(text.size()) + " bytes", where, "write several files");

  NewFile file(path);
  const std::uint64_t length = text.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(text)));
  for (std::size_t i = 0; i < entries.size(); ++i) {
    std::uint64_t written = 0;
    entries[i].write([&](std::span<const std::byte> bytes) {
      written += bytes.size();
      if (written <= sizes[i]) file.write(bytes);
    });
    if (written != sizes[i])
      throw Error(std::to_string(written) + " bytes for " + std::string(name(entries[i].type)) + " " +
                      shape_text(entries[i].shape),
                  printable(entries[i].name, 200) + " in " + where);
  }
  file.commit();
}

SafetensorsEntry make_entry(std::string name, std::vector<std::int64_t> shape, StorageType type,
                            std::span<const std::byte> bytes) {
  return {std::move(name), std::move(shape), type, [bytes](const auto& sink) { sink(bytes); }};
}
SafetensorsEntry make_entry(std::string name, std::vector<std::int64_t> shape,
                            std::span<const float> values) {
  return make_entry(std::move(name), std::move(shape), StorageType::f32, std::as_bytes(values));
}
SafetensorsEntry make_entry(std::string name, std::vector<std::int64_t> shape,
                            std::span<const std::int64_t> values) {
  return make_entry(std::move(name), std::move(shape), StorageType::i64, std::as_bytes(values));
}

}  // namespace ttt::inline v2
