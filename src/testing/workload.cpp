#include "testing/workload.h"

#include <algorithm>
#include <string>

#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace {

std::vector<std::vector<std::int32_t>> make_prompts(const CausalLM& model, int users, int prompt_tokens,
                                                    int new_tokens, int step_tokens) {
  require_numbers(model, "a benchmark");
  for (const auto& [value, name] : {std::pair{prompt_tokens, "prompt tokens"},
                                    {new_tokens, "new tokens"},
                                    {users, "batch"},
                                    {step_tokens, "step tokens"}}) {
    if (value < 1)
      throw Error(std::string(name) + " of " + std::to_string(value), "the benchmark", "choose at least 1");
  }
  const std::size_t length = static_cast<std::size_t>(prompt_tokens) + static_cast<std::size_t>(new_tokens);
  if (const std::size_t limit = max_context(model); limit > 0 && length > limit)
    throw Error(std::to_string(length) + " tokens per user",
                "the model has a context of " + std::to_string(limit), "choose fewer");
  std::vector<std::vector<std::int32_t>> prompts(static_cast<std::size_t>(users));
  for (std::size_t u = 0; u < prompts.size(); ++u) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(prompt_tokens); ++i)
      prompts[u].push_back(static_cast<std::int32_t>((i * 7919 + u * 104729 + 17) %
                                                     static_cast<std::size_t>(model.spec().vocab)));
  }
  return prompts;
}

}  // namespace

Workload::Workload(const CausalLM& model, int users, int prompt_tokens, int new_tokens, int step_tokens)
    : prompts_(make_prompts(model, users, prompt_tokens, new_tokens, step_tokens)),
      driver_(model, prompts_.size(),
              static_cast<std::size_t>(prompt_tokens) + static_cast<std::size_t>(new_tokens)),
      step_tokens_(static_cast<std::size_t>(step_tokens)),
      next_(prompts_.size()),
      tokens_(prompts_.size()) {}

void Workload::prefill(std::size_t user) {
  std::ranges::fill(tokens_, std::span<const std::int32_t>{});
  const std::span<const std::int32_t> prompt = prompts_[user];
  for (std::size_t at = 0; at < prompt.size(); at += step_tokens_) {
    tokens_[user] = prompt.subspan(at, std::min(step_tokens_, prompt.size() - at));
    const bool last = at + tokens_[user].size() == prompt.size();
    const StepOutput output = driver_.feed(tokens_, last ? Want::last_rows : Want::nothing);
    if (last) next_[user] = std::max(argmax(output.logits), 0);
  }
}

void Workload::prefill_all() {
  reset();
  for (std::size_t u = 0; u < prompts_.size(); ++u) prefill(u);
}

void Workload::decode() {
  for (std::size_t u = 0; u < next_.size(); ++u) tokens_[u] = std::span(&next_[u], 1);
  const StepOutput output = driver_.feed(tokens_, Want::last_rows);
  const auto vocab = static_cast<std::size_t>(output.vocab);
  for (std::size_t u = 0; u < next_.size(); ++u)
    next_[u] = std::max(argmax(std::span(output.logits).subspan(u * vocab, vocab)), 0);
}

}  // namespace ttt::inline v2::testing
