// Data parallelism: whole replicas of a model, on the parts of a mesh (ttt/ops/submesh.h) or on
// devices of their own, with a generator and a thread each.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "ttt/runtime/generator.h"

namespace ttt::inline v2 {

class DataParallel {
 public:
  // The replicas outlive it; the options hold for each of them. Error: no replica, or as Generator.
  explicit DataParallel(std::span<const CausalLM* const> replicas, const Tokenizer* tokenizer = nullptr,
                        const GeneratorOptions& = {});

  // Each request goes to the replica that has the least to do, and stays there; all run at the same time.
  // Results in the order of the requests; an answer is the one that a single model gives. Request ids are
  // unique within a replica. Error as Generator::submit, once all replicas are done.
  std::vector<GenerationResult> generate(std::span<const GenerationRequest>);

  std::size_t size() const { return generators_.size(); }
  Generator& replica(std::size_t i) { return *generators_[i]; }

 private:
  std::vector<std::unique_ptr<Generator>> generators_;
};

}  // namespace ttt::inline v2
