// The core's mixers with state of constant size: their weights, their state, their limits, and how they are
// built.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ttt/model/build.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2 {

template <class T>
concept RecurrentSpec = std::same_as<T, ShortConvSpec> || std::same_as<T, SelectiveSsmSpec> ||
                        std::same_as<T, SsdSpec> || std::same_as<T, GatedDeltaNetSpec>;

// Names are relative to the module.
std::vector<WeightSlot> recurrent_slots(const ShortConvSpec&, std::int64_t dim);
std::vector<WeightSlot> recurrent_slots(const SelectiveSsmSpec&, std::int64_t dim);
std::vector<WeightSlot> recurrent_slots(const SsdSpec&, std::int64_t dim);
std::vector<WeightSlot> recurrent_slots(const GatedDeltaNetSpec&, std::int64_t dim);

// Error names the field.
void check_recurrent(const ShortConvSpec&, const std::string& where);
void check_recurrent(const SelectiveSsmSpec&, const std::string& where);
void check_recurrent(const SsdSpec&, const std::string& where);
void check_recurrent(const GatedDeltaNetSpec&, const std::string& where);

using PartWeight = std::function<LazyWeight(const char* part)>;
std::unique_ptr<Mixer> recurrent_mixer(const ShortConvSpec&, const ModuleName&, const PartWeight&,
                                       const Target&, const Home&);
std::unique_ptr<Mixer> recurrent_mixer(const SelectiveSsmSpec&, const ModuleName&, const PartWeight&,
                                       const Target&, const Home&);
std::unique_ptr<Mixer> recurrent_mixer(const SsdSpec&, const ModuleName&, const PartWeight&, const Target&,
                                       const Home&);
std::unique_ptr<Mixer> recurrent_mixer(const GatedDeltaNetSpec&, const ModuleName&, const PartWeight&,
                                       const Target&, const Home&);

}  // namespace ttt::inline v2
