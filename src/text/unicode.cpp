#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <vector>

#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

bool in(Category c, Category first, Category last) { return c >= first && c <= last; }

std::uint8_t classes_of(char32_t c, Category k) {
  std::uint8_t bits = 0;
  if (k == Category::Lu || k == Category::Lt) bits = class_upper;
  if (k == Category::Ll) bits = class_lower;
  if (k == Category::Lm || k == Category::Lo) bits = class_other_letter;
  if (in(k, Category::Mn, Category::Me)) bits = class_mark;
  if (in(k, Category::Nd, Category::No)) bits = class_number;
  if (in(k, Category::Pc, Category::Po)) bits = class_punctuation;
  if (in(k, Category::Sm, Category::So)) bits = class_symbol;
  if (in(k, Category::Zs, Category::Zp) || (c >= 9 && c <= 13) || c == 0x85) bits |= class_space;
  return bits;
}

}  // namespace

CharTable::CharTable() {
  std::vector<Entry> entries;
  std::map<std::vector<std::uint16_t>, std::uint16_t> known;
  std::size_t run = 0;
  for (std::uint32_t block = 0; block < 0x1100; ++block) {
    std::array<Entry, 256> row;
    std::vector<std::uint16_t> key(256);
    const std::uint32_t first = block << 8, last = first + 255;
    // Most blocks beyond the first planes lie within one run.
    while (run + 1 < category_run_count && category_runs[run + 1] >> 8 <= first) ++run;
    std::size_t r = run;
    for (std::uint32_t c = first; c <= last; ++c) {
      while (r + 1 < category_run_count && category_runs[r + 1] >> 8 <= c) ++r;
      const auto k = static_cast<Category>(category_runs[r] & 0xFF);
      row[c - first] = {classes_of(c, k), k};
      key[c - first] = static_cast<std::uint16_t>(row[c - first].classes << 8 | static_cast<int>(k));
    }
    const auto [it, is_new] = known.try_emplace(key, static_cast<std::uint16_t>(known.size()));
    if (is_new) entries.insert(entries.end(), row.begin(), row.end());
    blocks_[block] = it->second;
  }
  entries_ = new Entry[entries.size()];
  std::memcpy(entries_, entries.data(), entries.size() * sizeof(Entry));
}

const CharTable& CharTable::instance() {
  static const CharTable table;
  return table;
}

bool is_word(char32_t c) {
  const Category k = category(c);
  return (k >= Category::Lu && k <= Category::Nl) || k == Category::Pc || c == 0x200C || c == 0x200D ||
         (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);
}

static bool is_in(const CodePointRun* runs, std::size_t count, char32_t c) {
  const CodePointRun* run =
      std::partition_point(runs, runs + count, [&](const CodePointRun& r) { return r.last < c; });
  return run != runs + count && run->first <= c;
}

bool is_punctuation(char32_t c) { return is_in(punctuation_runs, punctuation_run_count, c); }
bool is_accent(char32_t c) { return is_in(accent_runs, accent_run_count, c); }
bool is_bert_control(char32_t c) { return is_in(bert_control_runs, bert_control_run_count, c); }
bool is_bert_accent(char32_t c) { return is_in(bert_accent_runs, bert_accent_run_count, c); }

bool is_han(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void append_lower(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    return;
  }
  if (c == 0x130) {  // the only character whose lower case has two
    out += "i\xCC\x87";
    return;
  }
  std::size_t low = 0, high = lower_run_count;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (lower_runs[middle].last < c) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low < lower_run_count) {
    const LowerRun& run = lower_runs[low];
    if (run.first <= c && (c - run.first) % run.stride == 0) {
      utf8::append(out, static_cast<char32_t>(static_cast<std::int64_t>(c) + run.delta));
      return;
    }
  }
  utf8::append(out, c);
}

