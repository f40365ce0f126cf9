#include <utf8proc.h>

#include <cstring>

#include "text/model.h"
#include "text/pipeline.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

bool is_ascii(std::string_view text) {
  for (const char byte : text) {
    if (static_cast<unsigned char>(byte) >= 0x80) return false;
  }
  return true;
}

// Rewrites `text` character by character: `rule(c, out)` appends what `c` becomes.
template <class Rule>
void rewrite(std::string& text, const Rule& rule) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) rule(next_char(text, i), out);
  text = std::move(out);
}

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void apply(std::string& text) const override {
    if (!is_ascii(text)) text = normalize(text, form_);
  }

 private:
  NormalForm form_;
};

class Lowercase final : public Normalizer {
 public:
  void apply(std::string& text) const override {
    rewrite(text, [](char32_t c, std::string& out) { append_lower(out, c); });
  }
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text) const override {
    std::size_t begin = 0, end = text.size();
    while (left_ && begin < end) {
      std::size_t next = begin;
      if (!is_whitespace(next_char(text, next))) break;
      begin = next;
    }
    while (right_ && end > begin) {
      std::size_t previous = end;
      if (!is_whitespace(previous_char(text, previous))) break;
      end = previous;
    }
    text = text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

class StripAccents final : public Normalizer {
 public:
  void apply(std::string& text) const override {
    if (is_ascii(text)) return;
    rewrite(text, [](char32_t c, std::string& out) {
      if (!is_accent(c)) utf8::append(out, c);
    });
  }
};

class Replace final : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(std::string& text) const override {
    std::vector<Span> matches;
    pattern_.find_all(text, matches);
    if (matches.empty()) return;
    std::string out;
    std::size_t at = 0;
    for (const Span& match : matches) {
      out.append(text, at, match.begin - at);
      out += content_;
      at = match.end;
    }
    out.append(text, at);
    text = std::move(out);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, text_);
  }

 private:
  std::string text_;
};

class Nmt final : public Normalizer {
 public:
  void apply(std::string& text) const override {
    rewrite(text, [](char32_t c, std::string& out) {
      if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F)
        return;
      const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                         c == 0xFEFF || c == 0xFFFD;
      utf8::append(out, space ? U' ' : c);
    });
  }
};

class ByteLevelAlphabet final : public Normalizer {
 public:
  void apply(std::string& text) const override {
    std::string out;
    append_byte_level(out, text);
    text = std::move(out);
  }
};

class Bert final : public Normalizer {
 public:
  explicit Bert(const BertNormalizerOptions& options) : options_(options) {}
  void apply(std::string& text) const override {
    if (options_.clean_text) {
      rewrite(text, [](char32_t c, std::string& out) {
        if (is_bert_control(c)) return;
        if (is_whitespace(c)) {
          out += ' ';
        } else {
          utf8::append(out, c);
        }
      });
    }
    if (options_.handle_chinese_chars && !is_ascii(text)) {
      rewrite(text, [](char32_t c, std::string& out) {
        const bool han = is_han(c);
        if (han) out += ' ';
        utf8::append(out, c);
        if (han) out += ' ';
      });
    }
    if (options_.strip_accents && !is_ascii(text)) {
      text = normalize(text, NormalForm::nfd);
      rewrite(text, [](char32_t c, std::string& out) {
        if (!is_bert_accent(c)) utf8::append(out, c);
      });
    }
    if (options_.lowercase) rewrite(text, [](char32_t c, std::string& out) { append_lower(out, c); });
  }

 private:
  BertNormalizerOptions options_;
};

// Grapheme by grapheme, short ones first as a whole, as the tokenizers package applies such a map.
class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(CharsMap map) : map_(std::move(map)) {}
  void apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    const auto put = [&](std::string_view part) {
      std::size_t size = 0;
      const std::string_view replacement = map_.shortest(part, size);
      if (size == 0) return false;
      out += replacement;
      return true;
    };
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t begin = i;
      char32_t c = next_char(text, i);
      utf8proc_int32_t state = 0;
      while (i < text.size()) {
        std::size_t next = i;
        const char32_t d = next_char(text, next);
        if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(c),
                                             static_cast<utf8proc_int32_t>(d), &state))
          break;
        c = d;
        i = next;
      }
      const std::string_view grapheme = std::string_view(text).substr(begin, i - begin);
      if (grapheme.size() < 6 && put(grapheme)) continue;
      for (std::size_t k = 0; k < grapheme.size();) {
        const std::size_t first = k;
        next_char(grapheme, k);
        const std::string_view one = grapheme.substr(first, k - first);
        if (!put(one)) out += one;
      }
    }
    text = std::move(out);
  }

 private:
  CharsMap map_;
};

class SentencePieceNormalizer final : public Normalizer {
 public:
  SentencePieceNormalizer(CharsMap map, SentencePieceOptions options)
      : map_(std::move(map)), options_(std::move(options)) {
    std::vector<std::pair<std::string_view, std::int32_t>> entries;
    for (const std::string& symbol : options_.user_defined) entries.emplace_back(symbol, 0);
    user_defined_ = Trie(std::move(entries));
  }

