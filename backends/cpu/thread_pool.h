// A fixed set of threads for short parallel sections: workers spin for a while, then sleep. A section costs
// about a microsecond while they spin.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace ttt::inline v2::cpu {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // the caller's thread is one of them
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int size() const { return size_; }

  // What workers fetch into their caches while they wait for the next section: `bytes` from begin + thread *
  // stride. Memory that is gone does no harm.
  void fetch_ahead(const std::byte* begin, std::size_t stride, std::size_t bytes) {
    ahead_begin_.store(begin, std::memory_order_relaxed);
    ahead_stride_.store(stride, std::memory_order_relaxed);
    ahead_bytes_.store(bytes, std::memory_order_relaxed);
  }

  // f(begin, end, thread) over [0, count) in pieces of `grain`, handed out as threads become free. Which
  // thread runs a piece may not change its result.
  template <class F>
  void parallel_for(std::int64_t count, std::int64_t grain, F&& f) {
    if (count <= 0) return;
    if (size_ == 1 || count <= grain) {
      f(std::int64_t{0}, count, 0);
      return;
    }
    const std::int64_t pieces = (count + grain - 1) / grain;
    claim_each(pieces, [&](int thread, auto claim) {
      for (std::int64_t piece = claim(); piece < pieces; piece = claim()) {
        const std::int64_t begin = piece * grain;
        f(begin, begin + grain < count ? begin + grain : count, thread);
      }
    });
  }

  // f(thread, claim) once on each thread that comes in time, one at least; claim() hands out 0, 1, .. and,
  // when all are gone, numbers from `count` up. For work that wants to know its next piece while it does one.
  template <class F>
  void claim_each(std::int64_t count, F&& f) {
    const std::lock_guard lock(mutex_);
    next_.store(0, std::memory_order_relaxed);
    const auto work = [&](int thread) {
      f(thread, [this] { return next_.fetch_add(1, std::memory_order_relaxed); });
    };
    if (size_ == 1 || count <= 1) {
      work(0);
    } else {
      section(work);
    }
  }

 private:
  using Section = void (*)(void*, int);
  template <class F>
  void section(F& f) {
    dispatch([](void* context, int thread) { (*static_cast<F*>(context))(thread); },
             const_cast<void*>(static_cast<const void*>(&f)));
  }
  void dispatch(Section, void* context);
  bool enter(std::uint32_t epoch);
  void work(int thread);

  int size_;
  std::mutex mutex_;  // one section at a time: weights may be packed on one thread while another computes
  std::vector<std::thread> workers_;
  Section section_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stop_{false};
  std::atomic<const std::byte*> ahead_begin_{nullptr};
  std::atomic<std::size_t> ahead_stride_{0}, ahead_bytes_{0};
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  // The section's epoch (upper half), whether workers may still enter (bit 31), how many are inside.
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::int64_t> next_{0};
};

}  // namespace ttt::inline v2::cpu
