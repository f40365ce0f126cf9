// Traces: calls that a device notes once and runs again without being told each of them, on the same buffers.
// A capability of a backend: a card and the processor have it, a mock cluster and a simulated mesh have not.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

class Trace {
 public:
  virtual ~Trace();
  // Runs the calls again (a card's are enqueued and not waited for): their result. It is the caller's own, or
  // holds until the next replay where others share it.
  virtual Tensor replay() = 0;
};

// The calls could not be recorded; none of them has run. They are to be made once more, without a trace.
class TraceRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What a backend that can record derives from besides Backend.
class Tracer {
 public:
  virtual ~Tracer();
  virtual bool can_trace() const = 0;
  // The widest step that gains by a trace.
  virtual std::int64_t most_traced_rows() const { return std::numeric_limits<std::int64_t>::max(); }
  // The device notes the calls, writes and reads from here on. One trace at a time.
  virtual void begin_trace() = 0;
  // Ends it; the calls have run, and `result`, until the first replay, is what they made. A replay makes it
  // of what the host has written into `inputs` meanwhile. Null where there can be none: something else was
  // written, or something read, so that calls may follow from more than the inputs, or somebody holds more of
  // what they made than the result. May throw TraceRefused.
  virtual std::unique_ptr<Trace> end_trace(std::span<const Tensor> inputs, const Tensor& result) = 0;
  virtual void drop_trace() noexcept = 0;  // ends it; calls that have not run are forgotten
};

bool can_trace(const Backend&);

// Notes calls for its lifetime, on a device that can trace (Error otherwise).
class Recording {
 public:
  explicit Recording(Backend&);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  std::unique_ptr<Trace> end(std::span<const Tensor> inputs, const Tensor& result);  // Tracer::end_trace

 private:
  Tracer* tracer_;
};

// For Tracers: what the host writes and reads while they record.
class HostTraffic {
 public:
  void wrote(const Tensor& t) { written_.push_back(t.buffer_ptr()); }
  void read() { read_ = true; }
  bool only(std::span<const Tensor> inputs) const;  // nothing was read, nothing but these written
  void clear() { written_.clear(), read_ = false; }

 private:
  std::vector<std::shared_ptr<Buffer>> written_;
  bool read_ = false;
};

}  // namespace ttt::inline v2