  void apply(std::string& text) const override {
    std::string_view in = text;
    const bool remove = options_.remove_extra_whitespaces;
    std::size_t size = 0;
    while (remove && !in.empty() && prefix(in, size) == " ") in.remove_prefix(size);
    if (in.empty()) {
      text.clear();
      return;
    }
    const std::string_view space = options_.escape_whitespaces ? "\xE2\x96\x81" : " ";
    std::string out;
    out.reserve(in.size() + in.size() / 2 + 3);
    if (options_.add_dummy_prefix && !options_.whitespace_as_suffix) out += space;
    bool after_space = remove;
    while (!in.empty()) {
      std::string_view part = prefix(in, size);
      in.remove_prefix(size);
      while (after_space && part.starts_with(' ')) part.remove_prefix(1);
      if (part.empty()) continue;
      for (const char byte : part) {
        if (byte == ' ') {
          out += space;
        } else {
          out += byte;
        }
      }
      after_space = remove && part.ends_with(' ');
    }
    if (remove) {
      while (out.ends_with(space)) out.resize(out.size() - space.size());
    }
    if (options_.add_dummy_prefix && options_.whitespace_as_suffix) out += space;
    text = std::move(out);
  }

 private:
  // What the begin of `in` becomes; `size`: how much of it.
  std::string_view prefix(std::string_view in, std::size_t& size) const {
    std::int32_t unused = 0;
    if (!user_defined_.empty()) {
      size = user_defined_.longest_prefix(in, unused);
      if (size > 0) return in.substr(0, size);
    }
    if (!map_.empty()) {
      const std::string_view replacement = map_.longest(in, size);
      if (size > 0) return replacement;
    }
    size = std::min(char_length(in[0]), in.size());
    return in.substr(0, size);
  }

  CharsMap map_;
  SentencePieceOptions options_;
  Trie user_defined_;
};

}  // namespace

// --- CharsMap
// --------------------------------------------------------------------------------------------------

CharsMap::CharsMap(std::string blob, const std::string& where) {
  if (blob.empty()) return;
  const auto corrupt = [&](const char* what) {
    return Error(std::string("precompiled character map is corrupt: ") + what, where,
                 "download the file again");
  };
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (unsigned k = 0; k < 4; ++k)
      value |= static_cast<std::uint32_t>(static_cast<unsigned char>(blob[at + k])) << (8 * k);
    return value;
  };
  if (blob.size() < 4) throw corrupt("shorter than its header");
  const std::size_t trie_size = word(0);
  if (trie_size % 4 != 0 || trie_size == 0 || trie_size > blob.size() - 4)
    throw corrupt("wrong size of its trie");
  units_.resize(trie_size / 4);
  for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = word(4 + 4 * i);
  strings_ = blob.substr(4 + trie_size);
  // A replacement is part of the text that follows, so it must be UTF-8.
  for (std::size_t i = 0; i < strings_.size();) {
    const std::size_t n = utf8::valid_length(std::string_view(strings_).substr(i));
    if (n == 0) throw corrupt("a replacement is not UTF-8");
    i += n;
  }
}

std::string_view CharsMap::replacement(std::uint32_t value) const {
  if (value >= strings_.size()) return {};
  // An offset into the middle of a character would cut it.
  if ((static_cast<unsigned char>(strings_[value]) & 0xC0) == 0x80) return {};
  const std::size_t end = std::min(strings_.find('\0', value), strings_.size());
  return std::string_view(strings_).substr(value, end - value);
}

// Calls visit(key size, value) for every key that `text` begins with, shortest first, until it returns false.
template <class Visit>
void CharsMap::walk(std::string_view text, const Visit& visit) const {
  const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  std::size_t node = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto label = static_cast<unsigned char>(text[i]);
    if (label == 0) return;
    node ^= label;
    if (node >= units_.size()) return;
    const std::uint32_t unit = units_[node];
    if ((unit & (0x80000000u | 0xFF)) != label) return;
    node ^= offset(unit);
    if (node >= units_.size()) return;
    if (unit >> 8 & 1) {
      if (!visit(i + 1, units_[node] & 0x7FFFFFFFu)) return;
    }
  }
}

std::string_view CharsMap::longest(std::string_view text, std::size_t& size) const {
  std::uint32_t value = 0;
  size = 0;
  walk(text, [&](std::size_t n, std::uint32_t v) {
    size = n;
    value = v;
    return true;
  });
  // A key that ends inside a character comes from a corrupt map only.
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) size = 0;
  return size > 0 ? replacement(value) : std::string_view();
}

std::string_view CharsMap::shortest(std::string_view text, std::size_t& size) const {
  std::uint32_t value = 0;
  size = 0;
  walk(text, [&](std::size_t n, std::uint32_t v) {
    size = n;
    value = v;
    return false;
  });
  return size > 0 ? replacement(value) : std::string_view();
}

NormalizerPtr make_unicode_form(NormalForm form) { return std::make_unique<UnicodeForm>(form); }
NormalizerPtr make_lowercase() { return std::make_unique<Lowercase>(); }
NormalizerPtr make_strip(bool left, bool right) { return std::make_unique<Strip>(left, right); }
NormalizerPtr make_strip_accents() { return std::make_unique<StripAccents>(); }
NormalizerPtr make_replace(Pattern pattern, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}
NormalizerPtr make_prepend(std::string text) { return std::make_unique<Prepend>(std::move(text)); }
NormalizerPtr make_nmt() { return std::make_unique<Nmt>(); }
NormalizerPtr make_byte_level_alphabet() { return std::make_unique<ByteLevelAlphabet>(); }
NormalizerPtr make_bert(const BertNormalizerOptions& options) { return std::make_unique<Bert>(options); }
NormalizerPtr make_precompiled(CharsMap map) { return std::make_unique<Precompiled>(std::move(map)); }
NormalizerPtr make_sentencepiece(CharsMap map, SentencePieceOptions options) {
  return std::make_unique<SentencePieceNormalizer>(std::move(map), std::move(options));
}

}  // namespace ttt::inline v2::text
