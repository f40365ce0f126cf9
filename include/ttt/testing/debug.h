// Debug mode: what a model computes on the way, kept, and compared with a reference or with the same model
// run otherwise. Both walk the intermediates in the order of execution, so the first one that differs names
// the module to look at (docs/debugging.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/debug/capture.h"
#include "ttt/debug/check.h"
#include "ttt/debug/statistics.h"
#include "ttt/model/causal_lm.h"
#include "ttt/testing/reference.h"

namespace ttt::inline v2::testing {

// `patterns`, separated by commas, are matched with a tap's name inside its layer ("attn.*", "ffn") and with
// the whole one ("layers.*.attn", "norm"); '*' matches any characters. `layers` is "3", "0-3" or "0,5-7"; it
// leaves out what is in no layer. Empty: all. Error when `layers` can not be read.
debug::Capture::Selection select_taps(std::string_view patterns, std::string_view layers);

struct DebugOptions {
  debug::Capture::Selection taps{};  // empty: all
  std::size_t decode = 0;  // the last so many tokens of the prompt are fed one by one, not in prefill
  bool hunt = true;        // search the result of every operation for NaN and infinities
  // Runs modules on other inputs than what comes out of the modules before: by the name under which an input
  // is shown ("layers.3.attn.in"), the rows of the whole prompt. Null: the module's own input.
  std::function<const Reference::Intermediate*(std::string_view tap)> inputs{};
};

struct DebugRun {
  std::string precision, device;
  std::vector<std::int32_t> prompt;
  // In the order of execution; "logits" of all rows is the last.
  std::vector<debug::Intermediate> taps;
  // The operations that made NaN or infinities out of finite operands, the first ones first, at most 16.
  std::vector<debug::NonFinite> non_finite;
  const debug::Intermediate* find(std::string_view tap) const;
};

// Error: no tokens, tokens outside of the vocabulary, more than the model's context, a device that does not
// compute; other inputs on a mesh.
DebugRun debug_run(const CausalLM&, std::span<const std::int32_t> prompt, const DebugOptions& = {});

// As a reference file (docs/references.md), so that whatever reads one reads this too.
void write_reference(const DebugRun&, const std::filesystem::path&,
                     std::map<std::string, std::string> metadata = {});

// ---------------------------------------------------------------- comparison

// What an intermediate must reach: required_pcc where that is above 0, else errors within `tolerance` of its
// root mean square, or of 1 where that is smaller.
struct TapBound {
  double tolerance = 2e-3, required_pcc = 0;
};
// What runs of two precisions may be expected to reach against each other: of the lower one.
TapBound expected_bound(std::string_view precision, std::string_view other = "f32");
std::string to_string(
    const TapBound&);  // "errors up to 0.002 of the root mean square", "PCC of at least 0.99"

// One intermediate beside its counterpart.
struct TapDifference {
  std::string tap;
  std::int64_t rows = 0, features = 0;  // compared: the last rows of the prompt
  double error = 0, pcc = 0;            // largest absolute error, infinity with a NaN; correlation
  double relative = 0;                  // root mean square of the error over that of the counterpart
  bool good = false;
  TapBound bound{};       // that it had to reach
  std::string problem{};  // why nothing could be compared: shapes that differ
  // Of the largest error.
  std::int64_t row = 0, feature = 0;
  float ours = 0, theirs = 0;
  // With CompareOptions::details: per row, the relative error; and the errors themselves.
  std::vector<float> row_errors{};
  debug::Statistics errors{};
};
// "layers.3.attn (largest error 0.12, PCC 0.98)"
std::string to_string(const TapDifference&);

struct CompareOptions {
  DebugOptions debug{.taps = {}, .decode = 0, .hunt = false};
  TapBound bound{};
  bool logits = true;    // also these
  bool details = false;  // row_errors and errors
  // Every mixer and every feed-forward runs on the counterpart's input where that has one, and not on what
  // the modules before made of it: what differs is the module's own.
  bool isolate = false;
  // Of a tap, in place of `bound`; see instance_bounds() (testing/expectations.h).
  std::function<std::optional<TapBound>(std::string_view tap)> bounds{};
};

struct Comparison {
  std::string ours, theirs;  // what ran: "bf16, cpu: avx512_bf16, 2 threads"; the reference's file name
  TapBound bound{};
  std::size_t isolated = 0;  // modules that ran on the counterpart's input
  std::vector<std::int32_t> prompt;
  std::vector<TapDifference> taps;            // what both have, in the order of execution
  std::vector<std::string> missing, unknown;  // what only the counterpart has, what only the model has
  std::vector<debug::NonFinite> non_finite;   // of the model; looked for with DebugOptions::hunt
  const TapDifference* first() const;         // that is not good
  std::string expected() const;               // what was, in words
  // The one whose relative error grows most over what was there before, or is the largest where modules are
  // isolated: where a difference that creeps in comes from. Null: nothing grows.
  const TapDifference* steepest() const;
};

// Runs the prompt of the reference. What it has no intermediate for is not compared. Error: a prompt that the
// model can not run; nothing to isolate by (no input of a module, of the whole prompt).
Comparison compare(const CausalLM&, const Reference&, const CompareOptions& = {});
// The same against another model, or the same one loaded otherwise.
Comparison compare(const CausalLM&, const CausalLM& other, std::span<const std::int32_t> prompt,
                   const CompareOptions& = {});

}  // namespace ttt::inline v2::testing
