// Traces: calls that a device records once and runs again without being told each of them, on the same
// buffers. A capability that few backends have: TTNN on a card has it, a mock cluster and the processor have
// not.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

class Trace {
 public:
  virtual ~Trace();
  virtual void replay() = 0;  // enqueues the recorded calls; does not wait for them
};

class StepTraces;

// What a backend that can record derives from besides Backend. It asks steps() in its run(), write() and
// read() first.
class Tracer {
 public:
  virtual ~Tracer();
  virtual bool can_trace() const = 0;
  // Runs `work` while the device records its calls and runs none of them. It neither reads nor writes, its
  // programs are built. Error where the device cannot record it.
  virtual std::unique_ptr<Trace> record(const std::function<void()>& work) = 0;
  // The memory of `promised`, which allocate() gave, is `made`'s from here on.
  virtual void bind(const Tensor& promised, const Tensor& made) = 0;
  virtual StepTraces& steps() = 0;
};

bool can_trace(const Backend&);

// A step could not be recorded; nothing of it has run. It is to be run once more, and will not wait then.
class TraceRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The part of a step from its first write to the read of what it made, on a device that can trace. Equal keys
// promise equal calls: the first step of a key runs plainly, so that programs are built; from the second on
// calls wait for the read, to be recorded or, where the trace of an earlier step holds the same calls,
// replayed after this step's inputs are written over that one's. Calls that differ from the recorded ones run
// plainly, so a wrong key costs time and no correctness. Steps do not overlap on a device.
class TracedStep {
 public:
  TracedStep(Backend&, const std::string& key);  // Error where !can_trace
  ~TracedStep();
  TracedStep(const TracedStep&) = delete;
  TracedStep& operator=(const TracedStep&) = delete;

 private:
  StepTraces& steps_;
};

}  // namespace ttt::inline v2
