// Traces: calls that a device records once and runs again without being told each of them, on the same
// buffers. A capability that few backends have: TTNN on a card has it, a mock cluster and the processor have
// not.
#pragma once

#include <functional>
#include <memory>

#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

class Trace {
 public:
  virtual ~Trace();
  virtual void replay() = 0;  // enqueues the recorded calls; does not wait for them
};

// What a backend that can record derives from besides Backend.
class Tracer {
 public:
  virtual ~Tracer();
  virtual bool can_trace() const = 0;
  virtual std::unique_ptr<Trace> record(const std::function<void()>& work) = 0;
};

bool can_trace(const Backend&);
// Runs `work` and records what it runs on the device. Its tensors must stay alive, nothing in it may read
// from or write to the host. Error where !can_trace(backend).
std::unique_ptr<Trace> record(Backend&, const std::function<void()>& work);

}  // namespace ttt::inline v2
