#include "arena.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <new>

#include "ttt/base/memory.h"

namespace ttt::inline v2::cpu {

namespace {

// Where a class has no free block, one of so many larger classes is given out, up to eight times the size:
// steps of ever other row counts live in the memory of the largest, and what is held stays near the peak.
constexpr std::size_t borrowed = 12;

// The class of the block, in front of it; as wide as the alignment.
std::size_t& index_of(void* block) {
  return *reinterpret_cast<std::size_t*>(static_cast<std::byte*>(block) - Arena::alignment);
}

void* new_block(std::size_t index, std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() - Arena::alignment) throw std::bad_alloc();
  const std::size_t size = Arena::alignment + bytes;
  void* memory = std::aligned_alloc(size < huge_page ? Arena::alignment : huge_page, size);
  if (memory == nullptr) throw std::bad_alloc();
  // KV caches: their rows are read from places far apart.
  if (size >= huge_page) want_huge_pages(memory, size / huge_page * huge_page);
  void* block = static_cast<std::byte*>(memory) + Arena::alignment;
  index_of(block) = index;
  return block;
}

void delete_block(void* block) noexcept { std::free(static_cast<std::byte*>(block) - Arena::alignment); }

}  // namespace

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
  for (Free* block : free_) {
    while (block != nullptr) {
      Free* next = block->next;
      delete_block(block);
      block = next;
    }
  }
}

std::byte* Arena::allocate(std::size_t bytes) {
  std::size_t rounded = 0;
  const std::size_t index = class_of(bytes, rounded);
  void* block = nullptr;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = index; i < std::min(index + borrowed + 1, classes) && block == nullptr; ++i) {
      if (free_[i] == nullptr) continue;
      block = free_[i];
      free_[i] = free_[i]->next;
    }
  }
  if (block == nullptr) block = new_block(index, rounded);
  const std::size_t live = live_.fetch_add(rounded, std::memory_order_relaxed) + rounded;
  std::size_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < live && !peak_.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {}
  return static_cast<std::byte*>(block);
}

void Arena::release(std::byte* memory, std::size_t bytes) noexcept {
  std::size_t rounded = 0;
  class_of(bytes, rounded);
  live_.fetch_sub(rounded, std::memory_order_relaxed);
  const std::size_t index = index_of(memory);
  if (index == classes) {
    delete_block(memory);
    return;
  }
  Free* block = reinterpret_cast<Free*>(memory);
  const std::lock_guard lock(mutex_);
  block->next = free_[index];
  free_[index] = block;
}

}  // namespace ttt::inline v2::cpu
