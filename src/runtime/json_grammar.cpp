#include "runtime/json_grammar.h"

#include "ttt/base/error.h"

#if TTT_XGRAMMAR
#include <xgrammar/xgrammar.h>

#include <cstddef>
#include <limits>
#include <mutex>
#include <optional>
#endif

namespace ttt::inline v2::runtime {

namespace {
constexpr const char* where = "json_schema";
}

#if TTT_XGRAMMAR

namespace {

constexpr std::int64_t cache_bytes = std::int64_t{256} << 20;

// Every id of the vocabulary as the bytes it adds; ids that say nothing stay empty, which no grammar takes.
xgrammar::TokenizerInfo describe(const Tokenizer& tokenizer, std::int64_t vocab,
                                 const std::vector<std::int32_t>& ends) {
  std::vector<std::string> bytes(static_cast<std::size_t>(vocab));
  for (std::size_t id = 0; id < bytes.size(); ++id) {
    const auto token = static_cast<std::int32_t>(id);
    if (!tokenizer.is_special(token)) bytes[id] = std::string(tokenizer.token_bytes(token));
  }
  return {bytes, xgrammar::VocabType::RAW, static_cast<int>(vocab), ends};
}

}  // namespace

struct JsonMask::State {
  xgrammar::GrammarMatcher matcher;
  std::vector<std::int32_t> words;
  std::size_t taken = 0;  // tokens of the output that the matcher has seen
};

void JsonMask::apply(std::span<const std::int32_t> output, std::span<float> logits) {
  State& s = *state_;
  for (; s.taken < output.size(); ++s.taken) {
    if (!s.matcher.IsTerminated() && !s.matcher.AcceptToken(output[s.taken]))
      throw Error("a token that the grammar does not allow", where, "report this, with the schema");
  }
  if (s.matcher.IsTerminated()) return;
  auto extent = static_cast<std::int64_t>(s.words.size());
  DLTensor mask{};
  mask.data = s.words.data();
  mask.device = {kDLCPU, 0};
  mask.ndim = 1;
  mask.dtype = xgrammar::GetBitmaskDLType();
  mask.shape = &extent;
  if (!s.matcher.FillNextTokenBitmask(&mask)) return;  // everything is allowed
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const bool allowed =
        id / 32 < s.words.size() && (static_cast<std::uint32_t>(s.words[id / 32]) >> (id % 32) & 1u) != 0;
    if (!allowed) logits[id] = -std::numeric_limits<float>::infinity();
  }
}

struct JsonGrammars::Impl {
  Tokenizer tokenizer;
  std::int64_t vocab;
  std::vector<std::int32_t> ends;
  std::mutex mutex;
  std::optional<xgrammar::GrammarCompiler> compiler;  // made on first use: it sorts the vocabulary

  xgrammar::CompiledGrammar compile(const std::string& schema) {
    const std::lock_guard lock(mutex);
    if (!compiler) compiler.emplace(describe(tokenizer, vocab, ends), 1, true, cache_bytes);
    return compiler->CompileJSONSchema(schema, false);
  }
};

bool JsonGrammars::available() { return true; }

JsonGrammars::JsonGrammars(const Tokenizer& tokenizer, std::int64_t vocab, std::vector<std::int32_t> end_ids)
    : impl_(new Impl{
          .tokenizer = tokenizer, .vocab = vocab, .ends = std::move(end_ids), .mutex = {}, .compiler = {}}) {}

JsonMask JsonGrammars::mask(const std::string& schema) {
  JsonMask mask;
  try {
    mask.state_ = std::make_shared<JsonMask::State>(JsonMask::State{
        .matcher = xgrammar::GrammarMatcher(impl_->compile(schema)),
        .words = std::vector<std::int32_t>(
            static_cast<std::size_t>(xgrammar::GetBitmaskSize(static_cast<int>(impl_->vocab)))),
        .taken = 0});
  } catch (const std::exception& error) {
    throw Error(std::string("the schema can not be used: ") + printable(error.what(), 500), where,
                "give a JSON schema of the features that xgrammar knows");
  }
  return mask;
}

#else

struct JsonMask::State {};

void JsonMask::apply(std::span<const std::int32_t>, std::span<float>) {}

struct JsonGrammars::Impl {};

bool JsonGrammars::available() { return false; }

JsonGrammars::JsonGrammars(const Tokenizer&, std::int64_t, std::vector<std::int32_t>) {}

JsonMask JsonGrammars::mask(const std::string&) {
  throw Error("answers by a JSON schema are not supported: this build lacks xgrammar", where,
              "run scripts/install_xgrammar and build again; the vLLM plugin has it");
}

#endif

JsonGrammars::~JsonGrammars() = default;

}  // namespace ttt::inline v2::runtime