namespace {

bool composes(NormalForm form) { return form == NormalForm::nfc || form == NormalForm::nfkc; }

// Decomposes, orders the marks and composes. utf8proc_map() would do all of it, but orders by exchanging
// neighbours, which takes quadratic time on a long run of marks.
void append_mapped(std::string& out, std::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_char(text, i));
    constexpr utf8proc_ssize_t longest = 32;  // the longest decomposition has 18 characters
    utf8proc_int32_t parts[longest];
    int boundary_class = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, longest, decompose, &boundary_class);
    if (n < 0 || n > longest) {
      points.push_back(c);
    } else {
      points.insert(points.end(), parts, parts + n);
    }
  }
  const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (std::size_t i = 0; i < points.size();) {
    std::size_t end = i;
    while (end < points.size() && order(points[end]) > 0) ++end;
    if (end - i > 1) {
      std::stable_sort(points.begin() + static_cast<std::ptrdiff_t>(i),
                       points.begin() + static_cast<std::ptrdiff_t>(end),
                       [&](utf8proc_int32_t a, utf8proc_int32_t b) { return order(a) < order(b); });
    }
    i = end + 1;
  }
  auto size = static_cast<utf8proc_ssize_t>(points.size());
  if (composes(form)) {
    size = utf8proc_normalize_utf32(points.data(), size,
                                    static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  for (utf8proc_ssize_t i = 0; i < size; ++i)
    utf8::append(out, static_cast<char32_t>(points[static_cast<std::size_t>(i)]));
}

// Bit f set: normal form f leaves the character alone and never joins it with what stands before it.
const std::vector<std::uint8_t>& stable_bits() {
  static const std::vector<std::uint8_t> table = [] {
    std::vector<std::uint8_t> bits(0x110000, 15);
    std::string one, mapped;
    for (std::uint32_t c = 0x80; c < 0x110000; ++c) {
      const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
      const Category k = category(c);
      const bool mark = in(k, Category::Mn, Category::Me) || property->combining_class != 0;
      const bool jamo = c >= 0x1100 && c < 0x1200;
      const bool syllable = c >= 0xAC00 && c < 0xD7A4;
      if (k == Category::Cs || mark || jamo) {
        bits[c] = 0;
      } else if (syllable) {
        bits[c] = 1 << static_cast<int>(NormalForm::nfc) | 1 << static_cast<int>(NormalForm::nfkc);
      } else if (property->decomp_seqindex != UINT16_MAX) {
        bits[c] = 0;
        one.clear();
        utf8::append(one, c);
        for (const NormalForm form : {NormalForm::nfc, NormalForm::nfd, NormalForm::nfkc, NormalForm::nfkd}) {
          mapped.clear();
          append_mapped(mapped, one, form);
          if (mapped == one) bits[c] |= static_cast<std::uint8_t>(1 << static_cast<int>(form));
        }
      }
    }
    return bits;
  }();
  return table;
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  const std::vector<std::uint8_t>& table = stable_bits();
  const auto bit = static_cast<std::uint8_t>(1 << static_cast<int>(form));
  std::string out;
  out.reserve(text.size());
  std::size_t last_stable = 0;  // begin of the last stable character
  std::size_t copied = 0;       // text before it is in `out`
  for (std::size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      last_stable = i++;
      continue;
    }
    std::size_t next = i;
    if (table[next_char(text, next)] & bit) {
      last_stable = i;
      i = next;
      continue;
    }
    std::size_t end = next;
    while (end < text.size()) {
      std::size_t after = end;
      if (table[next_char(text, after)] & bit) break;
      end = after;
    }
    const std::size_t begin = last_stable < copied ? copied : last_stable;
    out += text.substr(copied, begin - copied);
    append_mapped(out, text.substr(begin, end - begin), form);
    copied = last_stable = i = end;
  }
  out += text.substr(copied);
  return out;
}

namespace {

struct ByteLevelMaps {
  std::array<char32_t, 256> chars{};
  std::array<std::int16_t, 0x144> bytes{};
  std::array<std::string, 256> utf8{};
  ByteLevelMaps() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      chars[static_cast<std::size_t>(b)] = printable ? static_cast<char32_t>(b) : next++;
      bytes[chars[static_cast<std::size_t>(b)]] = static_cast<std::int16_t>(b);
      utf8::append(utf8[static_cast<std::size_t>(b)], chars[static_cast<std::size_t>(b)]);
    }
  }
};

const ByteLevelMaps& byte_level_maps() {
  static const ByteLevelMaps maps;
  return maps;
}

}  // namespace

char32_t byte_to_char(unsigned char byte) { return byte_level_maps().chars[byte]; }

int char_to_byte(char32_t c) { return c < 0x144 ? byte_level_maps().bytes[c] : -1; }

void append_byte_level(std::string& out, std::string_view bytes) {
  const ByteLevelMaps& maps = byte_level_maps();
  for (const char byte : bytes) out += maps.utf8[static_cast<unsigned char>(byte)];
}

bool decode_byte_level(std::string_view text, std::string& bytes) {
  const ByteLevelMaps& maps = byte_level_maps();
  for (std::size_t i = 0; i < text.size();) {
    const char32_t c = next_char(text, i);
    const int byte = c < 0x144 ? maps.bytes[c] : -1;
    if (byte < 0) return false;
    bytes += static_cast<char>(byte);
  }
  return true;
}

}  // namespace ttt::inline v2::text
