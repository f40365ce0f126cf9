// One listener of all threads, and whether there is one.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>

namespace ttt::inline v2::perf {

template <class Record>
class ListenerSlot {
 public:
  using Listener = std::function<void(const Record&)>;

  Listener exchange(Listener next, std::atomic<bool>& listening) {
    const std::lock_guard lock(mutex_);
    std::swap(listener_, next);
    listening = static_cast<bool>(listener_);
    return next;
  }
  void deliver(const Record& record) {
    const std::lock_guard lock(mutex_);
    if (listener_) listener_(record);
  }

 private:
  std::mutex mutex_;
  Listener listener_;
};

}  // namespace ttt::inline v2::perf
