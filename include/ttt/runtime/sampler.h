// From logits to a token, on the host. The processors run in this order (docs/generation.md):
//   1. allowed and banned ids, logit bias, the request's own processor
//   2. repetition, presence and frequency penalties          (Penalties)
//   3. temperature; 4. top-k; 5. top-p; 6. min-p; 7. a draw  (Sampler)
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ttt::inline v2 {

// What a request may ask of the choice of its tokens and of its end. Names and meanings are those of vLLM's
// SamplingParams and Hugging Face's GenerationConfig.
struct SamplingParams {
  float temperature = 0;  // below 1e-5: greedy (top_k, top_p, min_p and seed have no effect)
  int top_k = 0;          // keep the k likeliest tokens (and those that tie with the last); 0: all
  float top_p = 1;        // keep the smallest set of likeliest tokens whose probabilities reach top_p; (0, 1]
  float min_p = 0;        // keep tokens at least min_p times as likely as the likeliest; [0, 1]
  // > 0; on tokens of prompt and output: logit / p where positive, logit * p where negative.
  float repetition_penalty = 1;
  float presence_penalty = 0;                                // subtracted once from each token of the output
  float frequency_penalty = 0;                               // subtracted once per occurrence in the output
  std::optional<std::uint64_t> seed{};                       // unset: a different one for every request
  std::vector<std::pair<std::int32_t, float>> logit_bias{};  // added to the logits of these ids
  std::vector<std::int32_t> allowed_token_ids{};             // not empty: no other id is ever chosen

  // Log-probabilities of the output: of the chosen token and of the n likeliest. Unset: none; 0: the chosen
  // one only. They are those of the model's logits, before any processor.
  std::optional<int> logprobs{};
  // The same for the tokens of the prompt; such a request reuses no prefix.
  std::optional<int> prompt_logprobs{};

  // The output is a value of this JSON schema, without white space between its parts, and then ends (also
  // with ignore_eos). Where max_new_tokens cuts it off, it is the beginning of one. By the library xgrammar;
  // Generator::follows_schemas() says whether it is there.
  std::optional<std::string> json_schema{};

  int max_new_tokens = 256;          // the context length may end the output earlier
  int min_new_tokens = 0;            // until then end ids can not be chosen and stop strings do not count
  std::vector<std::string> stop{};   // the output ends before the first of these; UTF-8, not empty
  bool include_stop_string = false;  // leave the stop string at the end of the text
  std::vector<std::int32_t> stop_token_ids{};  // end the output beside the model's own end ids
  bool ignore_eos = false;                     // the model's own end ids do not end the output
};

// Error that names the field: a value out of range, an id outside of [0, vocab), a stop string that is empty
// or not UTF-8.
void validate(const SamplingParams&, std::int64_t vocab);

struct TokenLogprob {
  std::int32_t id = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

struct PositionLogprobs {
  TokenLogprob token{};             // of the text
  std::int64_t rank = 1;            // 1 + number of likelier tokens
  std::vector<TokenLogprob> top{};  // the n likeliest, best first; equal ones by id
};

// Index of the greatest of the logits [vocab], which are not none; of equal ones the first. -1: one is NaN.
std::int32_t argmax(std::span<const float> logits);

// log_softmax of one row at `id` and at the `top` likeliest. Sums in double; exact for any finite logits and
// -inf.
PositionLogprobs log_probabilities(std::span<const float> logits, std::int32_t id, int top);

// A number in [0, 1) that depends on its arguments only: what a request draws is its own, whatever the batch.
// `position` counts the tokens of the output.
double counter_uniform(std::uint64_t seed, std::uint64_t position);

// Counts of one request's tokens, and the penalties on them.
class Penalties {
 public:
  Penalties() = default;  // none
  Penalties(const SamplingParams&, std::span<const std::int32_t> prompt);

  void add(std::int32_t token);               // one more token of the output
  void apply(std::span<float> logits) const;  // ids beyond the row are skipped
  bool active() const { return repetition_ != 1 || presence_ != 0 || frequency_ != 0; }

 private:
  struct Count {
    std::int32_t prompt = 0, output = 0;
  };
  float repetition_ = 1, presence_ = 0, frequency_ = 0;
  std::unordered_map<std::int32_t, Count> counts_;
};

// Temperature, top-k, top-p, min-p and the draw. Works by selection, never by a sort of the vocabulary; keeps
// its scratch memory between calls, so use one per thread. Ties break toward the smaller id.
class Sampler {
 public:
  // `uniform`: in [0, 1), see counter_uniform(); not used when greedy.
  // Error: a logit is NaN or +inf (the message gives its id), or all are -inf.
  std::int32_t sample(std::span<const float> logits, const SamplingParams&, double uniform);

  struct Candidate {
    std::int32_t id = 0;
    float probability = 0;
  };
  // The distribution that sample() draws from: what top-k, top-p and min-p keep, by id, with probabilities
  // that sum to 1.
  std::vector<Candidate> distribution(std::span<const float> logits, const SamplingParams&);

 private:
  struct Entry {
    float value = 0;  // logit, then weight: exp((logit - maximum) / temperature)
    std::int32_t id = 0;
  };
  void keep_top_k(std::span<const float> logits, std::size_t k);
  void keep_top_p(double total, double top_p);
  double select(std::span<const float> logits, const SamplingParams&);
  std::vector<Entry> entries_, scratch_;
  std::vector<float> weights_;
};

}  // namespace ttt::inline v2
