#include "arena.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

#include "ttt/base/memory.h"

namespace ttt::inline v2::cpu {

namespace {

// Where a class has no free block, one of so many larger classes is given out, up to eight times the size:
// steps of ever other row counts live in the memory of the largest, and what is held stays near the peak.
constexpr std::size_t borrowed = 12;

}  // namespace

Arena::Header* Arena::header_of(std::byte* block) { return reinterpret_cast<Header*>(block - alignment); }

Arena::Header* Arena::new_block(std::size_t index, std::size_t bytes) {
  static_assert(sizeof(Header) <= alignment);
  if (bytes > std::numeric_limits<std::size_t>::max() - alignment) throw std::bad_alloc();
  const std::size_t size = alignment + bytes;
  void* memory = nullptr;  // aligned_alloc would ask for whole pages
  if (posix_memalign(&memory, size < huge_page ? alignment : huge_page, size) != 0) throw std::bad_alloc();
  // KV caches: their rows are read from places far apart.
  if (size >= huge_page) want_huge_pages(memory, size / huge_page * huge_page);
  return new (memory) Header{.index = index, .next = nullptr};
}

// What is too large for a class has the index `classes` and is rounded to the alignment.
std::size_t Arena::class_of(std::size_t bytes, std::size_t& rounded) {
  if (bytes <= std::size_t{1} << smallest_log2) {
    rounded = std::size_t{1} << smallest_log2;
    return 0;
  }
  if (bytes > std::size_t{1} << largest_log2) {
    rounded = bytes > std::numeric_limits<std::size_t>::max() - alignment
                  ? bytes
                  : (bytes + alignment - 1) / alignment * alignment;
    return classes;
  }
  const int log2 = std::bit_width(bytes - 1) - 1;  // 2^log2 < bytes <= 2^(log2 + 1)
  const std::size_t step = std::size_t{1} << (log2 - 2);
  const std::size_t quarters = (bytes - (std::size_t{1} << log2) + step - 1) / step;  // 1 to 4
  rounded = (std::size_t{1} << log2) + quarters * step;
  return static_cast<std::size_t>(log2 - smallest_log2) * 4 + quarters;
}

Arena::~Arena() {
  for (Header* block : free_) {
    while (block != nullptr) std::free(std::exchange(block, block->next));
  }
}

std::byte* Arena::allocate(std::size_t bytes) {
  std::size_t rounded = 0;
  const std::size_t index = class_of(bytes, rounded);
  Header* block = nullptr;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = index; i < std::min(index + borrowed + 1, classes) && block == nullptr; ++i) {
      if (free_[i] != nullptr) block = std::exchange(free_[i], free_[i]->next);
    }
  }
  if (block == nullptr) block = new_block(index, rounded);
  add(rounded);
  return reinterpret_cast<std::byte*>(block) + alignment;
}

void Arena::add(std::size_t bytes) {
  const std::size_t live = live_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  std::size_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < live && !peak_.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {}
}

void Arena::release(std::byte* memory, std::size_t bytes) noexcept {
  std::size_t rounded = 0;
  class_of(bytes, rounded);
  live_.fetch_sub(rounded, std::memory_order_relaxed);
  Header* block = header_of(memory);
  if (block->index == classes) {
    std::free(block);
    return;
  }
  const std::lock_guard lock(mutex_);
  block->next = std::exchange(free_[block->index], block);
}

}  // namespace ttt::inline v2::cpu
