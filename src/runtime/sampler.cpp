#include "ttt/runtime/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <string>

#include "base/vector_clones.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2 {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float greedy_below = 1e-5f;  // temperatures that divide logits to nothing but the maximum

// The loops below run over a fixed number of independent lanes, so that results are the same whatever the
// width of the registers.
constexpr std::size_t lanes = 16;
using Floats = float __attribute__((vector_size(lanes * sizeof(float))));
using Doubles = double __attribute__((vector_size(lanes * sizeof(double))));
using Flags = std::int32_t __attribute__((vector_size(lanes * sizeof(std::int32_t))));

[[gnu::always_inline]] inline void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof to); }

[[gnu::always_inline]] inline bool any(const Flags& flags) {
  std::int32_t all = 0;
  for (std::size_t j = 0; j < lanes; ++j) all |= flags[j];
  return all != 0;
}

// exp(x) for x <= 0 to 2 units in the last place; 0 below -87, -inf included. By Cody and Waite: x = n ln 2 +
// r, a polynomial for exp(r). Without a branch or a conditional, which would keep compilers from using
// vectors: what the arithmetic makes of numbers below -87 is masked out.
inline float exp_nonpositive(float x) {
  const float shifted =
      x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer part of n lands in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::uint32_t scale = (std::bit_cast<std::uint32_t>(shifted) << 23) + (127u << 23);
  const std::uint32_t alive = 0u - static_cast<std::uint32_t>(x >= -87.0f);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p * std::bit_cast<float>(scale)) & alive);
}

TTT_VECTOR_CLONES double sum(std::span<const float> values) {
  Doubles part{};
  std::size_t i = 0;
  for (; i + lanes <= values.size(); i += lanes) {
    Floats v;
    load(&values[i], v);
    part += __builtin_convertvector(v, Doubles);
  }
  double total = 0;
  for (; i < values.size(); ++i) total += values[i];
  for (std::size_t j = 0; j < lanes; ++j) total += part[j];
  return total;
}

// Where the first piece of `lanes` values (or fewer, at the end) from `begin` on begins that has one of at
// least `threshold`; an end of fewer counts as one that does.
TTT_VECTOR_CLONES std::size_t find_at_least(std::span<const float> values, std::size_t begin,
                                            float threshold) {
  for (; begin + lanes <= values.size(); begin += lanes) {
    Floats v;
    load(&values[begin], v);
    if (any(v >= threshold)) break;
  }
  return begin;
}

// The greatest of the logits and where the block of values that has it begins; NaN when one is.
TTT_VECTOR_CLONES std::pair<float, std::size_t> greatest_of(std::span<const float> logits) {
  constexpr std::size_t block = 64 * lanes;
  float best = -infinity;
  std::size_t best_block = 0;
  Flags nan{};
  for (std::size_t begin = 0; begin < logits.size(); begin += block) {
    const std::size_t end = std::min(begin + block, logits.size());
    Floats high = Floats{} - infinity;
    std::size_t i = begin;
    for (; i + lanes <= end; i += lanes) {
      Floats v;
      load(&logits[i], v);
      high = v > high ? v : high;
      nan |= v != v;
    }
    float greatest = -infinity;
    for (; i < end; ++i) {
      greatest = std::max(greatest, logits[i]);
      nan[0] |= logits[i] != logits[i] ? 1 : 0;
    }
    for (std::size_t j = 0; j < lanes; ++j) greatest = std::max(greatest, high[j]);
    if (greatest > best) best = greatest, best_block = begin;
  }
  return {any(nan) ? std::numeric_limits<float>::quiet_NaN() : best, best_block};
}

// The greatest logit and the first id that has it. Error when there is none, or when it is not a number.
std::pair<float, std::int32_t> maximum_of(std::span<const float> logits) {
  const std::int32_t id = argmax(logits);
  const float best = id < 0 ? infinity : logits[static_cast<std::size_t>(id)];
  if (best == infinity) {
    const auto at =
        std::find_if(logits.begin(), logits.end(), [](float v) { return v != v || v == infinity; });
    throw Error(*at == infinity ? "a logit is infinite" : "a logit is NaN",
                "token " + std::to_string(at - logits.begin()),
                "check the weights, or run with f32 activations");
  }
  if (best == -infinity)
    throw Error("no token is allowed: every logit is -inf", "", "allow at least one token");
  return {best, id};
}

// out = exp((logits - maximum) * scale)
TTT_VECTOR_CLONES void exponentials(std::span<const float> logits, float maximum, float scale,
                                    std::vector<float>& out) {
  out.resize(logits.size());
  const float* in = logits.data();
  float* weights = out.data();
  for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = exp_nonpositive((in[i] - maximum) * scale);
}

