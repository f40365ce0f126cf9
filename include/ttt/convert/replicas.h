// Data parallelism from a path: a whole model on each part of a mesh (ttt/runtime/data_parallel.h runs them).
#pragma once

#include <filesystem>
#include <vector>

#include "ttt/convert/load.h"

namespace ttt::inline v2 {

// The device of options.mesh cut into parts of `part` devices, a model on each. Error when the parts do not
// cut it evenly, or as load().
std::vector<LoadedModel> load_replicas(const std::filesystem::path&, const LoadOptions&, const Mesh& part);

}  // namespace ttt::inline v2
