#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

Device::Device() = default;
Device::~Device() = default;

Shape weight_shape(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) {
  switch (spec.role) {
    case WeightRole::linear:
      return {1, 1, cols, rows};
    case WeightRole::experts:
      if (spec.experts < 1 || rows % spec.experts != 0) {
        throw Error(std::to_string(rows) + " rows do not divide among " + std::to_string(spec.experts) +
                    " experts");
      }
      return {1, spec.experts, cols, rows / spec.experts};
    case WeightRole::embedding:
    case WeightRole::vector:
      return {1, 1, rows, cols};
  }
  throw Error("invalid weight role");
}

}  // namespace ttt::inline v2
