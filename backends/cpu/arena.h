// Memory for tensors: freed blocks are kept by size class and given out again, so that a decode step in its
// steady state asks the operating system for nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>

namespace ttt::inline v2::cpu {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  static constexpr std::size_t alignment = 64;

  // 64-byte aligned. std::bad_alloc when there is no memory.
  std::byte* allocate(std::size_t bytes);
  void release(std::byte* block, std::size_t bytes) noexcept;  // `bytes` as allocated

  // Bytes that are held elsewhere in the owner's name, or no longer.
  void count(std::ptrdiff_t bytes) { add(static_cast<std::size_t>(bytes)); }

  std::size_t live_bytes() const { return live_.load(std::memory_order_relaxed); }
  std::size_t peak_bytes() const { return peak_.load(std::memory_order_relaxed); }

 private:
  // Four classes per power of two from 256 bytes to 64 MB, each a multiple of the alignment; what is larger
  // goes back to the system at once.
  static constexpr int smallest_log2 = 8, largest_log2 = 26;

 public:
  static constexpr std::size_t most_kept = std::size_t{1} << largest_log2;

 private:
  static constexpr std::size_t classes = (largest_log2 - smallest_log2) * 4 + 1;
  static std::size_t class_of(std::size_t bytes, std::size_t& rounded);
  void add(std::size_t bytes);  // to what lives

  // In front of each block, as wide as the alignment. A trace writes over blocks that are free by now, so
  // nothing is kept inside.
  struct Header {
    std::size_t index;  // of its class
    Header* next;       // free block
  };
  static Header* header_of(std::byte* block);
  static Header* new_block(std::size_t index, std::size_t bytes);

  std::mutex mutex_;
  std::array<Header*, classes> free_{};
  std::atomic<std::size_t> live_{0}, peak_{0};
};

// For allocate_shared: control blocks and small objects out of an arena, which they keep alive.
template <class T>
struct ArenaAllocator {
  using value_type = T;
  std::shared_ptr<Arena> arena;

  explicit ArenaAllocator(std::shared_ptr<Arena> a) : arena(std::move(a)) {}
  template <class U>
  ArenaAllocator(const ArenaAllocator<U>& other) : arena(other.arena) {}
  T* allocate(std::size_t n) { return reinterpret_cast<T*>(arena->allocate(n * sizeof(T))); }
  void deallocate(T* p, std::size_t n) noexcept {
    arena->release(reinterpret_cast<std::byte*>(p), n * sizeof(T));
  }
  bool operator==(const ArenaAllocator& other) const { return arena == other.arena; }
};

}  // namespace ttt::inline v2::cpu
