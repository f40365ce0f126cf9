// How a network lies on a mesh of devices (docs/parallelism.md). Rows of devices divide the residual stream
// by its width, columns divide what a layer has many of: heads, hidden units, experts, the vocabulary. On a
// mesh of one row that is the tensor parallelism of Shoeybi et al. 2019; with several rows matrices are
// divided both ways, and norms of the stream sum over the rows.
#pragma once

#include <cstdint>

#include "ttt/hw/target.h"
#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

inline constexpr int stream_axis = 0, unit_axis = 1;  // of the mesh

// What goes into a matrix and comes out of it: the stream (each device its part of the width), units (each
// its share of the heads or hidden units), or all of it on every device.
enum class Parallel : std::uint8_t {
  none,    // all -> all
  column,  // stream -> units
  row,     // units -> stream
  stream,  // stream -> all
  unit,    // all -> units
};

// Division along an axis of the mesh; none where the mesh has one device there.
inline ShardAxis over(const Mesh& mesh, int mesh_axis) {
  const int parts = mesh_axis == stream_axis ? mesh.rows : mesh.cols;
  return parts == 1 ? ShardAxis{} : ShardAxis{.mesh_axis = mesh_axis, .parts = parts};
}

}  // namespace ttt::inline v2
