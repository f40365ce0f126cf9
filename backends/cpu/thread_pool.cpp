#include "thread_pool.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ttt::inline v2::cpu {

namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Longer than the serial stretches between the parallel sections of a decode step, shorter than a pause
// between requests.
constexpr auto spin_time = std::chrono::microseconds(200);

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(std::max(threads, 1)) {
  workers_.reserve(static_cast<std::size_t>(size_ - 1));
  for (int thread = 1; thread < size_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

namespace {
constexpr std::uint64_t open_bit = std::uint64_t{1} << 31;
}

void ThreadPool::dispatch(Section function, void* context) {
  section_ = function;
  context_ = context;
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  gate_.store(std::uint64_t{epoch} << 32 | open_bit, std::memory_order_release);
  // A worker raises sleepers_ before it looks at the epoch for the last time, so one of the two sees the
  // other.
  epoch_.store(epoch, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) epoch_.notify_all();
  function(context, 0);
  gate_.fetch_and(~open_bit, std::memory_order_acq_rel);
  for (int turns = 0; (gate_.load(std::memory_order_acquire) & (open_bit - 1)) != 0; ++turns) {
    if (turns < 4096) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

bool ThreadPool::enter(std::uint32_t epoch) {
  std::uint64_t gate = gate_.load(std::memory_order_acquire);
  while (gate >> 32 == epoch && (gate & open_bit) != 0) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      return true;
  }
  return false;
}

void ThreadPool::work(int thread) {
  constexpr std::size_t line = 64;
  std::uint32_t seen = 0;
  const std::byte* ahead = nullptr;
  std::size_t fetched = 0;
  for (;;) {
    std::uint32_t now = epoch_.load(std::memory_order_acquire);
    if (now == seen) {
      const auto changed = [&] { return (now = epoch_.load(std::memory_order_acquire)) != seen; };
      if (const std::byte* begin = ahead_begin_.load(std::memory_order_relaxed); begin != ahead) {
        ahead = begin;
        fetched = 0;
      }
      const std::byte* from =
          ahead + static_cast<std::size_t>(thread) * ahead_stride_.load(std::memory_order_relaxed);
      const std::size_t bytes = ahead == nullptr ? 0 : ahead_bytes_.load(std::memory_order_relaxed);
      for (; fetched < bytes && !changed(); fetched += 4 * line) {
        for (std::size_t i = 0; i < 4; ++i) __builtin_prefetch(from + fetched + i * line, 0, 2);
      }
      const auto deadline = std::chrono::steady_clock::now() + spin_time;
      while (now == seen && std::chrono::steady_clock::now() < deadline) {
        for (int i = 0; i < 64 && !changed(); ++i) relax();
      }
      if (now == seen) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        epoch_.wait(seen, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
    }
    seen = now;
    if (stop_.load(std::memory_order_acquire)) return;
    if (!enter(now)) continue;  // too late: the others have done it
    section_(context_, thread);
    gate_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace ttt::inline v2::cpu
