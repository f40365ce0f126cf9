#include "testing/driver.h"

#include <algorithm>

#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

Driver::Driver(const CausalLM& model, std::size_t sequences, std::size_t length, int block_size)
    : model_(model), lengths_(sequences, 0) {
  const auto n = static_cast<std::int32_t>(sequences);
  width_ = static_cast<std::int32_t>((length + static_cast<std::size_t>(block_size) - 1) /
                                     static_cast<std::size_t>(block_size));
  const KvGeometry geometry{.blocks = std::int64_t{n} * width_, .block_size = block_size, .slots = n};
  state_ = model.allocate(geometry);
  for (std::int32_t s = 0; s < n; ++s) {
    for (std::int32_t b = 0; b < width_; ++b) tables_.push_back((width_ - 1 - b) * n + s);
  }
  for (const KvLayerSpec& layer : model.kv_layers())
    kv_bytes_ += layer.bytes_per_position() * static_cast<std::size_t>(geometry.blocks * geometry.block_size);
}

StepOutput Driver::feed(std::span<const std::span<const std::int32_t>> tokens, Want want) {
  std::vector<std::int32_t> ids, row_begin{0}, context, tables, slots, wanted;
  for (std::size_t s = 0; s < tokens.size(); ++s) {
    if (tokens[s].empty()) continue;
    if (want == Want::all_rows) {
      for (std::size_t i = 0; i < tokens[s].size(); ++i)
        wanted.push_back(static_cast<std::int32_t>(ids.size() + i));
    }
    ids.insert(ids.end(), tokens[s].begin(), tokens[s].end());
    if (want == Want::last_rows) wanted.push_back(static_cast<std::int32_t>(ids.size()) - 1);
    row_begin.push_back(static_cast<std::int32_t>(ids.size()));
    context.push_back(lengths_[s]);
    const auto row = tables_.begin() + static_cast<std::ptrdiff_t>(s) * width_;
    tables.insert(tables.end(), row, row + width_);
    slots.push_back(static_cast<std::int32_t>(s));
  }
  const Batch batch{.tokens = ids,
                    .row_begin = row_begin,
                    .context = context,
                    .block_tables = tables,
                    .table_width = width_,
                    .slots = slots,
                    .logit_rows = wanted};
  StepOutput output = model_.step(batch, *state_);
  for (std::size_t s = 0; s < tokens.size(); ++s) lengths_[s] += static_cast<std::int32_t>(tokens[s].size());
  return output;
}

void Driver::reset() { std::ranges::fill(lengths_, 0); }

void Driver::forget(std::size_t count) {
  for (std::int32_t& length : lengths_) length -= static_cast<std::int32_t>(count);
}

std::size_t max_context(const CausalLM& model) {
  return static_cast<std::size_t>(std::max(model.spec().max_positions, 0));
}

void require_numbers(const CausalLM& model, const char* what) {
  if (!model.device().computes())
    throw Error(std::string(what) + " needs numbers, which the device does not compute",
                std::string(model.device().name()), "use --backend cpu");
}

}  // namespace ttt::inline v2::testing
