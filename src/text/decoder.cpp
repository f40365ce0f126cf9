#include "text/decoder.h"

#include "text/unicode.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

class DecodeStream::Step {
 public:
  Step() = default;
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  virtual ~Step() = default;
  virtual void push(std::string token) = 0;
  // What was held back; then passes the end on. Ready for a new text afterwards.
  virtual void finish() { next->finish(); }
  Step* next = nullptr;
};

namespace {

using Step = DecodeStream::Step;

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (std::size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// The last step: collects the text, never a part of a character.
class Output final : public Step {
 public:
  void push(std::string token) override {
    pending_ += token;
    std::size_t done = 0;
    while (done < pending_.size()) {
      const std::string_view rest = std::string_view(pending_).substr(done);
      const std::size_t n = utf8::valid_length(rest);
      if (n > 0) {
        text += rest.substr(0, n);
        done += n;
      } else if (utf8::missing_bytes(rest) > 0) {
        break;
      } else {
        // One U+FFFD for the longest part that a valid sequence could begin with.
        std::size_t bad = 1;
        while (bad + 1 < rest.size() && utf8::missing_bytes(rest.substr(0, bad + 1)) > 0) ++bad;
        text += replacement_character;
        done += bad;
      }
    }
    pending_.erase(0, done);
  }
  void finish() override {
    if (!pending_.empty()) text += replacement_character;
    pending_.clear();
  }
  std::string text;

 private:
  std::string pending_;
};

// For decoders that must see a fused text whole.
class Collect final : public Step {
 public:
  void push(std::string token) override { all_ += token; }
  void finish() override {
    if (!all_.empty()) next->push(utf8::repair(all_));
    all_.clear();
    next->finish();
  }

 private:
  std::string all_;
};

class Join final : public Step {
 public:
  void push(std::string token) override {
    if (!first_) token.insert(0, 1, ' ');
    first_ = false;
    next->push(std::move(token));
  }
  void finish() override {
    first_ = true;
    next->finish();
  }

 private:
  bool first_ = true;
};

class ByteLevelStep final : public Step {
 public:
  void push(std::string token) override {
    std::string bytes;
    next->push(decode_byte_level(token, bytes) ? std::move(bytes) : std::move(token));
  }
};

class Pass final : public Step {
 public:
  void push(std::string token) override { next->push(std::move(token)); }
};

class MetaspaceStep final : public Step {
 public:
  explicit MetaspaceStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    replace_all(token, rule_.text, first_ && rule_.flag ? "" : " ");
    first_ = false;
    next->push(std::move(token));
  }
  void finish() override {
    first_ = true;
    next->finish();
  }

 private:
  const DecoderRule& rule_;
  bool first_ = true;
};

class ReplaceStep final : public Step {
 public:
  explicit ReplaceStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    std::vector<Span> matches;
    rule_.pattern.find_all(token, matches);
    if (!matches.empty()) {
      std::string out;
      std::size_t at = 0;
      for (const Span& match : matches) {
        out.append(token, at, match.begin - at);
        out += rule_.text;
        at = match.end;
      }
      out.append(token, at);
      token = std::move(out);
    }
    next->push(std::move(token));
  }

 private:
  const DecoderRule& rule_;
};

// The byte of "<0xNN>", or -1.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

class ByteFallbackStep final : public Step {
 public:
  void push(std::string token) override {
    const int byte = byte_of(token);
    if (byte >= 0) {
      bytes_ += static_cast<char>(byte);
      return;
    }
    flush();
    next->push(std::move(token));
  }
  void finish() override {
    flush();
    next->finish();
  }

 private:
  // A run of bytes is text only as a whole, so nothing of it is certain before it ends.
  void flush() {
    if (bytes_.empty()) return;
    bool valid = true;
    for (std::size_t i = 0; valid && i < bytes_.size();) {
      const std::size_t n = utf8::valid_length(std::string_view(bytes_).substr(i));
      valid = n > 0;
      i += n;
    }
    if (valid) {
      next->push(std::move(bytes_));
    } else {
      for (std::size_t i = 0; i < bytes_.size(); ++i) next->push(std::string(replacement_character));
    }
    bytes_.clear();
  }
  std::string bytes_;
};

