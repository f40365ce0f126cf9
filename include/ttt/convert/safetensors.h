// The safetensors format: reading one file, and writing one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/mapped_file.h"
#include "ttt/convert/storage_type.h"

namespace ttt::inline v2 {

struct SafetensorsTensor {
  std::string name{};
  std::vector<std::int64_t> shape{};
  StorageType type = StorageType::f32;
  std::uint64_t offset = 0, bytes = 0;  // from the beginning of the file
};

// Immutable; copies share the mapping.
class SafetensorsFile {
 public:
  // Errors name the file and the tensor: a header that is not JSON, larger than 100 MB or than the file; an
  // unknown dtype; shapes and offsets that contradict each other, overlap, leave holes or pass the end; a
  // name twice.
  static SafetensorsFile open(const std::filesystem::path&);
  // The same for bytes in memory, which must outlive the result.
  static SafetensorsFile from_bytes(std::span<const std::byte> bytes, std::string source);

  const std::vector<SafetensorsTensor>& tensors() const;  // by offset
  const SafetensorsTensor* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const;  // __metadata__
  std::span<const std::byte> bytes(const SafetensorsTensor&) const;
  std::uint64_t header_hash() const;
  const std::shared_ptr<const MappedFile>& file() const;  // null for from_bytes

  // All values, converted. Errors: no such tensor; a value that does not fit.
  std::vector<float> floats(std::string_view name) const;
  std::vector<std::int64_t> integers(std::string_view name) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// A tensor to be written. `write` is called once, in order, and hands its bytes (little endian, `bytes` in
// all) to the sink piece by piece.
struct SafetensorsEntry {
  std::string name{};
  std::vector<std::int64_t> shape{};
  StorageType type = StorageType::f32;  // a plain type
  std::function<void(const std::function<void(std::span<const std::byte>)>& sink)> write{};
};

// Writes beside `path` and renames, so that readers see a whole file or none. Streams: memory does not grow
// with the tensors. Errors: the disk is full, the folder can not be written, an entry's bytes do not match
// its shape, a name twice.
void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata = {});
// An entry of values in memory. The span must outlive the call of write_safetensors.
SafetensorsEntry make_entry(std::string name, std::vector<std::int64_t> shape, std::span<const float> values);
SafetensorsEntry make_entry(std::string name, std::vector<std::int64_t> shape,
                            std::span<const std::int64_t> values);
SafetensorsEntry make_entry(std::string name, std::vector<std::int64_t> shape, StorageType type,
                            std::span<const std::byte> bytes);

}  // namespace ttt::inline v2
