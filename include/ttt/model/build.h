// From a spec to a network that runs: blocks, and the open end for modules of a model's own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "ttt/model/causal_lm.h"
#include "ttt/model/spec.h"
#include "ttt/modules/attention.h"
#include "ttt/modules/module.h"

namespace ttt::inline v2 {

// What mixes tokens: attention, or a model's own. The only part of a block that sees sequences.
class Mixer {
 public:
  virtual ~Mixer();
  virtual Tensor forward(const Tensor& x, const Step&) const = 0;  // [1, 1, tokens, dim] both
  virtual void print(PlanRows&) const = 0;
};

// What works on each token by itself.
class FeedForward {
 public:
  virtual ~FeedForward();
  virtual Tensor forward(const Tensor& x, const Step&) const = 0;
  virtual void print(PlanRows&) const = 0;
};

class Block {
 public:
  virtual ~Block();
  virtual Tensor forward(const Tensor& x, const Step&) const = 0;
  virtual void print(PlanRows&) const = 0;
};

// Slots of custom modules: a linear map as stored [out, in], a vector, a small table that stays in float32.
inline WeightSlot matrix_slot(std::string name, std::int64_t rows, std::int64_t cols) {
  return {.name = std::move(name), .rows = rows, .cols = cols};
}
inline WeightSlot table_slot(std::string name, std::int64_t rows, std::int64_t cols) {
  return {.name = std::move(name), .role = WeightRole::vector, .rows = rows, .cols = cols};
}
inline WeightSlot vector_slot(std::string name, std::int64_t n) { return table_slot(std::move(name), 1, n); }

// What a module of a model's own is built from. The references end with the factory's call: copy what is
// kept.
struct BuildContext {
  const ModelSpec& spec;
  ModuleName name;  // "layers.3.attn"
  const Target& target;
  const Home& home;
  // A weight of this module by the name relative to it, as its CustomSpec declares; undefined when an
  // optional one is absent.
  std::function<LazyWeight(std::string_view)> weight;
  // A module of the core as a part of this one: its weights are weight_slots(spec, dim, part), its state
  // (and, for an attention, its cache) that of this layer. An empty part: this module itself.
  std::function<std::unique_ptr<Mixer>(const MixerSpec&, std::string_view part)> mixer;
  std::function<std::unique_ptr<FeedForward>(const FfnSpec&, std::string_view part)> ffn;
  std::function<Attention(const AttentionSpec&, std::string_view part)>
      attention;  // for one that takes masks

  // Parts by the names of their weights: a linear map (with its bias where one is declared), an RMS norm with
  // the network's eps, a vector or a table in float32.
  Linear linear(std::string_view part, Activation = {}, std::optional<DataType> out_dtype = {}) const;
  RmsNorm rms_norm(std::string_view part) const;
  LazyWeight vector(std::string_view part) const;
};

// Factories by the name that CustomSpec::name gives; `parameters` is the spec's JSON object. A model library
// fills one.
struct CustomModules {
  using MixerFactory =
      std::function<std::unique_ptr<Mixer>(const BuildContext&, std::string_view parameters)>;
  using FeedForwardFactory =
      std::function<std::unique_ptr<FeedForward>(const BuildContext&, std::string_view parameters)>;
  using BlockFactory =
      std::function<std::unique_ptr<Block>(const BuildContext&, std::string_view parameters)>;
  std::map<std::string, MixerFactory, std::less<>> mixers;
  std::map<std::string, FeedForwardFactory, std::less<>> feed_forwards;
  std::map<std::string, BlockFactory, std::less<>> blocks;
};

// The weight for a slot of weight_slots(spec); undefined when the slot is optional and absent.
using WeightProvider = std::function<LazyWeight(const WeightSlot&)>;

// Error when the spec is invalid, a weight is missing or misshapen, or a custom module has no factory.
std::unique_ptr<CausalLM> build(const ModelSpec&, const WeightProvider&, Target = {}, const Home& = {},
                                const CustomModules& = {});

}  // namespace ttt::inline v2
