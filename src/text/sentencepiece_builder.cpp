#include <algorithm>
#include <bit>
#include <cmath>

#include "text/tokenizer_impl.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::text {

namespace {

// Higher scores to lower ranks.
std::uint32_t rank_of(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0f);
  const std::uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

}  // namespace

void build_sentencepiece(TokenizerImpl& impl, SentencePieceSpec spec) {
  const std::size_t n = spec.pieces.size();
  const auto is = [&](std::size_t i, TokenType type) { return spec.types[i] == type; };
  for (std::size_t i = 0; i < n; ++i) {
    if (std::isnan(spec.scores[i]))
      throw Error("score of token " + std::to_string(i) + " is not a number", impl.source,
                  "convert the model again");
  }

  TokenTable table;
  std::size_t bytes = 0;
  for (const std::string& piece : spec.pieces) bytes += piece.size();
  table.reserve(n, bytes);
  std::vector<bool> visible(n), unused(n), user_defined(n);
  bool has_unused = false, has_user_defined = false;
  SentencePieceOptions options;
  for (std::size_t i = 0; i < n; ++i) {
    const auto id = static_cast<std::int32_t>(i);
    table.set(id, spec.pieces[i]);
    unused[i] = is(i, TokenType::unused);
    user_defined[i] = is(i, TokenType::user_defined);
    visible[i] = !is(i, TokenType::control) && !is(i, TokenType::unknown) && !is(i, TokenType::byte);
    has_unused = has_unused || unused[i];
    has_user_defined = has_user_defined || user_defined[i];
    if (is(i, TokenType::unknown) && !impl.unk) impl.unk = id;
    if (spec.pieces[i].empty()) {
      visible[i] = false;
      continue;
    }
    const bool special = is(i, TokenType::control) || (is(i, TokenType::unknown) && spec.unknown_is_special);
    // In a BPE model, user-defined symbols are cut out of the normalized text; a unigram model weighs them
    // itself.
    if (special || (user_defined[i] && !spec.unigram)) {
      AddedToken token;
      token.id = id;
      token.content = spec.pieces[i];
      token.special = special;
      token.normalized = !special;
      token.left_strip =
          std::find(spec.left_strip.begin(), spec.left_strip.end(), id) != spec.left_strip.end();
      token.right_strip =
          std::find(spec.right_strip.begin(), spec.right_strip.end(), id) != spec.right_strip.end();
      impl.added.add(std::move(token));
    }
    if (user_defined[i]) options.user_defined.push_back(spec.pieces[i]);
  }
  table.index(visible);

  options.add_dummy_prefix = spec.add_dummy_prefix;
  options.remove_extra_whitespaces = spec.remove_extra_whitespaces;
  options.escape_whitespaces = spec.escape_whitespaces;
  options.whitespace_as_suffix = spec.whitespace_as_suffix;
  CharsMap map(std::move(spec.charsmap), impl.source + ": precompiled_charsmap");
  impl.normalizers.push_back(make_sentencepiece(std::move(map), std::move(options)));
  impl.added.finish({});

  if (spec.unigram) {
    auto model = std::make_unique<Unigram>();
    model->tokens = std::move(table);
    model->scores.assign(spec.scores.begin(), spec.scores.end());
    model->single_precision = true;
    model->byte_fallback = spec.byte_fallback;
    model->hidden.resize(n);
    for (std::size_t i = 0; i < n; ++i) model->hidden[i] = !visible[i] || unused[i];
    if (has_user_defined) model->user_defined = std::move(user_defined);
    model->unknown = impl.unk;
    model->finish();
    impl.model = std::move(model);
  } else {
    auto model = std::make_unique<RankedBpe>();
    model->tokens = std::move(table);
    model->ranks.resize(n);
    for (std::size_t i = 0; i < n; ++i) model->ranks[i] = visible[i] ? rank_of(spec.scores[i]) : no_rank;
    if (has_unused) model->unused = std::move(unused);
    model->fuse_unknown = true;
    model->byte_fallback = spec.byte_fallback;
    model->unknown = impl.unk;
    model->finish();
    impl.model = std::move(model);
  }

  DecoderRule rule;
  rule.kind = DecoderRule::Kind::sentence_piece;
  rule.flag = spec.add_dummy_prefix || spec.remove_extra_whitespaces;
  rule.flag2 = spec.remove_extra_whitespaces;
  if (impl.unk && !spec.unknown_is_special) {
    rule.text = spec.pieces[static_cast<std::size_t>(*impl.unk)];
    rule.text2 = spec.unknown_surface;
  }
  impl.decoders.push_back(std::move(rule));
}

}  // namespace ttt::inline v2::text
