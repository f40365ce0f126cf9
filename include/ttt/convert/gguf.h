// The GGUF container, versions 2 and 3, little endian: typed metadata and tensors, in one file or split over
// several.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ttt/convert/mapped_file.h"
#include "ttt/convert/storage_type.h"
#include "ttt/text/vocabulary.h"

namespace ttt::inline v2 {

// A metadata value. Integers of every width are int64 (uint64 above its range), both float widths are double.
using GgufArray =
    std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string>>;
using GgufValue = std::variant<std::int64_t, std::uint64_t, double, bool, std::string, GgufArray>;

struct GgufTensor {
  std::string name{};
  std::vector<std::int64_t> shape{};  // outermost first: the reverse of the file's order
  StorageType type = StorageType::f32;
  std::uint32_t file = 0;               // index into files()
  std::uint64_t offset = 0, bytes = 0;  // from the beginning of that file
};

// Immutable; copies share the mapping.
class GgufFile {
 public:
  // Any part of a split file opens all of them. Errors name the file and the key or tensor: not GGUF, big
  // endian, an unknown version or type, counts and offsets beyond the file, overlapping tensors, a missing
  // part.
  static GgufFile open(const std::filesystem::path&);
  // One unsplit file in memory; the bytes must outlive the result.
  static GgufFile from_bytes(std::span<const std::byte> bytes, std::string source);

  const std::vector<std::filesystem::path>& files() const;
  const std::vector<GgufTensor>& tensors() const;  // in the files' order
  const GgufTensor* find(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor&) const;
  const std::shared_ptr<const MappedFile>& file(std::uint32_t index) const;
  std::uint64_t header_hash() const;

  const std::map<std::string, GgufValue, std::less<>>& metadata() const;
  const GgufValue* find_value(std::string_view key) const;
  // Error when the value is there with another type. Unset: absent.
  std::optional<std::int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::string architecture() const;  // general.architecture; Error when absent

  // The tokenizer.ggml.* keys. Error when there are none.
  Vocabulary vocabulary() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace ttt::inline v2
