// The tokens of a vocabulary: id to bytes and bytes to id, in two flat arrays and one open-addressing table.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::text {

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Fast, not stable over machines of another byte order, not for fingerprints.
inline std::uint64_t hash_bytes(const char* data, std::size_t size) {
  constexpr std::uint64_t k0 = 0x9E3779B97F4A7C15u, k1 = 0xC2B2AE3D27D4EB4Fu;
  std::uint64_t hash = k0 ^ size;
  std::uint64_t word = 0;
  while (size > 8) {
    std::memcpy(&word, data, 8);
    hash = mix(hash ^ word, k1);
    data += 8;
    size -= 8;
  }
  word = 0;
  std::memcpy(&word, data, size);
  return mix(hash ^ word, k0 ^ k1);
}
inline std::uint64_t hash_bytes(std::string_view text) { return hash_bytes(text.data(), text.size()); }

class TokenTable {
 public:
  void reserve(std::size_t tokens, std::size_t bytes);
  // Gives `id` its bytes; ids in between do not exist until set. An id that is set again keeps its last
  // bytes.
  void set(std::int32_t id, std::string_view bytes);
  // Builds the table of bytes to id from the ids for which `visible` (empty: all) holds. Of equal tokens the
  // last wins.
  void index(const std::vector<bool>& visible = {});

  std::int32_t find(std::string_view bytes) const {
    if (slots_.empty()) return -1;
    const std::uint64_t hash = hash_bytes(bytes);
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    for (std::size_t i = hash & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) return -1;
      if (slot.tag == tag && bytes_of(slot.id) == bytes) return slot.id;
    }
  }
  std::int32_t size() const { return static_cast<std::int32_t>(spans_.size()); }
  bool contains(std::int32_t id) const {
    return id >= 0 && id < size() && spans_[static_cast<std::size_t>(id)].exists;
  }
  std::string_view operator[](std::int32_t id) const {
    return contains(id) ? bytes_of(id) : std::string_view();
  }
  std::size_t longest() const { return longest_; }

 private:
  struct Slot {
    std::int32_t id = -1;
    std::uint32_t tag = 0;
  };
  struct Extent {
    std::size_t begin = 0;
    std::uint32_t size = 0;
    bool exists = false;
  };
  std::string_view bytes_of(std::int32_t id) const {
    const Extent& extent = spans_[static_cast<std::size_t>(id)];
    return {bytes_.data() + extent.begin, extent.size};
  }
  std::string bytes_;
  std::vector<Extent> spans_;
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
  std::size_t longest_ = 0;
};

}  // namespace ttt::inline v2::text
