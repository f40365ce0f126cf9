// A file mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace ttt::inline v2 {

class MappedFile {
 public:
  // Error when the file can not be opened or mapped.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path&);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  std::int64_t modified() const { return modified_; }  // nanoseconds since the epoch
  // Gives the pages of a range back to the system; they are read again when they are used.
  void forget(std::size_t offset, std::size_t count) const;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::filesystem::path path_;
  std::int64_t modified_ = 0;
};

}  // namespace ttt::inline v2
