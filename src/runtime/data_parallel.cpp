#include "ttt/runtime/data_parallel.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

// What a request takes, roughly: tokens to read and to write.
std::size_t work(const GenerationRequest& request) {
  constexpr std::size_t bytes_per_token = 4;
  const std::size_t prompt =
      request.prompt_ids.empty() ? request.prompt.size() / bytes_per_token : request.prompt_ids.size();
  return prompt + static_cast<std::size_t>(std::max(request.sampling.max_new_tokens, 0));
}

}  // namespace

DataParallel::DataParallel(std::span<const CausalLM* const> replicas, const Tokenizer* tokenizer,
                           const GeneratorOptions& options) {
  if (replicas.empty()) throw Error("no replica", "DataParallel", "give at least one model");
  for (const CausalLM* model : replicas)
    generators_.push_back(std::make_unique<Generator>(*model, tokenizer, options));
}

std::vector<GenerationResult> DataParallel::generate(std::span<const GenerationRequest> requests) {
  struct Share {
    std::size_t work = 0;
    std::vector<std::size_t> places;  // in `requests`
    std::vector<GenerationRequest> requests;
    std::exception_ptr error;
  };
  std::vector<Share> shares(size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Share& least = *std::ranges::min_element(shares, {}, &Share::work);
    least.work += work(requests[i]) + 1;
    least.places.push_back(i);
    least.requests.push_back(requests[i]);
  }
  std::vector<GenerationResult> results(requests.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t r = 0; r < size(); ++r) {
      if (shares[r].places.empty()) continue;
      threads.emplace_back([&share = shares[r], &generator = *generators_[r], &results] {
        try {
          std::vector<GenerationResult> own = generator.generate(share.requests);
          for (std::size_t i = 0; i < own.size(); ++i) results[share.places[i]] = std::move(own[i]);
        } catch (...) { share.error = std::current_exception(); }
      });
    }
  }
  for (const Share& share : shares) {
    if (share.error) std::rethrow_exception(share.error);
  }
  return results;
}

}  // namespace ttt::inline v2
