// The extents of a tensor, outermost first, at most six of them (TTNN works on rank 4: [1, 1, tokens, dim]).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;  // rank 0: one element
  Shape(std::initializer_list<std::int64_t> extents) {
    for (std::int64_t extent : extents) push_back(extent);
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const {
    return extents_[index(axis)];
  }  // negative axes count from the end
  std::int64_t& operator[](int axis) { return extents_[index(axis)]; }
  // Error when the product does not fit 63 bits.
  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) {
      if (__builtin_mul_overflow(n, extents_[i], &n))
        throw Error("the number of elements of a shape overflows");
    }
    return n;
  }
  std::int64_t rows() const {
    return rank_ == 0 || extents_[rank_ - 1] == 0 ? 1 : elements() / extents_[rank_ - 1];
  }
  void push_back(std::int64_t extent) {
    if (rank_ == max_rank) throw Error("a shape has at most 6 axes");
    if (extent < 0) throw Error("negative extent " + std::to_string(extent) + " of a shape");
    extents_[rank_++] = extent;
  }
  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }
  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i) {
      if (extents_[i] != other.extents_[i]) return false;
    }
    return true;
  }

 private:
  int index(int axis) const {
    const int i = axis < 0 ? axis + rank_ : axis;
    if (i < 0 || i >= rank_)
      throw Error("axis " + std::to_string(axis) + " of a shape of rank " + std::to_string(rank_));
    return i;
  }
  std::array<std::int64_t, max_rank> extents_{};
  int rank_ = 0;
};

std::string to_string(const Shape&);  // "[1, 1, 32, 576]"

}  // namespace ttt::inline v2
