// Unicode properties, case and normalisation, as the reference packages see them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace ttt::inline v2::text {

// Order of the generated tables; the groups L, M, N, P, S, Z are contiguous.
enum class Category : std::uint8_t {
  Cn,
  Lu,
  Ll,
  Lt,
  Lm,
  Lo,
  Mn,
  Mc,
  Me,
  Nd,
  Nl,
  No,
  Pc,
  Pd,
  Ps,
  Pe,
  Pi,
  Pf,
  Po,
  Sm,
  Sc,
  Sk,
  So,
  Zs,
  Zl,
  Zp,
  Cc,
  Cf,
  Cs,
  Co,
};

struct LowerRun {
  std::uint32_t first, last, stride;
  std::int32_t delta;
};
struct CodePointRun {
  std::uint32_t first, last;
};
extern const std::uint32_t category_runs[];
extern const std::size_t category_run_count;
extern const LowerRun lower_runs[];
extern const std::size_t lower_run_count;
extern const CodePointRun punctuation_runs[], accent_runs[], bert_control_runs[], bert_accent_runs[];
extern const std::size_t punctuation_run_count, accent_run_count, bert_control_run_count,
    bert_accent_run_count;

// Bits of char_class().
enum : std::uint8_t {
  class_upper = 1,         // Lu Lt
  class_lower = 2,         // Ll
  class_other_letter = 4,  // Lm Lo
  class_mark = 8,
  class_number = 16,
  class_space = 32,  // White_Space
  class_punctuation = 64,
  class_symbol = 128,
  class_letter = class_upper | class_lower | class_other_letter,
};

// Two-stage table: a byte of class bits and a category per code point.
class CharTable {
 public:
  static const CharTable& instance();
  std::uint8_t classes(char32_t c) const { return entry(c).classes; }
  Category category(char32_t c) const { return entry(c).category; }

 private:
  struct Entry {
    std::uint8_t classes;
    Category category;
  };
  CharTable();
  const Entry& entry(char32_t c) const {
    return c < 0x110000 ? entries_[(std::size_t{blocks_[c >> 8]} << 8) | (c & 0xFF)] : entries_[0];
  }
  std::uint16_t blocks_[0x1100];
  Entry* entries_;  // lives as long as the program
};

inline Category category(char32_t c) { return CharTable::instance().category(c); }
inline std::uint8_t char_class(char32_t c) { return CharTable::instance().classes(c); }
inline bool is_whitespace(char32_t c) { return char_class(c) & class_space; }
inline bool is_numeric(char32_t c) { return char_class(c) & class_number; }
bool is_word(char32_t c);          // \w: alphabetic, marks, decimal digits, connectors, joiners
bool is_punctuation(char32_t c);   // ASCII symbols included, as BERT does
bool is_accent(char32_t c);        // what StripAccents removes
bool is_bert_control(char32_t c);  // what BERT's rule removes to clean a text
bool is_bert_accent(char32_t c);   // and as accents
bool is_han(char32_t c);           // the CJK blocks that BERT splits off

void append_lower(std::string& out, char32_t c);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
// `text`: valid UTF-8.
std::string normalize(std::string_view text, NormalForm form);

// The scalar value at `text[i]` of valid UTF-8; advances `i`. `i` < text.size().
inline char32_t next_char(std::string_view text, std::size_t& i) {
  const auto byte = [&](std::size_t k) {
    return k < text.size() ? static_cast<char32_t>(static_cast<unsigned char>(text[k]) & 0x3F) : 0;
  };
  const auto first = static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  if (first < 0x80) {
    ++i;
    return first;
  }
  char32_t c = 0;
  if (first < 0xE0) {
    c = (first & 0x1F) << 6 | byte(i + 1);
    i += 2;
  } else if (first < 0xF0) {
    c = (first & 0x0F) << 12 | byte(i + 1) << 6 | byte(i + 2);
    i += 3;
  } else {
    c = (first & 0x07) << 18 | byte(i + 1) << 12 | byte(i + 2) << 6 | byte(i + 3);
    i += 4;
  }
  if (i > text.size()) i = text.size();
  return c;
}

// Bytes of the character of valid UTF-8 that begins with `first`.
inline std::size_t char_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The last character of valid UTF-8 before `end`; moves `end` to its begin. `end` > 0.
inline char32_t previous_char(std::string_view text, std::size_t& end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  std::size_t i = end;
  return next_char(text, i);
}

// The alphabet of byte-level BPE: every byte has a printable character (0x20 is U+0120 "Ġ").
char32_t byte_to_char(unsigned char byte);
int char_to_byte(char32_t c);  // -1 when `c` stands for no byte
void append_byte_level(std::string& out, std::string_view bytes);
// The bytes that `text` spells in that alphabet; false when it has any other character.
bool decode_byte_level(std::string_view text, std::string& bytes);

}  // namespace ttt::inline v2::text
