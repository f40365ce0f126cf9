#include "model/step_traces.h"

#include <algorithm>

namespace ttt::inline v2 {

namespace {

// Each holds memory for its intermediates or, on a card, its commands.
constexpr std::size_t most_traces = 8;

// f(buffer) for all memory of the state, in one order.
template <class F>
void for_each_buffer(const State& state, F&& f) {
  for (const auto& [key, cache] : state.kv)
    f(cache.k.buffer_ptr()), f(cache.v.buffer_ptr()), f(cache.indexer.buffer_ptr());
  for (const auto& [key, slots] : state.recurrent) {
    for (const auto& [name, tensor] : slots) f(tensor.buffer_ptr());
  }
}

}  // namespace

std::vector<std::shared_ptr<Buffer>> memory_of(const State& state) {
  std::vector<std::shared_ptr<Buffer>> memory;
  for_each_buffer(state, [&](const std::shared_ptr<Buffer>& buffer) { memory.push_back(buffer); });
  return memory;
}

bool TracedStep::is_of(const State& state) const {
  if (!trace) return false;
  std::size_t i = 0;
  bool same = true;
  for_each_buffer(state, [&](const std::shared_ptr<Buffer>& buffer) {
    same = same && i < memory.size() && memory[i] == buffer;
    ++i;
  });
  return same && i == memory.size();
}

void TracedStep::forget() {
  trace.reset();
  inputs.clear(), memory.clear();
  built = {};
}

StepTraces& StepTraces::of(State& state) {
  if (!state.traces) state.traces = std::make_shared<StepTraces>();
  return *static_cast<StepTraces*>(state.traces.get());
}

TracedStep& StepTraces::find(const StepKey& key) {
  auto found = std::ranges::find_if(known_, [&](const auto& step) { return step->key == key; });
  if (found == known_.end()) {
    if (known_.size() == most_traces)
      known_.erase(std::ranges::min_element(known_, {}, [](const auto& step) { return step->last_used; }));
    known_.push_back(std::make_unique<TracedStep>());
    found = std::prev(known_.end());
    (*found)->key = key;
  }
  (*found)->last_used = ++clock_;
  return **found;
}

}  // namespace ttt::inline v2
