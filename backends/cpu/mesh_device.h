// A mesh of devices in one process, so that tensor parallelism and its collectives have their numbers tested:
// the devices take turns on one CpuDevice. As in TTNN, a tensor has a part on every device, all of one shape,
// and an op runs on each of them.
#pragma once

#include <memory>
#include <vector>

#include "cpu_device.h"
#include "ttt/ops/submesh.h"

namespace ttt::inline v2::cpu {

class MeshDevice final : public Backend, public Divisible {
 public:
  explicit MeshDevice(const DeviceOptions&);

  std::string_view name() const override { return "cpu"; }
  std::string description() const override;
  Mesh mesh() const override { return mesh_; }
  // Each with its share of the threads.
  std::vector<std::shared_ptr<Backend>> divide(const Mesh& part) override;

  Tensor allocate(const TensorSpec&) override;
  // All devices get the values; the first one's are read.
  void write(const Tensor&, std::span<const float>) override;
  void write(const Tensor&, std::span<const std::int32_t>) override;
  void read(const Tensor&, std::span<float>) override;
  void read(const Tensor&, std::span<std::int32_t>) override;

  // A divided weight is packed part by part, those of a row of devices one after the other.
  std::string packing(const WeightSpec&) const override;
  std::size_t packed_bytes(const WeightSpec&, std::int64_t rows, std::int64_t cols) const override;
  void pack(const WeightSource&, const WeightSpec&, std::span<std::byte> out) override;
  Tensor adopt(const WeightSpec&, std::int64_t rows, std::int64_t cols, std::span<const std::byte> packed,
               std::shared_ptr<const void> owner) override;

  std::size_t allocated_bytes() const override { return local_.allocated_bytes(); }
  std::size_t peak_bytes() const override { return local_.peak_bytes(); }
  void run(OpCall&) override;
  bool supports(const OpCall&) const override;

 private:
  int index(int row, int col) const { return row * mesh_.cols + col; }
  // Calls f(devices) for every line of devices along a mesh axis, in order.
  template <class F>
  void along(int mesh_axis, const F& f) const;
  void run_collective(OpCall&);
  OpCall on_device(const OpCall&, int device, std::array<Tensor, OpCall::max_inputs>& operands) const;
  Tensor join(const std::vector<Tensor>& parts);
  WeightSpec sharded_on_mesh(const WeightSpec&) const;

  DeviceOptions options_;
  Mesh mesh_;
  CpuDevice local_;
};

}  // namespace ttt::inline v2::cpu
