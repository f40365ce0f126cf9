#include "ttt/debug/capture.h"

#include <charconv>
#include <utility>

namespace ttt::inline v2::debug {

constexpr std::string_view layers = "layers.";

std::string full_name(std::string_view name, int layer) {
  if (layer < 0) return std::string(name);
  std::string full = std::string(layers) + std::to_string(layer);
  return name.empty() ? full : full + "." + std::string(name);
}

int layer_of(std::string_view name) {
  if (!name.starts_with(layers)) return -1;
  name.remove_prefix(layers.size());
  int layer = -1;
  std::from_chars(name.data(), name.data() + name.size(), layer);
  return layer;
}

Capture::Capture(Selection selection)
    : selection_(std::move(selection)),
      scope_([this](const Tensor& x, std::string_view name, int layer) { keep(x, name, layer); }) {}

void Capture::keep(const Tensor& x, std::string_view name, int layer) {
  std::string full = full_name(name, layer);
  if (selection_ && !selection_(full)) return;
  if (const int times = ++seen_[full]; times > 1) full += "@" + std::to_string(times);
  const std::int64_t features = x.dim(-1);
  std::vector<float> values = to_host(x);
  const std::int64_t rows = features > 0 ? static_cast<std::int64_t>(values.size()) / features : 0;
  const auto [found, first] = at_.emplace(full, kept_.size());
  if (first) {
    kept_.push_back({.tap = full, .rows = rows, .features = features, .values = std::move(values)});
    return;
  }
  Intermediate& known = kept_[found->second];
  if (known.features != features) return;  // scores against a growing context have no common width
  known.rows += rows;
  known.values.insert(known.values.end(), values.begin(), values.end());
}

}  // namespace ttt::inline v2::debug
