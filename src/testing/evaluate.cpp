#include "ttt/testing/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "testing/driver.h"
#include "testing/measure.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace {

// -log softmax(logits)[id]
double negative_log_likelihood(std::span<const float> logits, std::int32_t id) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return std::log(sum) + largest - logits[static_cast<std::size_t>(id)];
}

std::size_t count_words(std::string_view text) {
  std::size_t words = 0;
  bool inside = false;
  for (char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    words += !space && !inside;
    inside = !space;
  }
  return words;
}

void check_ids(std::span<const std::int32_t> ids, std::int64_t vocab, const char* where) {
  for (std::int32_t id : ids) {
    if (id < 0 || id >= vocab)
      throw Error("token " + std::to_string(id) + " of a vocabulary of " + std::to_string(vocab), where,
                  "use the tokenizer of this model");
  }
}

// Rows whose logits are held at a time: 64 MB of them.
std::size_t rows_at_a_time(std::int64_t vocab) {
  return std::clamp<std::size_t>(
      (std::size_t{1} << 24) / static_cast<std::size_t>(std::max<std::int64_t>(vocab, 1)), 16, 512);
}

}  // namespace

PerplexityResult evaluate_perplexity(const CausalLM& model, std::span<const std::int32_t> ids,
                                     const PerplexityOptions& options) {
  require_numbers(model, "perplexity");
  const auto begin_time = std::chrono::steady_clock::now();
  PerplexityResult result;
  result.bos = options.bos == Bos::yes;
  if (options.tokens > 0 && options.tokens < ids.size()) ids = ids.first(options.tokens);
  if (ids.size() < 2) throw Error("fewer than two tokens", "the text", "give a longer one");
  check_ids(ids, model.spec().vocab, "the text");

  const std::size_t limit = max_context(model);
  if (options.context < 0 || (limit > 0 && static_cast<std::size_t>(options.context) > limit))
    throw Error("a context of " + std::to_string(options.context) + " tokens",
                "the model has " + std::to_string(limit), "choose a smaller one");
  std::size_t context = options.context > 0 ? static_cast<std::size_t>(options.context)
                        : limit > 0         ? limit
                                            : ids.size();
  if (options.stride < 0 || static_cast<std::size_t>(options.stride) > context)
    throw Error("a stride of " + std::to_string(options.stride),
                "windows of " + std::to_string(context) + " tokens",
                "choose one that is not above the context");
  const std::size_t overhead = result.bos ? 2 : 1;  // tokens of a later window that are not new
  if (context <= overhead)
    throw Error("a context of " + std::to_string(context) + " tokens", "nothing new fits into a window",
                "choose a larger one");
  std::size_t stride = context - overhead;
  if (options.stride > 0) stride = std::min(stride, static_cast<std::size_t>(options.stride));
  context = std::min(context, ids.size());
  result.tokens = ids.size();
  result.context = static_cast<int>(context);
  result.stride = static_cast<int>(stride);

  Driver driver(model, 1, context);
  const std::size_t rows = rows_at_a_time(model.spec().vocab);
  double total = 0;
  std::size_t scored_to = 1;  // ids [1, scored_to) are scored
  while (scored_to < ids.size()) {
    // Window: ids [begin, end), of which those from scored_to on are new.
    const std::size_t end = scored_to == 1 ? context : std::min(scored_to + stride, ids.size());
    const std::size_t room = context - (scored_to > 1 && result.bos ? 1 : 0);
    const std::size_t begin = end > room ? end - room : 0;
    std::vector<std::int32_t> window(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                     ids.begin() + static_cast<std::ptrdiff_t>(end));
    std::size_t first_new = scored_to - begin;
    if (begin > 0 && result.bos) {
      window.insert(window.begin(), ids.front());
      ++first_new;
    }
    driver.reset();
    for (std::size_t at = 0; at < window.size(); at += rows) {
      const std::size_t count = std::min(rows, window.size() - at);
      const std::span<const std::int32_t> piece = std::span(window).subspan(at, count);
      if (at + count < first_new) {  // none of its rows predicts a new token
        driver.feed(piece, Want::nothing);
        continue;
      }
      const StepOutput output = driver.feed(piece, Want::all_rows);
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t predicted = at + i + 1;
        if (predicted < first_new || predicted >= window.size()) continue;
        total += negative_log_likelihood(
            std::span(output.logits)
                .subspan(i * static_cast<std::size_t>(output.vocab), static_cast<std::size_t>(output.vocab)),
            window[predicted]);
        ++result.scored;
      }
    }
    scored_to = end;
    ++result.windows;
    if (options.progress) options.progress(scored_to, ids.size());
  }
  result.perplexity = std::exp(total / static_cast<double>(result.scored));
  result.seconds = seconds_since(begin_time);
  return result;
}

