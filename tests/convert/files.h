// Files for tests: a folder that goes away, and GGUF bytes written value by value.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/base/error.h"

namespace ttt::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ttt-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path write(const std::string& name, std::string_view text) const {
    const std::filesystem::path file = path_ / name;
    std::ofstream(file, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
    return file;
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// The message of the Error that `act` throws; "" when it throws none.
template <class Act>
std::string error_of(Act act) {
  try {
    act();
  } catch (const Error& e) { return e.what(); }
  return "";
}

#define EXPECT_ERROR(statement, part)                                                        \
  EXPECT_NE(::ttt::test::error_of([&] { (void)(statement); }).find(part), std::string::npos) \
      << "message: " << ::ttt::test::error_of([&] { (void)(statement); })

// {"name": ..., header fields} as a safetensors file.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  return out + header + data;
}

class GgufBytes {
 public:
  template <class T>
  GgufBytes& number(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& text(std::string_view s) {
    number<std::uint64_t>(s.size());
    out_ += s;
    return *this;
  }
  GgufBytes& header(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
    out_ += "GGUF";
    return number(version).number(tensors).number(values);
  }
  GgufBytes& string_value(std::string_view key, std::string_view value) {
    return text(key).number<std::uint32_t>(8).text(value);
  }
  GgufBytes& u32_value(std::string_view key, std::uint32_t value) {
    return text(key).number<std::uint32_t>(4).number(value);
  }
  GgufBytes& f32_value(std::string_view key, float value) {
    return text(key).number<std::uint32_t>(6).number(value);
  }
  GgufBytes& bool_value(std::string_view key, bool value) {
    return text(key).number<std::uint32_t>(7).number<std::uint8_t>(value);
  }
  GgufBytes& strings_value(std::string_view key, const std::vector<std::string>& values) {
    text(key).number<std::uint32_t>(9).number<std::uint32_t>(8).number<std::uint64_t>(values.size());
    for (const std::string& value : values) text(value);
    return *this;
  }
  GgufBytes& bools_value(std::string_view key, const std::vector<bool>& values) {
    text(key).number<std::uint32_t>(9).number<std::uint32_t>(7).number<std::uint64_t>(values.size());
    for (bool value : values) number<std::uint8_t>(value);
    return *this;
  }
  GgufBytes& u32s_value(std::string_view key, const std::vector<std::uint32_t>& values) {
    text(key).number<std::uint32_t>(9).number<std::uint32_t>(4).number<std::uint64_t>(values.size());
    for (std::uint32_t value : values) number(value);
    return *this;
  }
  // `extents` in the file's order: innermost first.
  GgufBytes& tensor(std::string_view name, const std::vector<std::uint64_t>& extents, std::uint32_t type,
                    std::uint64_t offset) {
    text(name).number(static_cast<std::uint32_t>(extents.size()));
    for (std::uint64_t extent : extents) number(extent);
    return number(type).number(offset);
  }
  GgufBytes& align(std::size_t alignment = 32) {
    out_.resize((out_.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
  GgufBytes& floats(const std::vector<float>& values) {
    for (float value : values) number(value);
    return *this;
  }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

}  // namespace ttt::test
