#include "testing/divergence.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "testing/driver.h"
#include "ttt/debug/tap.h"

namespace ttt::inline v2::testing {

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

std::string to_string(const TapResult& r) {
  return r.tap + " (largest error " + short_number(r.error) + ", PCC " + short_number(r.pcc) + ")";
}

std::string full_name(std::string_view tap, int layer) {
  std::string full(tap);
  if (layer >= 0) full = "layers." + std::to_string(layer) + (full.empty() ? "" : "." + full);
  return full;
}

std::vector<TapResult> compare_taps(const CausalLM& model, const Reference& reference,
                                    const TapBound& bound) {
  std::vector<TapResult> results;
  debug::TapScope scope([&](const Tensor& x, std::string_view name, int layer) {
    const std::string full = full_name(name, layer);
    const auto theirs = full == "logits" ? std::nullopt : reference.intermediate(full);
    if (!theirs) return;
    const std::vector<float> all = to_host(x);
    if (all.size() < theirs->values.size()) return;
    const std::span<const float> ours = std::span(all).last(theirs->values.size());
    double squares = 0;
    for (float v : theirs->values) squares += static_cast<double>(v) * v;
    const double rms =
        std::sqrt(squares / static_cast<double>(std::max<std::size_t>(theirs->values.size(), 1)));
    TapResult r{.tap = full, .error = max_abs_error(ours, theirs->values), .pcc = pcc(ours, theirs->values)};
    r.good = bound.required_pcc > 0 ? r.pcc >= bound.required_pcc
                                    : r.error <= bound.tolerance * std::max(1.0, rms);
    results.push_back(std::move(r));
  });
  const std::vector<std::int32_t>& prompt = reference.input_ids();
  Driver(model, 1, prompt.size()).feed(prompt, Want::nothing);
  return results;
}

std::optional<TapResult> first_bad(const std::vector<TapResult>& results) {
  const auto bad = std::ranges::find(results, false, &TapResult::good);
  return bad == results.end() ? std::nullopt : std::optional(*bad);
}

}  // namespace ttt::inline v2::testing
