#include "ttt/ops/trace.h"

#include "ttt/base/error.h"

namespace ttt::inline v2 {

Trace::~Trace() = default;
Tracer::~Tracer() = default;

bool can_trace(const Backend& backend) {
  const auto* tracer = dynamic_cast<const Tracer*>(&backend);
  return tracer != nullptr && tracer->can_trace();
}

std::unique_ptr<Trace> record(Backend& backend, const std::function<void()>& work) {
  if (!can_trace(backend)) {
    throw Error("the device cannot record a trace", backend.description(),
                "run the calls one by one, or use a card");
  }
  return dynamic_cast<Tracer&>(backend).record(work);
}

}  // namespace ttt::inline v2