bool is_greedy(const SamplingParams& params) { return params.temperature < greedy_below; }

// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): first 64 bits of the
// block.
std::uint64_t philox(std::uint64_t key, std::uint64_t counter) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> c = {static_cast<std::uint32_t>(counter),
                                    static_cast<std::uint32_t>(counter >> 32), 0, 0};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0], b = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return std::uint64_t{c[0]} << 32 | c[1];
}

}  // namespace

std::int32_t argmax(std::span<const float> logits) {
  const auto [greatest, block] = greatest_of(logits);
  if (std::isnan(greatest)) return -1;
  const auto first = logits.begin() + static_cast<std::ptrdiff_t>(block);
  return static_cast<std::int32_t>(std::find(first, logits.end(), greatest) - logits.begin());
}

double counter_uniform(std::uint64_t seed, std::uint64_t position) {
  return static_cast<double>(philox(seed, position) >> 11) * 0x1p-53;
}

// --- Penalties

Penalties::Penalties(const SamplingParams& params, std::span<const std::int32_t> prompt)
    : repetition_(params.repetition_penalty),
      presence_(params.presence_penalty),
      frequency_(params.frequency_penalty) {
  if (repetition_ != 1)
    for (const std::int32_t id : prompt) counts_[id].prompt = 1;
}

void Penalties::add(std::int32_t token) {
  if (active()) ++counts_[token].output;
}

void Penalties::apply(std::span<float> logits) const {
  if (!active()) return;
  for (const auto& [id, count] : counts_) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<std::size_t>(id)];
    if (repetition_ != 1) logit = logit < 0 ? logit * repetition_ : logit / repetition_;
    if (count.output > 0) logit -= frequency_ * static_cast<float>(count.output) + presence_;
  }
}

// --- Sampler

// entries_ = the k greatest logits and those that tie with the last of them, by id. Most logits are dismissed
// by a comparison with the k-th greatest so far, a vector at a time.
void Sampler::keep_top_k(std::span<const float> logits, std::size_t k) {
  entries_.clear();
  float threshold = -infinity;
  std::size_t capacity = 2 * k + 256;
  const auto shrink = [&] {
    weights_.resize(entries_.size());
    std::transform(entries_.begin(), entries_.end(), weights_.begin(),
                   [](const Entry& e) { return e.value; });
    const auto kth = weights_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(weights_.begin(), kth, weights_.end(), std::greater<>());
    threshold = *kth;
    std::erase_if(entries_, [&](const Entry& e) { return e.value < threshold; });
    capacity = std::max(capacity, 2 * entries_.size());
  };
  const auto consider = [&](std::size_t i) {
    if (logits[i] < threshold || logits[i] == -infinity) return;
    entries_.push_back({logits[i], static_cast<std::int32_t>(i)});
    if (entries_.size() >= capacity) shrink();
  };
  for (std::size_t i = 0; (i = find_at_least(logits, i, threshold)) < logits.size();)
    for (const std::size_t end = std::min(i + lanes, logits.size()); i < end; ++i) consider(i);
  if (entries_.size() > k) shrink();
}

// Of the entries (by id, values are weights), those whose heavier ones - of equal weight: with smaller ids -
// weigh less than top_p of all together. A histogram over the leading bits of the weights finds the bin of
// the last one that is kept, quickselect on the mass finds it there.
void Sampler::keep_top_p(double total, double top_p) {
  const double needed = top_p * total;
  constexpr int shift =
      19;  // exponent and 4 bits of the fraction: 16 bins per power of two, at most 1 / 0.94 apart
  const auto bin = [](const Entry& e) { return std::bit_cast<std::uint32_t>(e.value) >> shift; };
  std::array<double, (std::bit_cast<std::uint32_t>(1.0f) >> shift) + 1> mass{};
  for (const Entry& e : entries_) mass[bin(e)] += e.value;
  double before = 0;  // weight of everything that is heavier
  std::size_t last_bin = mass.size() - 1;
  while (last_bin > 0 && before + mass[last_bin] < needed) before += mass[last_bin--];
  scratch_.clear();
  std::copy_if(entries_.begin(), entries_.end(), std::back_inserter(scratch_),
               [&](const Entry& e) { return bin(e) == last_bin; });

  const auto heavier = [](const Entry& a, const Entry& b) {
    return a.value != b.value ? a.value > b.value : a.id < b.id;
  };
  auto begin = scratch_.begin(), end = scratch_.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, heavier);
    double left = 0;
    for (auto e = begin; e != middle; ++e) left += e->value;
    if (before + left < needed) {  // *middle is still kept
      before += left;
      begin = middle;
    } else {
      end = middle;
    }
  }
  if (begin == end) return;  // rounding: the sum over the bins fell short of what is needed, so all stay
  const Entry last = *begin;
  std::erase_if(entries_, [&](const Entry& e) { return heavier(last, e); });
}

