// Composed fallbacks: each fused op made of simpler ones, computed in float32 and rounded once at the end.
// They are the specification of the ops, what runs where a backend has no kernel, and the oracle of the
// kernels' tests.
#pragma once

#include "ttt/ops/op_call.h"

namespace ttt::inline v2::ops::composed {

// Whether the call has a fallback; the others are primitives, which a backend must implement (docs/ops.md).
bool has(const OpCall&);

// Fills call.outputs by simpler ops. Precondition: has(call), operands checked, output_specs set.
void run(OpCall& call);

// The part of run() that composed_recurrent.cpp holds.
void recurrent(OpCall& call);

// While one lives, every op that this thread calls through ops.h and that has a fallback is composed,
// whatever kernels the backend has:   { composed::OracleScope oracle; expected = ops::rms_norm(x, {.weight =
// &w}); } The simpler ops inside a fallback run by the backend's kernels.
class OracleScope {
 public:
  OracleScope();
  ~OracleScope();
  OracleScope(const OracleScope&) = delete;
  OracleScope& operator=(const OracleScope&) = delete;
};
bool forced();  // inside an OracleScope, outside of a fallback

}  // namespace ttt::inline v2::ops::composed
