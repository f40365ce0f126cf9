#include "ttt/ops/submesh.h"

#include "ttt/base/error.h"

namespace ttt::inline v2 {

Divisible::~Divisible() = default;

std::vector<std::shared_ptr<Backend>> create_submeshes(Backend& backend, const Mesh& part) {
  const Mesh whole = backend.mesh();
  auto* divisible = dynamic_cast<Divisible*>(&backend);
  if (divisible == nullptr)
    throw Error("the device has no mesh to cut", backend.description(), "open it with a mesh");
  if (part.rows < 1 || part.cols < 1 || whole.rows % part.rows != 0 || whole.cols % part.cols != 0)
    throw Error("a mesh of " + to_string(whole) + " in parts of " + to_string(part), backend.description(),
                "choose parts that divide its rows and its columns");
  return divisible->divide(part);
}

}  // namespace ttt::inline v2
