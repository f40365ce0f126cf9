// A family's weight map read backwards: the tensors of a Hugging Face checkpoint that would give a network
// these weights.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ttt/convert/weight_map.h"
#include "ttt/model/spec.h"
#include "ttt/tensor/weight_source.h"

namespace ttt::inline v2::detail {

struct HfTensor {
  std::string name{};
  std::vector<std::int64_t> shape{};
  WeightSourcePtr source{};  // the leading axes as rows
};

// `source`: the values of a slot, null for one that is absent. Names are as transformers spells them: the
// map's first prefix before all but the head, ".weight" where the map leaves a suffix out. Error for a slot
// to which only concat(), slice() or a function that has no inverse leads.
std::vector<HfTensor> hf_tensors(const WeightMap&, std::span<const WeightSlot>,
                                 const std::function<WeightSourcePtr(const WeightSlot&)>& source);

}  // namespace ttt::inline v2::detail
