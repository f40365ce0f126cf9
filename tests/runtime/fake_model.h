// A CausalLM without a network: its "KV cache" holds the token ids themselves, and the logits of a row are a
// hash of the tokens that it finds there through its block table. Whatever goes wrong with blocks, contexts,
// slots, chunks or reuse changes its output.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "ttt/model/causal_lm.h"
#include "ttt/runtime/sampler.h"

namespace ttt::test {

class FakeModel : public CausalLM {
 public:
  struct Settings {
    int vocab = 11;
    int max_positions = 4096;
    Capabilities can{};
    bool recurrent = false;  // keeps a hash per slot in place of a cache
    int period = 0;          // > 0: the token `period` places before is likely
    float spread = 3;        // of the logits
    // Not empty: the greedy output is this, whatever the prompt of `script_prompt` tokens.
    std::vector<std::int32_t> script{};
    std::size_t script_prompt = 0;
    std::function<void(const Batch&)> on_step{};                // may throw
    std::int32_t nan_after = -1;                                // the row of this token has a NaN
    std::size_t max_sequences = 1 << 20, max_tokens = 1 << 20;  // checked in every step
  };

  FakeModel() : FakeModel(Settings{}) {}
  explicit FakeModel(Settings options) : options_(std::move(options)) {
    spec_.vocab = options_.vocab;
    spec_.dim = 1;
    spec_.max_positions = options_.max_positions;
  }

  const ModelSpec& spec() const override { return spec_; }
  const Target& target() const override { return target_; }
  Backend& device() const override { throw std::logic_error("the fake has no device"); }
  Capabilities capabilities() const override { return options_.can; }
  std::vector<KvLayerSpec> kv_layers() const override {
    if (options_.recurrent) return {};
    return {{.layer = 0, .kv_heads = 1, .head_dim = 1, .v_head_dim = 1, .dtype = DataType::f32}};
  }
  std::unique_ptr<State> allocate(const KvGeometry& geometry) const override {
    auto state = std::make_unique<State>();
    state->blocks = geometry.blocks, state->block_size = geometry.block_size, state->slots = geometry.slots;
    Storage& storage = storage_[state.get()];
    storage = {};
    if (!options_.recurrent)
      storage.pages.assign(static_cast<std::size_t>(geometry.blocks * geometry.block_size), -1);
    storage.slots.assign(static_cast<std::size_t>(geometry.slots), 0);
    return state;
  }
  void load_weights(const std::function<void(std::size_t, std::size_t)>&) const override {}
  std::size_t weight_bytes() const override { return 0; }
  std::string plan_json() const override { return "{}"; }

  // Logits after the tokens, from themselves.
  std::vector<float> logits(std::span<const std::int32_t> tokens) const {
    std::uint64_t h = 0;
    for (const std::int32_t token : tokens) h = mix(h, token);
    return logits(h, tokens);
  }

  StepOutput step(const Batch& batch, State& state) const override {
    if (options_.on_step) options_.on_step(batch);
    check(batch, state);
    ++steps;
    Storage& storage = storage_.at(&state);
    StepOutput output{
        .rows = static_cast<std::int64_t>(batch.logit_rows.size()), .vocab = options_.vocab, .logits = {}};
    std::vector<std::vector<std::int32_t>> histories(batch.tokens.size());
    std::vector<std::uint64_t> hashes(batch.tokens.size(), 0);
    for (std::size_t s = 0; s < batch.sequences(); ++s) {
      const auto begin = batch.row_begin[s], end = batch.row_begin[s + 1];
      const auto slot = static_cast<std::size_t>(batch.slots[s]);
      if (batch.context[s] == 0) storage.slots[slot] = 0;
      for (auto row = begin; row < end; ++row) {
        const std::int32_t position = batch.context[s] + row - begin,
                           token = batch.tokens[static_cast<std::size_t>(row)];
        const auto r = static_cast<std::size_t>(row);
        if (options_.recurrent) {
          hashes[r] = storage.slots[slot] = mix(storage.slots[slot], token);
          continue;
        }
        const auto at = [&](std::int32_t p) -> std::int32_t& {
          const auto block = batch.block_tables[s * static_cast<std::size_t>(batch.table_width) +
                                                static_cast<std::size_t>(p / state.block_size)];
          return storage.pages[static_cast<std::size_t>(block * state.block_size + p % state.block_size)];
        };
        at(position) = token;
        for (std::int32_t p = 0; p <= position; ++p) {
          histories[r].push_back(at(p));
          hashes[r] = mix(hashes[r], at(p));
        }
      }
    }
    std::vector<float> wanted;
    for (const std::int32_t row : batch.logit_rows) {
      const auto r = static_cast<std::size_t>(row);
      std::vector<float> values = logits(hashes[r], histories[r]);
      if (batch.tokens[r] == options_.nan_after) values[1] = std::nanf("");
      wanted.insert(wanted.end(), values.begin(), values.end());
    }
    output.logits = std::move(wanted);
    return output;
  }

  mutable int steps = 0;
  mutable std::size_t most_sequences = 0, most_tokens = 0;

 private:
  struct Storage {
    std::vector<std::int32_t> pages;
    std::vector<std::uint64_t> slots;
  };

