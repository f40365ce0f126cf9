// What the fuzzers share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ttt/base/error.h"

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}
inline std::span<const std::byte> as_bytes(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

// Runs the reader; an Error is an answer, anything else is a find.
template <class Reader>
int expect_error_or_success(Reader&& reader) {
  try {
    reader();
  } catch (const ttt::Error&) {}
  return 0;
}
