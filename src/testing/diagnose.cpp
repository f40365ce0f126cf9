#include "testing/diagnose.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>

#include "testing/driver.h"
#include "testing/hypotheses.h"
#include "ttt/base/error.h"
#include "ttt/testing/debug.h"

namespace ttt::inline v2::testing {

namespace {

// How far a network agrees with the reference.
struct Agreement {
  std::size_t rank =
      0;           // of the first tap that is off, in the order of the network as it stood; larger is better
  int layer = -1;  // of that tap
  std::string area;  // and the part of a layer that it belongs to
  double error = 0;  // of the logits
  bool all = false;  // logits agree
};

std::string area_of(const std::string& tap) {
  for (const char* area : {"norm", "attn", "ffn"}) {
    if (tap.find(area) != std::string::npos && tap != "norm") return area;
  }
  return tap.starts_with("layers.") ? "attn" : tap == "embed" ? "embed" : "head";
}

using Clock = std::chrono::steady_clock;

class Search {
 public:
  Search(const std::filesystem::path& path, const HfConfig& config, const Reference& reference,
         const LoadOptions& options, double tolerance, double seconds)
      : path_(path),
        config_(config),
        reference_(reference),
        options_(options),
        tolerance_(tolerance),
        end_(Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(std::min(seconds, 1e6)))) {}

  Diagnosis run(Description d) {
    Diagnosis result;
    constexpr int rounds = 3;  // mistakes come in company
    for (int round = 0; round < rounds; ++round) {
      const std::optional<Agreement> now = measure(d, 0);
      if (!now || now->all) break;
      std::optional<Hypothesis> best;
      Agreement reached = *now;
      for (Hypothesis& h : hypotheses(d, config_, now->layer, now->area)) {
        // Once one agrees, only its own kind is of interest: another value may agree better.
        if (reached.all && kind_of(h.cause) != kind_of(best->cause)) continue;
        if (Clock::now() > end_) {
          result.out_of_time = true;
          break;
        }
        ++result.tried;
        // The layers up to the difference tell most hypotheses apart; what passes them is run in full.
        if (now->layer >= 0) {
          const auto part = measure(h.changed, now->layer + 1);
          if (!part || part->rank <= now->rank) continue;
        }
        const std::optional<Agreement> whole = measure(h.changed, 0);
        if (!whole || !better(*whole, reached)) continue;
        reached = *whole;
        best = std::move(h);
      }
      if (!best) break;
      result.changes.push_back(best->cause);
      result.suffices = reached.all;
      if (reached.all || result.out_of_time) break;
      d = std::move(best->changed);
    }
    return result;
  }

 private:
  // "RoPE theta" of "RoPE theta: 5e+05 instead of 1e+04".
  static std::string kind_of(const std::string& cause) { return cause.substr(0, cause.find(':')); }

  static bool better(const Agreement& a, const Agreement& b) {
    if (a.all != b.all) return a.all;
    if (a.all) return a.error < 0.5 * b.error;
    if (a.rank != b.rank) return a.rank > b.rank;
    return a.rank == std::numeric_limits<std::size_t>::max() && a.error < 0.5 * b.error;
  }

  // Unset: the change makes no network that runs.
  std::optional<Agreement> measure(const Description& d, int layers) {
    LoadOptions options = options_;
    options.layers = layers;
    try {
      const LoadedModel loaded = load(path_, d, options);
      const std::vector<TapDifference> taps =
          compare(*loaded.model, reference_, {.bound = {.tolerance = tolerance_}, .logits = false}).taps;
      if (order_.empty()) {
        for (const TapDifference& tap : taps) order_.push_back(tap.tap);
      }
      // The final norm of a network that was cut short is another one.
      Agreement a{.rank = std::numeric_limits<std::size_t>::max()};
      for (const TapDifference& tap : taps) {
        if (tap.good || (layers > 0 && debug::layer_of(tap.tap) < 0 && tap.tap != "embed")) continue;
        const auto rank = static_cast<std::size_t>(std::ranges::find(order_, tap.tap) - order_.begin());
        if (rank >= a.rank) continue;
        a.rank = rank;
        a.layer = debug::layer_of(tap.tap);
        a.area = area_of(tap.tap);
      }
      if (layers > 0) return a;
      const std::vector<std::int32_t>& prompt = reference_.input_ids();
      const std::vector<float> logits =
          Driver(*loaded.model, 1, prompt.size()).feed(prompt, Want::all_rows).logits;
      if (logits.size() != reference_.logits().size()) return {};
      a.error = max_abs_error(logits, reference_.logits());
      a.all = a.error <= tolerance_;
      if (a.rank == std::numeric_limits<std::size_t>::max()) a.area = taps.empty() ? "attn" : "head";
      return a;
    } catch (const Error&) { return {}; }
  }

  const std::filesystem::path& path_;
  const HfConfig& config_;
  const Reference& reference_;
  LoadOptions options_;
  double tolerance_;
  Clock::time_point end_;
  std::vector<std::string> order_;
};

}  // namespace

Diagnosis diagnose(const std::filesystem::path& path, const Description& d, const HfConfig& config,
                   const Reference& reference, const LoadOptions& options, double tolerance, double seconds) {
  return Search(path, config, reference, options, tolerance, seconds).run(d);
}

}  // namespace ttt::inline v2::testing