  static std::uint64_t mix(std::uint64_t h, std::int64_t token) {
    h = (h + static_cast<std::uint64_t>(token) + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 29;
  }

  std::vector<float> logits(std::uint64_t h, std::span<const std::int32_t> history) const {
    std::vector<float> values(static_cast<std::size_t>(options_.vocab));
    for (std::size_t v = 0; v < values.size(); ++v) {
      std::uint64_t x = mix(h, static_cast<std::int64_t>(v));
      x = (x ^ x >> 31) * 0x94D049BB133111EBu;
      values[v] = options_.spread * (static_cast<float>(x >> 40) * 0x1p-23f - 1.0f);
    }
    const auto period = static_cast<std::size_t>(options_.period);
    if (period > 0 && history.size() >= period)
      values[static_cast<std::size_t>(history[history.size() - period])] += 1.9f * options_.spread;
    if (!options_.script.empty() && history.size() >= options_.script_prompt) {
      const std::size_t next = history.size() - options_.script_prompt;
      if (next < options_.script.size()) values[static_cast<std::size_t>(options_.script[next])] = 100;
    }
    return values;
  }

  void check(const Batch& batch, const State& state) const {
    const std::size_t n = batch.sequences();
    most_sequences = std::max(most_sequences, n);
    most_tokens = std::max(most_tokens, batch.tokens.size());
    EXPECT_LE(n, options_.max_sequences);
    EXPECT_LE(batch.tokens.size(), options_.max_tokens);
    ASSERT_GT(n, 0u);
    ASSERT_EQ(batch.row_begin.size(), n + 1);
    ASSERT_EQ(batch.row_begin.back(), static_cast<std::int32_t>(batch.tokens.size()));
    ASSERT_EQ(batch.block_tables.size(), n * static_cast<std::size_t>(batch.table_width));
    EXPECT_TRUE(std::is_sorted(batch.logit_rows.begin(), batch.logit_rows.end()));
    std::set<std::int32_t> slots, written, seen;
    bool single = true, all_single = true, none_single = true;
    for (std::size_t s = 0; s < n; ++s) {
      const std::int32_t count = batch.row_begin[s + 1] - batch.row_begin[s], context = batch.context[s];
      ASSERT_GT(count, 0);
      EXPECT_TRUE(single || count > 1) << "single rows come first";
      single = count == 1;
      all_single = all_single && single, none_single = none_single && !single;
      ASSERT_GE(batch.slots[s], 0);
      ASSERT_LT(batch.slots[s], state.slots);
      EXPECT_TRUE(slots.insert(batch.slots[s]).second) << "a slot of two sequences";
      EXPECT_LE(context + count, options_.max_positions);
      ASSERT_LE((context + count + state.block_size - 1) / state.block_size, batch.table_width);
      std::set<std::int32_t> own;
      for (std::int32_t i = 0; i * state.block_size < context + count; ++i) {
        const std::int32_t block =
            batch.block_tables[s * static_cast<std::size_t>(batch.table_width) + static_cast<std::size_t>(i)];
        ASSERT_GE(block, 0);
        ASSERT_LT(block, state.blocks);
        EXPECT_TRUE(own.insert(block).second) << "a block twice in one table";
        const bool writes = (i + 1) * state.block_size > context;
        EXPECT_FALSE(written.contains(block)) << "a block that another sequence writes";
        if (writes) { EXPECT_FALSE(seen.contains(block)) << "writes a block that another sequence reads"; }
      }
      for (std::int32_t i = 0; i * state.block_size < context + count; ++i) {
        const std::int32_t block =
            batch.block_tables[s * static_cast<std::size_t>(batch.table_width) + static_cast<std::size_t>(i)];
        seen.insert(block);
        if ((i + 1) * state.block_size > context) written.insert(block);
      }
    }
    if (!options_.can.mixed_step) { EXPECT_TRUE(all_single || none_single) << "a mixed step"; }
  }

  Settings options_;
  ModelSpec spec_;
  Target target_{};
  mutable std::map<const State*, Storage> storage_;
};

// What a request answers when it is alone, without a generator: ids, the end id included.
inline std::vector<std::int32_t> reference_output(const FakeModel& model,
                                                  std::span<const std::int32_t> prompt,
                                                  const SamplingParams& params,
                                                  std::span<const std::int32_t> end_ids = {}) {
  std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
  Penalties penalties(params, prompt);
  Sampler sampler;
  const auto ends = [&](std::int32_t id) {
    return std::find(params.stop_token_ids.begin(), params.stop_token_ids.end(), id) !=
               params.stop_token_ids.end() ||
           (!params.ignore_eos && std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end());
  };
  for (int i = 0; i < params.max_new_tokens; ++i) {
    std::vector<float> logits = model.logits(tokens);
    if (i < params.min_new_tokens)
      for (std::size_t v = 0; v < logits.size(); ++v)
        if (ends(static_cast<std::int32_t>(v))) logits[v] = -INFINITY;
    for (const auto& [id, bias] : params.logit_bias) logits[static_cast<std::size_t>(id)] += bias;
    penalties.apply(logits);
    const auto token = sampler.sample(
        logits, params, counter_uniform(params.seed.value_or(0), static_cast<std::uint64_t>(i)));
    tokens.push_back(token);
    penalties.add(token);
    if (ends(token)) break;
  }
  return {tokens.begin() + static_cast<std::ptrdiff_t>(prompt.size()), tokens.end()};
}

}  // namespace ttt::test