// Fills entries_ with the kept ids and their weights; leaves it empty, with the weights of the whole row in
// weights_, when nothing restricts the choice. Returns the sum of the weights.
double Sampler::select(std::span<const float> logits, const SamplingParams& params) {
  const float maximum = maximum_of(logits).first;
  const float scale = 1.0f / params.temperature;
  const bool top_k = params.top_k > 0 && static_cast<std::size_t>(params.top_k) < logits.size();
  double total = 0;
  entries_.clear();
  if (top_k) {
    keep_top_k(logits, static_cast<std::size_t>(params.top_k));
    for (Entry& e : entries_) total += e.value = exp_nonpositive((e.value - maximum) * scale);
  } else {
    exponentials(logits, maximum, scale, weights_);
    total = sum(weights_);
    if (params.top_p >= 1 && params.min_p <= 0) return total;
    // All tokens of weight at most (1 - top_p) total / n together weigh too little to be among the top_p.
    const double light =
        params.top_p < 1 ? (1 - params.top_p) * total / static_cast<double>(logits.size()) : 0;
    const auto below = static_cast<float>(light * (1 - 1e-6));
    const float least = std::max(below, params.min_p);
    for (std::size_t i = 0; (i = find_at_least(weights_, i, least)) < weights_.size();) {
      std::array<Entry, lanes> piece;
      std::size_t kept = 0;  // written ahead of the test, so that it costs no branch
      for (const std::size_t end = std::min(i + lanes, weights_.size()); i < end; ++i) {
        piece[kept] = {weights_[i], static_cast<std::int32_t>(i)};
        kept += weights_[i] > below && weights_[i] >= least ? 1 : 0;
      }
      entries_.insert(entries_.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(kept));
    }
  }
  if (params.top_p < 1) keep_top_p(total, params.top_p);
  if (params.min_p > 0) std::erase_if(entries_, [&](const Entry& e) { return e.value < params.min_p; });
  total = 0;
  for (const Entry& e : entries_) total += e.value;
  return total;
}

std::int32_t Sampler::sample(std::span<const float> logits, const SamplingParams& params, double uniform) {
  if (is_greedy(params)) return maximum_of(logits).second;
  const double target = select(logits, params) * uniform;
  double passed = 0;
  if (!entries_.empty()) {
    std::int32_t last = 0;
    for (const Entry& e : entries_) {
      if (e.value > 0) last = e.id;
      if ((passed += e.value) > target) break;
    }
    return last;
  }
  constexpr std::size_t block = 512;
  std::size_t last = 0;
  for (std::size_t begin = 0; begin < weights_.size(); begin += block) {
    const auto row = std::span(weights_).subspan(begin, std::min(block, weights_.size() - begin));
    const double weight = sum(row);
    if (passed + weight > target) {
      for (std::size_t i = 0; i < row.size(); ++i) {
        if (row[i] > 0) last = begin + i;
        if ((passed += row[i]) > target) break;
      }
      return static_cast<std::int32_t>(last);
    }
    passed += weight;
    if (weight > 0) {
      std::size_t i = row.size();
      while (row[i - 1] <= 0) --i;
      last = begin + i - 1;
    }
  }
  return static_cast<std::int32_t>(last);
}

std::vector<Sampler::Candidate> Sampler::distribution(std::span<const float> logits,
                                                      const SamplingParams& params) {
  if (is_greedy(params)) return {{maximum_of(logits).second, 1.0f}};
  const double total = select(logits, params);
  if (entries_.empty())
    for (std::size_t i = 0; i < weights_.size(); ++i)
      if (weights_[i] > 0) entries_.push_back({weights_[i], static_cast<std::int32_t>(i)});
  std::vector<Candidate> kept;
  kept.reserve(entries_.size());
  for (const Entry& e : entries_) kept.push_back({e.id, static_cast<float>(e.value / total)});
  return kept;
}

// --- Log-probabilities

