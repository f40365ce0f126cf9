#include "grammar.h"

#include "api.h"

#if TTT_XGRAMMAR
#include <xgrammar/xgrammar.h>

#include <cstddef>
#include <limits>
#include <mutex>
#include <optional>

#include "ttt/base/error.h"
#endif

namespace ttt_serve {

#if TTT_XGRAMMAR

namespace {

constexpr std::int64_t cache_bytes = std::int64_t{256} << 20;

// Every id of the vocabulary as the bytes it adds; ids that say nothing stay empty, which no grammar takes.
xgrammar::TokenizerInfo describe(const ttt::Tokenizer& tokenizer, std::int64_t vocab,
                                 const std::vector<std::int32_t>& ends) {
  std::vector<std::string> bytes(static_cast<std::size_t>(vocab));
  for (std::size_t id = 0; id < bytes.size(); ++id) {
    const auto token = static_cast<std::int32_t>(id);
    if (!tokenizer.is_special(token)) bytes[id] = std::string(tokenizer.token_bytes(token));
  }
  return {bytes, xgrammar::VocabType::RAW, static_cast<int>(vocab), ends};
}

// The state of one answer.
class Mask {
 public:
  Mask(const xgrammar::CompiledGrammar& grammar, std::int64_t vocab)
      : matcher_(grammar),
        words_(static_cast<std::size_t>(xgrammar::GetBitmaskSize(static_cast<int>(vocab)))) {}

  void apply(std::span<const std::int32_t> output, std::span<float> logits) {
    for (; taken_ < output.size(); ++taken_) {
      if (!matcher_.IsTerminated() && !matcher_.AcceptToken(output[taken_]))
        throw ttt::Error("a token that the grammar does not allow", "response_format");
    }
    if (matcher_.IsTerminated()) return;
    auto extent = static_cast<std::int64_t>(words_.size());
    DLTensor mask{};
    mask.data = words_.data();
    mask.device = {kDLCPU, 0};
    mask.ndim = 1;
    mask.dtype = xgrammar::GetBitmaskDLType();
    mask.shape = &extent;
    if (!matcher_.FillNextTokenBitmask(&mask)) return;  // everything is allowed
    for (std::size_t id = 0; id < logits.size(); ++id) {
      const bool allowed =
          id / 32 < words_.size() && (static_cast<std::uint32_t>(words_[id / 32]) >> (id % 32) & 1u) != 0;
      if (!allowed) logits[id] = -std::numeric_limits<float>::infinity();
    }
  }

 private:
  xgrammar::GrammarMatcher matcher_;
  std::vector<std::int32_t> words_;
  std::size_t taken_ = 0;  // tokens of the output that the matcher has seen
};

}  // namespace

struct Grammars::Impl {
  ttt::Tokenizer tokenizer;
  std::int64_t vocab;
  std::vector<std::int32_t> ends;
  std::mutex mutex;
  std::optional<xgrammar::GrammarCompiler> compiler;  // made on first use: it sorts the vocabulary

  xgrammar::CompiledGrammar compile(const std::string& schema) {
    const std::lock_guard lock(mutex);
    if (!compiler) compiler.emplace(describe(tokenizer, vocab, ends), 1, true, cache_bytes);
    return schema.empty() ? compiler->CompileJSONSchema(R"({"type": "object"})", false)
                          : compiler->CompileJSONSchema(schema, false);
  }
};

bool Grammars::available() { return true; }

Grammars::Grammars(const ttt::Tokenizer& tokenizer, std::int64_t vocab, std::vector<std::int32_t> end_ids)
    : impl_(new Impl{
          .tokenizer = tokenizer, .vocab = vocab, .ends = std::move(end_ids), .mutex = {}, .compiler = {}}) {}

LogitsProcessor Grammars::json(const std::string& schema) {
  try {
    auto mask = std::make_shared<Mask>(impl_->compile(schema), impl_->vocab);
    return [mask](std::span<const std::int32_t> output, std::span<float> logits) {
      mask->apply(output, logits);
    };
  } catch (const std::exception& error) {
    throw ApiError(400, std::string("the schema can not be used: ") + error.what(), "response_format",
                   "invalid_schema");
  }
}

#else

struct Grammars::Impl {};

bool Grammars::available() { return false; }

Grammars::Grammars(const ttt::Tokenizer&, std::int64_t, std::vector<std::int32_t>) {}

LogitsProcessor Grammars::json(const std::string&) {
  throw ApiError(400,
                 "answers in JSON are not supported by this server: it was built without xgrammar "
                 "(scripts/install_xgrammar; the vLLM plugin has it)",
                 "response_format", "unsupported_value");
}

#endif

Grammars::~Grammars() = default;

}  // namespace ttt_serve