PerplexityResult evaluate_perplexity(const CausalLM& model, const Tokenizer& tokenizer, std::string_view text,
                                     const PerplexityOptions& options) {
  std::vector<std::int32_t> ids =
      tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false});
  const bool bos = options.bos == Bos::yes || (options.bos == Bos::automatic && tokenizer.adds_bos());
  if (bos) {
    if (!tokenizer.bos_id())
      throw Error("the tokenizer has no beginning-of-sequence token", "bos", "evaluate without it");
    ids.insert(ids.begin(), *tokenizer.bos_id());
  }
  PerplexityOptions decided = options;
  decided.bos = bos ? Bos::yes : Bos::no;
  PerplexityResult result = evaluate_perplexity(model, ids, decided);
  const std::string evaluated = tokenizer.decode(std::span(ids).first(result.tokens));
  const double total = std::log(result.perplexity) * static_cast<double>(result.scored);
  result.words = count_words(evaluated);
  result.bytes = evaluated.size();
  result.word_perplexity = result.words > 0 ? std::exp(total / static_cast<double>(result.words)) : 0;
  result.bits_per_byte = result.bytes > 0 ? total / std::log(2.0) / static_cast<double>(result.bytes) : 0;
  return result;
}

TokenAccuracyResult evaluate_tokens(const CausalLM& model, const Reference& reference,
                                    const TokenAccuracyOptions& options) {
  const std::string where = printable(reference.path().string(), 200);
  if (reference.top5_ids().empty()) throw Error("no top5_ids", where, "write the file with tools/reference");
  return evaluate_tokens(model, reference.input_ids(), reference.top5_ids(), options, where);
}

TokenAccuracyResult evaluate_tokens(const CausalLM& model, std::span<const std::int32_t> ids,
                                    std::span<const std::int32_t> best, const TokenAccuracyOptions& options,
                                    const std::string& where) {
  require_numbers(model, "token agreement");
  const auto begin_time = std::chrono::steady_clock::now();
  if (best.size() != 5 * ids.size()) throw Error("not five ids per position", where, "give as many");
  if (options.prefill == 0 || ids.size() < options.prefill + 1)
    throw Error(std::to_string(ids.size()) + " tokens for a prefill of " + std::to_string(options.prefill),
                where, "choose a shorter --prefill");
  check_ids(ids, model.spec().vocab, where.c_str());

  TokenAccuracyResult result{.prefill = options.prefill, .steps = ids.size() - 1 - options.prefill};
  std::size_t first = 0, among = 0;
  const auto count = [&](const StepOutput& output, std::size_t position) {
    const std::int32_t predicted =
        argmax(std::span(output.logits).last(static_cast<std::size_t>(output.vocab)));
    const std::span<const std::int32_t> top = best.subspan(5 * position, 5);
    first += predicted == top.front();
    among += std::ranges::find(top, predicted) != top.end();
    ++result.positions;
    if (options.progress) options.progress(result.positions, result.steps + 1);
  };
  Driver driver(model, 1, ids.size());
  count(driver.feed(ids.first(options.prefill), Want::last_rows), options.prefill - 1);
  for (std::size_t position = options.prefill; position + 1 < ids.size(); ++position)
    count(driver.feed(ids.subspan(position, 1), Want::last_rows), position);
  result.top1 = static_cast<double>(first) / static_cast<double>(result.positions);
  result.top5 = static_cast<double>(among) / static_cast<double>(result.positions);
  result.seconds = seconds_since(begin_time);
  return result;
}

}  // namespace ttt::inline v2::testing
