// From tokens back to text, one token at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.h"
#include "text/pipeline.h"

namespace ttt::inline v2::text {

// What one decoder of a tokenizer does; plain data, shared by all streams.
struct DecoderRule {
  enum class Kind {
    byte_level,      // the byte-level alphabet back to bytes
    bytes,           // tokens are bytes already
    metaspace,       // `text`: replacement character; `flag`: the first token loses its spaces
    replace,         // `pattern` by `text`
    byte_fallback,   // runs of "<0xNN>" to text
    fuse,            // all tokens become one
    strip,           // `text`: character; `start`, `stop`: how many at most
    word_piece,      // `text`: prefix of continuing tokens; `flag`: clean up
    bpe_suffix,      // `text`: suffix of a word's last token
    ctc,             // `text`: padding, `text2`: word delimiter; `flag`: clean up
    sentence_piece,  // U+2581 to space, bytes, no space before the first word (`flag`) or several (`flag2`);
                     // `text`: the unknown token, `text2`: what stands for it
  };
  Kind kind = Kind::fuse;
  std::string text, text2;
  Pattern pattern;
  std::size_t start = 0, stop = 0;
  bool flag = false, flag2 = false;
};

// The decoders of a tokenizer in order; without any, tokens are joined by spaces.
class DecodeStream {
 public:
  explicit DecodeStream(const std::vector<DecoderRule>& rules);
  DecodeStream(const DecodeStream&) = delete;
  DecodeStream& operator=(const DecodeStream&) = delete;
  ~DecodeStream();
  // `spelling`: the token in the tokenizer's alphabet. Appends what is certain by now.
  void push(std::string_view spelling, std::string& out);
  void finish(std::string& out);

  class Step;

 private:
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace ttt::inline v2::text
