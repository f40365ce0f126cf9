#include "text/token_table.h"

#include <algorithm>
#include <bit>

namespace ttt::inline v2::text {

void TokenTable::reserve(std::size_t tokens, std::size_t bytes) {
  spans_.reserve(tokens);
  bytes_.reserve(bytes);
}

void TokenTable::set(std::int32_t id, std::string_view bytes) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= spans_.size()) spans_.resize(index + 1);
  spans_[index] = {bytes_.size(), static_cast<std::uint32_t>(bytes.size()), true};
  bytes_ += bytes;
  longest_ = std::max(longest_, bytes.size());
}

void TokenTable::index(const std::vector<bool>& visible) {
  slots_.assign(std::bit_ceil(std::max<std::size_t>(spans_.size() * 2, 16)), Slot{});
  mask_ = slots_.size() - 1;
  for (std::int32_t id = 0; id < size(); ++id) {
    if (!contains(id) || (!visible.empty() && !visible[static_cast<std::size_t>(id)])) continue;
    const std::string_view bytes = bytes_of(id);
    const std::uint64_t hash = hash_bytes(bytes);
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    for (std::size_t i = hash & mask_;; i = (i + 1) & mask_) {
      Slot& slot = slots_[i];
      if (slot.id >= 0 && !(slot.tag == tag && bytes_of(slot.id) == bytes)) continue;
      slot = {id, tag};
      break;
    }
  }
}

}  // namespace ttt::inline v2::text
