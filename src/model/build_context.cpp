#include "ttt/model/build.h"

namespace ttt::inline v2 {

Linear BuildContext::linear(std::string_view part, Activation activation,
                            std::optional<DataType> out_dtype) const {
  return Linear::from_config({.weight = weight(part),
                              .bias = weight(std::string(part) + ".bias"),
                              .name = name / part,
                              .activation = activation,
                              .out_dtype = out_dtype},
                             target, home);
}

RmsNorm BuildContext::rms_norm(std::string_view part) const {
  return RmsNorm::from_config({.weight = weight(part), .name = name / part, .eps = spec.norm.eps}, target,
                              home);
}

LazyWeight BuildContext::vector(std::string_view part) const { return home.bind(weight(part), vector_dtype); }

}  // namespace ttt::inline v2
