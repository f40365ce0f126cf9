// 64-bit hashes for fingerprints, cache keys and checksums (XXH3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ttt::inline v2::detail {

// Feed it values one after the other; the order matters. Text is fed with its length, so that parts cannot
// run together.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  Hasher& add(std::uint64_t value);
  Hasher& add(std::string_view text);
  Hasher& add(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  void* state_;
};

std::uint64_t hash_bytes(std::span<const std::byte> bytes);

}  // namespace ttt::inline v2::detail
