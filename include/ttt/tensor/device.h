// What a backend offers to tensors: memory, copies, and weights in its own packing. Operations come in
// ops/backend.h.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "ttt/tensor/tensor.h"
#include "ttt/tensor/weight_source.h"

namespace ttt::inline v2 {

// What a weight is for: it decides the backend's packing.
enum class WeightRole : std::uint8_t {
  linear,  // source [out, in]; tensor [1, 1, in, out] as TTNN's linear takes it; a block of 16 runs along out
  experts,    // source [experts * out, in]; tensor [1, experts, in, out]
  embedding,  // source [entries, dim]; tensor [1, 1, entries, dim]; rows are gathered
  vector,     // source [rows, n]; tensor [1, 1, rows, n]: norm weights, biases, scales, small tables
};

// How a weight lies on a mesh of devices: an axis of its source divides into equal parts along an axis of the
// mesh (0: rows of devices, 1: columns); along the other mesh axis, or both, every device has the same.
struct ShardAxis {
  int mesh_axis = -1;  // -1: not divided
  std::int64_t parts = 1;
  bool operator==(const ShardAxis&) const = default;
};
struct Sharding {
  ShardAxis rows{}, cols{};  // of the source; rows of stacked experts: of each expert
  ShardAxis experts{};
  bool operator==(const Sharding&) const = default;
};

struct WeightSpec {
  WeightRole role = WeightRole::linear;
  DataType dtype = DataType::bf16;
  std::int64_t experts = 1;  // for WeightRole::experts
  MemoryConfig memory{};
  Sharding sharding{};
  bool operator==(const WeightSpec&) const = default;
};

// The packing() of a device that takes the source's rows in the spec's dtype as they are, one after the
// other. A mapped checkpoint of that dtype is then adopted where it lies, with neither copy nor cache file.
inline constexpr std::string_view row_major_packing = "row_major";

// Shape of the tensor that a weight of this role becomes, on one device. Error when it does not divide.
Shape weight_shape(const WeightSpec&, std::int64_t rows, std::int64_t cols);

// What one device of a mesh holds of a weight: for the device in row `mesh_row` and column `mesh_col`. A
// weight that is not divided is returned as it is.
WeightSourcePtr shard_of(WeightSourcePtr, const WeightSpec&, int mesh_row, int mesh_col);
// The spec of such a part by itself.
WeightSpec shard_spec(const WeightSpec&);

// A device outlives the tensors it made; CausalLM and the modules keep theirs alive.
class Device {
 public:
  Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  virtual ~Device();

  virtual std::string_view name() const = 0;      // "cpu", "ttnn", "null"
  virtual std::string description() const = 0;    // "cpu: avx512_bf16, 2 threads"
  virtual bool computes() const { return true; }  // false: shapes only (null backend, mock cluster)

  virtual Tensor allocate(const TensorSpec&) = 0;  // contents undefined
  // Row-major values into and out of a tensor this device allocated; conversion as in tensor.h.
  virtual void write(const Tensor&, std::span<const float>) = 0;
  virtual void write(const Tensor&, std::span<const std::int32_t>) = 0;
  virtual void read(const Tensor&, std::span<float>) = 0;
  virtual void read(const Tensor&, std::span<std::int32_t>) = 0;

  // Weights. `packing` names the byte format of pack() (version, instruction-set class); equal names mean
  // equal bytes, so it is a part of the cache key. pack() fills `out` (packed_bytes() of it) and may use all
  // threads. adopt() makes a tensor of packed bytes without copying them where the device can; `owner` keeps
  // them alive.
  virtual std::string packing(const WeightSpec&) const = 0;
  virtual std::size_t packed_bytes(const WeightSpec&, std::int64_t rows, std::int64_t cols) const = 0;
  virtual void pack(const WeightSource&, const WeightSpec&, std::span<std::byte> out) = 0;
  virtual Tensor adopt(const WeightSpec&, std::int64_t rows, std::int64_t cols,
                       std::span<const std::byte> packed, std::shared_ptr<const void> owner) = 0;

  // Bytes of tensors alive now and at most so far, weights that are mapped from a file not counted.
  virtual std::size_t allocated_bytes() const { return 0; }
  virtual std::size_t peak_bytes() const { return 0; }
};

}  // namespace ttt::inline v2
