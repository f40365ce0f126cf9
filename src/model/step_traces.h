// The decode steps of a state that were recorded (ttt/ops/trace.h), and what a replay needs of them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/step_builder.h"
#include "ttt/ops/trace.h"

namespace ttt::inline v2 {

// Steps of equal keys make the same calls, unless their modules look at the rows on the host.
struct StepKey {
  std::uint64_t model = 0;  // its number: a later one at the same address has another
  std::size_t rows = 0;
  std::int32_t page_columns = 0;
  bool operator==(const StepKey&) const = default;
};

struct TracedStep {
  StepKey key;
  std::uint64_t last_used = 0;
  int runs = 0;
  bool refused = false;  // cannot be replayed
  BuiltStep built{};
  std::vector<StepInput> inputs{};
  std::vector<std::shared_ptr<Buffer>> memory{};  // of the state, which the calls name
  std::unique_ptr<Trace> trace{};

  bool is_of(const State&) const;  // the trace is there, and the state has the memory that it names
  void forget();
};

class StepTraces {
 public:
  // Those of the state.
  static StepTraces& of(State&);
  // What is known of such steps. Where too many are known, the one that was not used for longest is
  // forgotten.
  TracedStep& find(const StepKey&);

 private:
  std::vector<std::unique_ptr<TracedStep>> known_;
  std::uint64_t clock_ = 0;
};

// All that the state's tensors lie in.
std::vector<std::shared_ptr<Buffer>> memory_of(const State&);

}  // namespace ttt::inline v2
