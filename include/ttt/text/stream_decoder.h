// Detokenisation of ids that arrive one by one, as a generation streams.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "ttt/text/tokenizer.h"

namespace ttt::inline v2 {

namespace text {
class DecodeStream;
}

// Emits text as soon as no later id can change it: always whole UTF-8 sequences, and all that was emitted,
// finish() included, equals Tokenizer::decode() of all ids. Not thread-safe; one per sequence.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, const DecodeOptions& options = {});
  // Continues `context` (a prompt): emits what decode(context + ids) has beyond decode(context), so that a
  // leading space that only the first token of a text loses is kept.
  StreamDecoder(Tokenizer tokenizer, std::span<const std::int32_t> context,
                const DecodeOptions& options = {});
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();

  std::string push(std::int32_t id);
  std::string push(std::span<const std::int32_t> ids);
  // What is still held back (an unfinished UTF-8 sequence becomes U+FFFD); afterwards a new sequence may
  // begin.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  DecodeOptions options_;
  std::unique_ptr<text::DecodeStream> stream_;
};

}  // namespace ttt::inline v2