class StripStep final : public Step {
 public:
  explicit StripStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    const std::string& c = rule_.text;
    std::size_t begin = 0, end = token.size();
    for (std::size_t n = 0; n < rule_.start && std::string_view(token).substr(begin).starts_with(c); ++n)
      begin += c.size();
    for (std::size_t n = 0; n < rule_.stop && end >= begin + c.size() &&
                            std::string_view(token).substr(begin, end - begin).ends_with(c);
         ++n)
      end -= c.size();
    next->push(token.substr(begin, end - begin));
  }

 private:
  const DecoderRule& rule_;
};

// Strip behind Fuse: the begin and the end of the whole text.
class FusedStripStep final : public Step {
 public:
  explicit FusedStripStep(const DecoderRule& rule) : rule_(rule), left_(rule.start) {}
  void push(std::string token) override {
    const std::string& c = rule_.text;
    std::string_view rest = token;
    while (left_ > 0 && rest.starts_with(c)) {
      rest.remove_prefix(c.size());
      --left_;
    }
    if (rest.empty()) return;
    left_ = 0;
    std::string all = held_ + std::string(rest);
    std::size_t end = all.size();
    for (std::size_t n = 0; n < rule_.stop && std::string_view(all).substr(0, end).ends_with(c); ++n)
      end -= c.size();
    held_ = all.substr(end);
    all.resize(end);
    next->push(std::move(all));
  }
  void finish() override {
    held_.clear();
    left_ = rule_.start;
    next->finish();
  }

 private:
  const DecoderRule& rule_;
  std::size_t left_;
  std::string held_;
};

void clean_up(std::string& text) {
  static constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : rules) replace_all(text, from, to);
}

class WordPieceStep final : public Step {
 public:
  explicit WordPieceStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    if (!first_) {
      if (token.starts_with(rule_.text)) {
        token.erase(0, rule_.text.size());
      } else {
        token.insert(0, 1, ' ');
      }
    }
    first_ = false;
    if (rule_.flag) clean_up(token);
    next->push(std::move(token));
  }
  void finish() override {
    first_ = true;
    next->finish();
  }

 private:
  const DecoderRule& rule_;
  bool first_ = true;
};

class BpeSuffixStep final : public Step {
 public:
  explicit BpeSuffixStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    if (has_held_) {
      replace_all(held_, rule_.text, " ");
      next->push(std::move(held_));
    }
    held_ = std::move(token);
    has_held_ = true;
  }
  void finish() override {
    if (has_held_) {
      replace_all(held_, rule_.text, "");
      next->push(std::move(held_));
    }
    held_.clear();
    has_held_ = false;
    next->finish();
  }

 private:
  const DecoderRule& rule_;
  std::string held_;
  bool has_held_ = false;
};

class CtcStep final : public Step {
 public:
  explicit CtcStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    if (has_last_ && token == last_) return;
    last_ = token;
    has_last_ = true;
    replace_all(token, rule_.text, "");
    if (rule_.flag) {
      clean_up(token);
      replace_all(token, rule_.text2, " ");
    }
    if (!token.empty()) next->push(std::move(token));
  }
  void finish() override {
    has_last_ = false;
    next->finish();
  }

 private:
  const DecoderRule& rule_;
  std::string last_;
  bool has_last_ = false;
};

