// Data parallelism: a mesh cut into equal parts, each a device by itself, as TTNN's create_submeshes. A
// capability of backends that have meshes.
#pragma once

#include <memory>
#include <vector>

#include "ttt/ops/backend.h"

namespace ttt::inline v2 {

// What a backend whose mesh can be cut derives from besides Backend.
class Divisible {
 public:
  virtual ~Divisible();
  // Row by row of the mesh; `part` divides it. They must not outlive the whole.
  virtual std::vector<std::shared_ptr<Backend>> divide(const Mesh& part) = 0;
};

// Error when `part` does not cut the backend's mesh evenly, or the backend has no meshes.
std::vector<std::shared_ptr<Backend>> create_submeshes(Backend&, const Mesh& part);

}  // namespace ttt::inline v2
