#include "arena.h"

#include <bit>
#include <cstdlib>
#include <new>

namespace ttt::inline v2::cpu {

std::size_t Arena::class_of(std::size_t bytes, std::size_t& rounded) {
  if (bytes <= std::size_t{1} << smallest_log2) {
    rounded = std::size_t{1} << smallest_log2;
    return 0;
  }
  const int log2 = std::bit_width(bytes - 1) - 1;  // 2^log2 < bytes <= 2^(log2 + 1)
  const std::size_t step = std::size_t{1} << (log2 - 2);
  const std::size_t quarters = (bytes - (std::size_t{1} << log2) + step - 1) / step;  // 1 to 4
  rounded = (std::size_t{1} << log2) + quarters * step;
  return static_cast<std::size_t>(log2 - smallest_log2) * 4 + quarters;
}

Arena::~Arena() {
  for (Free* head : free_) {
    while (head != nullptr) {
      Free* next = head->next;
      std::free(head);
      head = next;
    }
  }
}

std::byte* Arena::allocate(std::size_t bytes) {
  std::size_t rounded = 0;
  const std::size_t index = bytes <= std::size_t{1} << largest_log2 ? class_of(bytes, rounded) : classes;
  if (index == classes) {
    rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded < bytes) throw std::bad_alloc();
  }
  Free* block = nullptr;
  if (index < classes) {
    const std::lock_guard lock(mutex_);
    block = free_[index];
    if (block != nullptr) free_[index] = block->next;
  }
  if (block == nullptr) block = static_cast<Free*>(std::aligned_alloc(alignment, rounded));
  if (block == nullptr) throw std::bad_alloc();
  const std::size_t live = live_.fetch_add(rounded, std::memory_order_relaxed) + rounded;
  std::size_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < live && !peak_.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {}
  return reinterpret_cast<std::byte*>(block);
}

void Arena::release(std::byte* memory, std::size_t bytes) noexcept {
  std::size_t rounded = 0;
  Free* block = reinterpret_cast<Free*>(memory);
  if (bytes > std::size_t{1} << largest_log2) {
    rounded = (bytes + alignment - 1) / alignment * alignment;
    std::free(block);
  } else {
    const std::size_t index = class_of(bytes, rounded);
    const std::lock_guard lock(mutex_);
    block->next = free_[index];
    free_[index] = block;
  }
  live_.fetch_sub(rounded, std::memory_order_relaxed);
}

}  // namespace ttt::inline v2::cpu