class SentencePieceStep final : public Step {
 public:
  explicit SentencePieceStep(const DecoderRule& rule) : rule_(rule) {}
  void push(std::string token) override {
    const int byte = byte_of(token);
    if (byte >= 0) {
      bytes_ += static_cast<char>(byte);
      emit_bytes(false);
      return;
    }
    emit_bytes(true);
    if (!rule_.text.empty() && token == rule_.text) {  // the unknown token
      put(rule_.text2);
      return;
    }
    if (at_start_ && rule_.flag && token.starts_with(space_)) {
      token.erase(0, space_.size());
      at_start_ = rule_.flag2;
    }
    replace_all(token, space_, " ");
    put(std::move(token));
  }
  void finish() override {
    emit_bytes(true);
    at_start_ = true;
    next->finish();
  }

 private:
  void put(std::string text) {
    if (text.empty()) return;
    at_start_ = false;
    next->push(std::move(text));
  }
  // Whole characters as soon as they are there; at the end of a run each byte of an unfinished one is U+FFFD.
  void emit_bytes(bool all) {
    std::string out;
    std::size_t i = 0;
    while (i < bytes_.size()) {
      const std::string_view rest = std::string_view(bytes_).substr(i);
      const std::size_t n = utf8::valid_length(rest);
      if (n > 0) {
        out += rest.substr(0, n);
        i += n;
      } else if (!all && utf8::missing_bytes(rest) > 0) {
        break;
      } else {
        out += replacement_character;
        ++i;
      }
    }
    bytes_.erase(0, i);
    put(std::move(out));
  }
  static constexpr std::string_view space_ = "\xE2\x96\x81";
  const DecoderRule& rule_;
  std::string bytes_;
  bool at_start_ = true;
};

}  // namespace

DecodeStream::DecodeStream(const std::vector<DecoderRule>& rules) {
  using Kind = DecoderRule::Kind;
  bool fused = false;
  if (rules.empty()) steps_.push_back(std::make_unique<Join>());
  for (const DecoderRule& rule : rules) {
    const bool streams = rule.kind == Kind::fuse || rule.kind == Kind::strip;
    if (fused && !streams) steps_.push_back(std::make_unique<Collect>());
    switch (rule.kind) {
      case Kind::byte_level:
        steps_.push_back(std::make_unique<ByteLevelStep>());
        break;
      case Kind::bytes:
      case Kind::fuse:
        steps_.push_back(std::make_unique<Pass>());
        break;
      case Kind::metaspace:
        steps_.push_back(std::make_unique<MetaspaceStep>(rule));
        break;
      case Kind::replace:
        steps_.push_back(std::make_unique<ReplaceStep>(rule));
        break;
      case Kind::byte_fallback:
        steps_.push_back(std::make_unique<ByteFallbackStep>());
        break;
      case Kind::strip:
        if (fused) {
          steps_.push_back(std::make_unique<FusedStripStep>(rule));
        } else {
          steps_.push_back(std::make_unique<StripStep>(rule));
        }
        break;
      case Kind::word_piece:
        steps_.push_back(std::make_unique<WordPieceStep>(rule));
        break;
      case Kind::bpe_suffix:
        steps_.push_back(std::make_unique<BpeSuffixStep>(rule));
        break;
      case Kind::ctc:
        steps_.push_back(std::make_unique<CtcStep>(rule));
        break;
      case Kind::sentence_piece:
        steps_.push_back(std::make_unique<SentencePieceStep>(rule));
        break;
    }
    if (rule.kind == Kind::fuse || rule.kind == Kind::byte_level || rule.kind == Kind::bytes) fused = true;
  }
  steps_.push_back(std::make_unique<Output>());
  for (std::size_t i = 0; i + 1 < steps_.size(); ++i) steps_[i]->next = steps_[i + 1].get();
}

DecodeStream::~DecodeStream() = default;

void DecodeStream::push(std::string_view spelling, std::string& out) {
  auto& output = static_cast<Output&>(*steps_.back());
  steps_.front()->push(std::string(spelling));
  out += output.text;
  output.text.clear();
}

void DecodeStream::finish(std::string& out) {
  auto& output = static_cast<Output&>(*steps_.back());
  steps_.front()->finish();
  out += output.text;
  output.text.clear();
}

}  // namespace ttt::inline v2::text
