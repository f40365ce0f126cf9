// One listener of all threads.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>

namespace ttt::inline v2 {

template <class Signature>
class ListenerSlot;

template <class Result, class... Arguments>
class ListenerSlot<Result(Arguments...)> {
 public:
  using Listener = std::function<Result(Arguments...)>;

  // Returns the listener that was there; `listening`, where it is given, says whether there is one.
  Listener exchange(Listener next, std::atomic<bool>* listening = nullptr) {
    const std::lock_guard lock(mutex_);
    std::swap(listener_, next);
    if (listening != nullptr) *listening = static_cast<bool>(listener_);
    return next;
  }
  // What the listener returns, one call at a time; a default where there is none.
  template <class... Given>
  Result deliver(Given&&... arguments) {
    const std::lock_guard lock(mutex_);
    if (listener_) return listener_(std::forward<Given>(arguments)...);
    return Result();
  }

 private:
  std::mutex mutex_;
  Listener listener_;
};

}  // namespace ttt::inline v2
