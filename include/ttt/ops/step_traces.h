// For backends that can trace (ttt/ops/trace.h): the traces of a device, and the calls of a step that wait.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ttt/ops/trace.h"

namespace ttt::inline v2 {

class StepTraces {
 public:
  StepTraces(Backend& backend, Tracer& tracer) : backend_(backend), tracer_(tracer) {}
  void begin(const std::string& key);
  void end();
  void clear() { known_.clear(); }  // releases all traces, before the device closes

  // For the backend. While a step waits, run() hands the call over, and write() writes where input() says:
  // into a tensor of the recorded step, to which `t` is bound, or, where it returns null, into t itself.
  // read() announces what it is about to read. May throw TraceRefused.
  bool waits() const { return waits_; }
  void call(OpCall&);
  const Tensor* input(const Tensor& t);
  void before_read(const Tensor& t);

  std::size_t traces() const;  // held
  std::size_t replays() const { return replays_; }

 private:
  // An operand: a tensor that the step wrote or made, by number, or one from outside.
  struct Operand {
    int own = -1;
    std::weak_ptr<Buffer> outside{};  // by owner, so that no later buffer at its address is taken for it
    TensorSpec spec{};
    Shape strides{};
    std::int64_t offset = 0;
    bool operator==(const Operand&) const;
  };
  struct Seen {
    OpKind op = OpKind::binary;
    OpAttributes attributes{};
    std::vector<Operand> inputs{};
    std::vector<TensorSpec> outputs{};
    bool operator==(const Seen&) const = default;
  };
  struct Recorded {
    int runs = 0, misfits = 0;
    std::uint64_t last_used = 0;
    std::vector<Seen> calls{};
    std::vector<Tensor> inputs{};
    Tensor result{};
    int result_number = -1;
    std::unique_ptr<Trace> trace{};
  };
  struct Waiting {
    OpCall call{};
    std::array<Tensor, OpCall::max_inputs> inputs{};
    std::array<Tensor, OpCall::max_outputs> promised{};
  };

  Operand operand(const Tensor&) const;
  Seen seen(const OpCall&) const;
  void number(const Tensor& t) { numbers_.emplace(&t.buffer(), static_cast<int>(numbers_.size())); }
  void run_waiting();
  void give_up();
  void record(const Tensor& result);
  void drop_oldest();

  Backend& backend_;
  Tracer& tracer_;
  std::map<std::string, Recorded> known_;
  Recorded* current_ = nullptr;
  bool waits_ = false;
  std::uint64_t clock_ = 0;
  std::size_t replays_ = 0;
  // Of the step under way:
  std::deque<Waiting> queue_;
  std::unordered_map<const Buffer*, int> numbers_;
  std::vector<std::weak_ptr<Buffer>> promised_;
  std::vector<Tensor> inputs_;  // alive, so that no other buffer gets an input's number
  std::vector<Seen> calls_;
};

}  // namespace ttt::inline v2