PositionLogprobs log_probabilities(std::span<const float> logits, std::int32_t id, int top) {
  const float maximum = maximum_of(logits).first;
  std::array<double, lanes> part{};
  std::array<std::int32_t, lanes> likelier{};
  const float own = logits[static_cast<std::size_t>(id)];
  std::size_t i = 0;
  for (; i + lanes <= logits.size(); i += lanes) {
    std::array<float, lanes> weight;
    for (std::size_t j = 0; j < lanes; ++j) weight[j] = exp_nonpositive(logits[i + j] - maximum);
    for (std::size_t j = 0; j < lanes; ++j) part[j] += weight[j];
    for (std::size_t j = 0; j < lanes; ++j) likelier[j] += logits[i + j] > own ? 1 : 0;
  }
  for (; i < logits.size(); ++i) {
    part[0] += exp_nonpositive(logits[i] - maximum);
    likelier[0] += logits[i] > own ? 1 : 0;
  }
  double total = 0;
  PositionLogprobs result;
  for (std::size_t j = 0; j < lanes; ++j) {
    total += part[j];
    result.rank += likelier[j];
  }
  const double norm = static_cast<double>(maximum) + std::log(total);
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - norm); };
  result.token = {id, logprob(own)};

  const std::size_t n = std::min(static_cast<std::size_t>(std::max(top, 0)), logits.size());
  if (n == 0) return result;
  const auto better = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.id < b.id;
  };
  // A heap of the n best logits so far, the worst of them in front.
  std::vector<TokenLogprob>& best = result.top;
  best.reserve(n);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    if (best.size() == n && logits[v] <= best.front().logprob) continue;  // a tie with a smaller id stays
    if (best.size() == n) {
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
    best.push_back({static_cast<std::int32_t>(v), logits[v]});
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort_heap(best.begin(), best.end(), better);
  for (TokenLogprob& t : best) t.logprob = logprob(t.logprob);
  return result;
}

// --- Validation

namespace {

[[noreturn]] void refuse(std::string_view field, const std::string& value, std::string_view fix) {
  throw Error("sampling parameter out of range", std::string(field) + " " + value, fix);
}

void check_id(std::string_view field, std::int32_t id, std::int64_t vocab) {
  if (id < 0 || id >= vocab)
    refuse(field, std::to_string(id), "use ids from 0 to " + std::to_string(vocab - 1));
}

}  // namespace

void validate(const SamplingParams& p, std::int64_t vocab) {
  const auto text = [](double v) {
    std::string s = std::to_string(v);
    return s;
  };
  if (!(p.temperature >= 0 && p.temperature < infinity))
    refuse("temperature", text(p.temperature), "use 0 (greedy) or a positive number");
  if (p.top_k < 0) refuse("top_k", std::to_string(p.top_k), "use 0 (all) or a positive number");
  if (!(p.top_p > 0 && p.top_p <= 1)) refuse("top_p", text(p.top_p), "use a number in (0, 1]");
  if (!(p.min_p >= 0 && p.min_p <= 1)) refuse("min_p", text(p.min_p), "use a number in [0, 1]");
  if (!(p.repetition_penalty > 0 && p.repetition_penalty < infinity))
    refuse("repetition_penalty", text(p.repetition_penalty), "use a positive number; 1 changes nothing");
  if (!std::isfinite(p.presence_penalty))
    refuse("presence_penalty", text(p.presence_penalty), "use a finite number");
  if (!std::isfinite(p.frequency_penalty))
    refuse("frequency_penalty", text(p.frequency_penalty), "use a finite number");
  for (const auto& [id, bias] : p.logit_bias) {
    check_id("logit_bias of token", id, vocab);
    if (!(bias < infinity)) refuse("logit_bias", text(bias), "use a finite number, or -inf to ban the token");
  }
  for (const std::int32_t id : p.allowed_token_ids) check_id("allowed_token_ids", id, vocab);
  for (const std::int32_t id : p.stop_token_ids) check_id("stop_token_ids", id, vocab);
  for (const auto& [field, n] :
       {std::pair("logprobs", p.logprobs), std::pair("prompt_logprobs", p.prompt_logprobs)})
    if (n && (*n < 0 || *n > vocab))
      refuse(field, std::to_string(*n), "use a number from 0 to " + std::to_string(vocab));
  if (p.max_new_tokens < 0) refuse("max_new_tokens", std::to_string(p.max_new_tokens), "use 0 or more");
  if (p.min_new_tokens < 0 || p.min_new_tokens > p.max_new_tokens)
    refuse("min_new_tokens", std::to_string(p.min_new_tokens),
           "use a number from 0 to max_new_tokens (" + std::to_string(p.max_new_tokens) + ")");
  for (const std::string& stop : p.stop) {
    if (stop.empty()) refuse("stop", "\"\"", "give a stop string at least one character");
    if (utf8::repair(stop) != stop)
      refuse("stop", "\"" + printable(stop) + "\"", "give stop strings as UTF-8");
  }
}

}  // namespace ttt::inline v2
