#include "text/pipeline.h"

namespace ttt::inline v2::text {

namespace {

// A pre-tokenizer that only cuts: `cut(piece, pieces)` appends spans relative to the piece.
template <class Cut>
void cut_each(Pieces& pieces, const Cut& cut) {
  std::vector<Span> result;
  result.reserve(pieces.spans.size() * 2);
  const std::string_view text = pieces.text;
  for (const Span& span : pieces.spans) {
    const std::size_t first = result.size();
    cut(text.substr(span.begin, span.end - span.begin), result);
    for (std::size_t i = first; i < result.size(); ++i) {
      result[i].begin += span.begin;
      result[i].end += span.begin;
    }
  }
  pieces.spans = std::move(result);
}

// Splits at the maximal runs (or single characters) for which `is_match` holds.
template <class IsMatch>
void split_where(Pieces& pieces, SplitBehavior behavior, bool single, bool invert, const IsMatch& is_match) {
  std::vector<Span> matches;
  cut_each(pieces, [&](std::string_view piece, std::vector<Span>& out) {
    matches.clear();
    for (std::size_t i = 0; i < piece.size();) {
      const std::size_t begin = i;
      if (!is_match(next_char(piece, i))) continue;
      if (!single && !matches.empty() && matches.back().end == begin) {
        matches.back().end = i;
      } else {
        matches.push_back({begin, i});
      }
    }
    split(piece.size(), matches, behavior, invert, out);
  });
}

class Split final : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(Pieces& pieces, bool) const override {
    std::vector<Span> matches;
    cut_each(pieces, [&](std::string_view piece, std::vector<Span>& out) {
      matches.clear();
      pattern_.find_all(piece, matches);
      split(piece.size(), matches, behavior_, invert_, out);
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

const Pattern& gpt2_pattern() {
  static const Pattern pattern =
      Pattern::compile(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                       Pattern::Syntax::oniguruma, "");
  return pattern;
}

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, bool alphabet)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), alphabet_(alphabet) {}
  void apply(Pieces& pieces, bool) const override {
    if (add_prefix_space_) {
      Pieces prefixed;
      for (const Span& span : pieces.spans) {
        const std::string_view piece =
            std::string_view(pieces.text).substr(span.begin, span.end - span.begin);
        const std::size_t begin = prefixed.text.size();
        if (!piece.starts_with(' ')) prefixed.text += ' ';
        prefixed.text += piece;
        prefixed.spans.push_back({begin, prefixed.text.size()});
      }
      pieces = std::move(prefixed);
    }
    if (use_regex_) {
      std::vector<Span> matches;
      cut_each(pieces, [&](std::string_view piece, std::vector<Span>& out) {
        matches.clear();
        gpt2_pattern().find_all(piece, matches);
        split(piece.size(), matches, SplitBehavior::isolated, false, out);
      });
    }
    if (alphabet_) {
      Pieces mapped;
      for (const Span& span : pieces.spans) {
        const std::size_t begin = mapped.text.size();
        append_byte_level(mapped.text,
                          std::string_view(pieces.text).substr(span.begin, span.end - span.begin));
        mapped.spans.push_back({begin, mapped.text.size()});
      }
      pieces = std::move(mapped);
    }
  }

 private:
  bool add_prefix_space_, use_regex_, alphabet_;
};

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  void apply(Pieces& pieces, bool first) const override {
    Pieces out;
    for (std::size_t k = 0; k < pieces.spans.size(); ++k) {
      const Span& span = pieces.spans[k];
      const std::string_view piece = std::string_view(pieces.text).substr(span.begin, span.end - span.begin);
      std::size_t begin = out.text.size();
      const bool has_prefix = piece.starts_with(' ') || piece.starts_with(replacement_);
      const bool prepend = scheme_ == PrependScheme::always ||
                           (scheme_ == PrependScheme::first && first && k == 0 && span.begin == 0);
      if (prepend && !has_prefix) out.text += replacement_;
      for (const char byte : piece) {
        if (byte == ' ') {
          out.text += replacement_;
        } else {
          out.text += byte;
        }
      }
      if (split_) {
        // A word begins with each replacement character.
        const std::size_t size = replacement_.size();
        for (std::size_t at = out.text.find(replacement_, begin); at != out.text.npos;
             at = out.text.find(replacement_, at + size)) {
          // Merged with what follows: of several in a row all but the last stand alone.
          if (at > begin) {
            out.spans.push_back({begin, at});
            begin = at;
          }
        }
      }
      if (out.text.size() > begin) out.spans.push_back({begin, out.text.size()});
    }
    pieces = std::move(out);
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class Digits final : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}
  void apply(Pieces& pieces, bool) const override {
    split_where(pieces, individual_ ? SplitBehavior::isolated : SplitBehavior::contiguous, true, false,
                is_numeric);
  }

