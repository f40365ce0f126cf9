#include "ttt/base/utf8.h"

namespace ttt::inline v2::utf8 {

namespace {

struct Lead {
  std::size_t length;       // bytes of the whole sequence; 0: not a lead byte
  unsigned char low, high;  // range of the second byte
};

Lead lead(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Bytes at the start of `text` that a valid sequence could begin with.
std::size_t valid_prefix(std::string_view text, std::size_t& length) {
  length = 0;
  if (text.empty()) return 0;
  const Lead first = lead(static_cast<unsigned char>(text[0]));
  length = first.length;
  if (length == 0) return 0;
  std::size_t n = 1;
  for (; n < length && n < text.size(); ++n) {
    const auto byte = static_cast<unsigned char>(text[n]);
    const unsigned char low = n == 1 ? first.low : 0x80, high = n == 1 ? first.high : 0xBF;
    if (byte < low || byte > high) break;
  }
  return n;
}

}  // namespace

std::size_t valid_length(std::string_view text) {
  std::size_t length = 0;
  const std::size_t n = valid_prefix(text, length);
  return n > 0 && n == length ? n : 0;
}

std::size_t missing_bytes(std::string_view text) {
  std::size_t length = 0;
  const std::size_t n = valid_prefix(text, length);
  return n > 0 && n == text.size() && n < length ? length - n : 0;
}

char32_t decode(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t first = at(0);
  if (first < 0x80) return first;
  if (first < 0xE0) return (first & 0x1F) << 6 | (at(1) & 0x3F);
  if (first < 0xF0) return (first & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
  return (first & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
}

void append(std::string& out, char32_t scalar) {
  if (scalar > 0x10FFFF || (scalar >= 0xD800 && scalar < 0xE000)) scalar = 0xFFFD;
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (scalar < 0x80) {
    put(scalar);
  } else if (scalar < 0x800) {
    put(0xC0 | scalar >> 6), put(0x80 | (scalar & 0x3F));
  } else if (scalar < 0x10000) {
    put(0xE0 | scalar >> 12), put(0x80 | (scalar >> 6 & 0x3F)), put(0x80 | (scalar & 0x3F));
  } else {
    put(0xF0 | scalar >> 18), put(0x80 | (scalar >> 12 & 0x3F));
    put(0x80 | (scalar >> 6 & 0x3F)), put(0x80 | (scalar & 0x3F));
  }
}

std::string repair(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    std::size_t length = 0;
    const std::size_t n = valid_prefix(text.substr(i), length);
    if (n > 0 && n == length) {
      out += text.substr(i, n);
      i += n;
    } else {
      append(out, 0xFFFD);
      i += n > 0 ? n : 1;
    }
  }
  return out;
}

}  // namespace ttt::inline v2::utf8
