#include "ttt/modules/module.h"

#include <algorithm>

namespace ttt::inline v2 {

Backend& Home::backend() const { return device ? *device : *default_device(); }

LazyWeight Home::bind(const LazyWeight& weight, DataType dtype, const MemoryConfig& memory,
                      const Sharding& sharding) const {
  if (!weight) return {};
  LazyWeight result = weight.bind(backend(), dtype, memory, cache, sharding);
  if (bound) bound->push_back(result);
  return result;
}

const Step::RowPlaces& Step::row_places() const {
  if (!row_places_.positions) {
    std::vector<std::int32_t> rows(positions.size());
    for (const SequenceRows& sequence : sequences)
      std::fill_n(rows.begin() + sequence.first, sequence.count,
                  static_cast<std::int32_t>(sequence.page_row));
    row_places_ = {from_host(*device, positions, {tokens}), from_host(*device, rows, {tokens})};
  }
  return row_places_;
}

void tap(const Tensor& x, const ModuleName& module, std::string_view part) {
  if (!debug::tapping()) [[likely]]
    return;
  // The listener gets the layer as a number and the rest of the path as the name.
  std::string_view name = module.path;
  if (module.layer >= 0) {
    const std::string prefix = "layers." + std::to_string(module.layer);
    if (name.starts_with(prefix)) name.remove_prefix(std::min(name.size(), prefix.size() + 1));
  }
  std::string full(name);
  if (!part.empty()) full += (full.empty() ? "" : ".") + std::string(part);
  debug::tap(x, full, module.layer);
}

}  // namespace ttt::inline v2