 private:
  bool individual_;
};

// \w+|[^\w\s]+
class Whitespace final : public PreTokenizer {
 public:
  void apply(Pieces& pieces, bool) const override {
    cut_each(pieces, [](std::string_view piece, std::vector<Span>& out) {
      const auto kind = [](char32_t c) { return is_word(c) ? 1 : is_whitespace(c) ? 0 : 2; };
      int previous = 0;
      for (std::size_t i = 0; i < piece.size();) {
        const std::size_t begin = i;
        const int now = kind(next_char(piece, i));
        if (now != 0) {
          if (now == previous) {
            out.back().end = i;
          } else {
            out.push_back({begin, i});
          }
        }
        previous = now;
      }
    });
  }
};

class WhitespaceSplit final : public PreTokenizer {
 public:
  void apply(Pieces& pieces, bool) const override {
    split_where(pieces, SplitBehavior::removed, true, false, is_whitespace);
  }
};

class Punctuation final : public PreTokenizer {
 public:
  explicit Punctuation(SplitBehavior behavior) : behavior_(behavior) {}
  void apply(Pieces& pieces, bool) const override {
    split_where(pieces, behavior_, true, false, is_punctuation);
  }

 private:
  SplitBehavior behavior_;
};

class BertPreTokenizer final : public PreTokenizer {
 public:
  void apply(Pieces& pieces, bool) const override {
    split_where(pieces, SplitBehavior::removed, true, false, is_whitespace);
    split_where(pieces, SplitBehavior::isolated, true, false, is_punctuation);
  }
};

class CharDelimiter final : public PreTokenizer {
 public:
  explicit CharDelimiter(char32_t delimiter) : delimiter_(delimiter) {}
  void apply(Pieces& pieces, bool) const override {
    split_where(pieces, SplitBehavior::removed, true, false, [this](char32_t c) { return c == delimiter_; });
  }

 private:
  char32_t delimiter_;
};

class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(std::size_t characters) : characters_(characters) {}
  void apply(Pieces& pieces, bool) const override {
    cut_each(pieces, [this](std::string_view piece, std::vector<Span>& out) {
      for (std::size_t i = 0; i < piece.size();) {
        const std::size_t begin = i;
        for (std::size_t n = 0; n < characters_ && i < piece.size(); ++n) next_char(piece, i);
        out.push_back({begin, i});
      }
    });
  }

 private:
  std::size_t characters_;
};

}  // namespace

PreTokenizerPtr make_split(Pattern pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<Split>(std::move(pattern), behavior, invert);
}
PreTokenizerPtr make_byte_level(bool add_prefix_space, bool use_regex, bool alphabet) {
  return std::make_unique<ByteLevel>(add_prefix_space, use_regex, alphabet);
}
PreTokenizerPtr make_metaspace(std::string replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}
PreTokenizerPtr make_digits(bool individual) { return std::make_unique<Digits>(individual); }
PreTokenizerPtr make_whitespace() { return std::make_unique<Whitespace>(); }
PreTokenizerPtr make_whitespace_split() { return std::make_unique<WhitespaceSplit>(); }
PreTokenizerPtr make_punctuation(SplitBehavior behavior) { return std::make_unique<Punctuation>(behavior); }
PreTokenizerPtr make_bert_pre_tokenizer() { return std::make_unique<BertPreTokenizer>(); }
PreTokenizerPtr make_char_delimiter(char32_t delimiter) { return std::make_unique<CharDelimiter>(delimiter); }
PreTokenizerPtr make_fixed_length(std::size_t characters) {
  return std::make_unique<FixedLength>(characters);
}

}  // namespace ttt::inline v2::text
