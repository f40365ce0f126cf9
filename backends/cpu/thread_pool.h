// A fixed set of threads for short parallel sections: workers spin for a while, then sleep. A section costs
// about a microsecond while they spin.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace ttt::inline v2::cpu {

// Processors that this process may use: affinity, cut by the cgroup's CPU quota. At least 1.
int usable_threads();

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // the caller's thread is one of them
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int size() const { return size_; }

  // f(thread) on every thread, 0 being the caller's. f must not throw. Not reentrant: inside a section it
  // runs on one thread.
  template <class F>
  void run(F&& f) {
    if (size_ == 1) {
      f(0);
      return;
    }
    dispatch([](void* context, int thread) { (*static_cast<std::remove_reference_t<F>*>(context))(thread); },
             &f);
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
    next_.store(0, std::memory_order_relaxed);
    run([&](int thread) {
      for (;;) {
        const std::int64_t begin = next_.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= count) return;
        f(begin, begin + grain < count ? begin + grain : count, thread);
      }
    });
  }

 private:
  using Section = void (*)(void*, int);
  void dispatch(Section, void* context);
  void work(int thread);

  int size_;
  std::vector<std::thread> workers_;
  Section section_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<std::int64_t> next_{0};
};

}  // namespace ttt::inline v2::cpu
