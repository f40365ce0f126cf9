#include "mesh_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "ttt/base/error.h"
#include "ttt/ops/ops.h"

namespace ttt::inline v2::cpu {

namespace {

// The parts of a tensor on all devices, row by row of the mesh; views have the same strides on each.
class MeshBuffer final : public Buffer {
 public:
  MeshBuffer(Device& device, std::vector<std::shared_ptr<Buffer>> parts)
      : Buffer(device), parts_(std::move(parts)) {}
  std::size_t bytes() const override { return parts_.front()->bytes(); }
  std::byte* data() override { return parts_.front()->data(); }
  const std::shared_ptr<Buffer>& part(int device) const { return parts_[static_cast<std::size_t>(device)]; }

 private:
  std::vector<std::shared_ptr<Buffer>> parts_;
};

Tensor part(const Tensor& t, int device) {
  return Tensor(static_cast<const MeshBuffer&>(t.buffer()).part(device), t.spec(), t.strides(), t.offset());
}

DeviceOptions one_device(DeviceOptions options) {
  options.mesh = {};
  return options;
}

}  // namespace

MeshDevice::MeshDevice(const DeviceOptions& options)
    : options_(options), mesh_(options.mesh), local_(one_device(options)) {
  constexpr int most = 64;
  if (mesh_.rows < 1 || mesh_.cols < 1 || mesh_.devices() > most)
    throw Error("the cpu backend can not simulate a mesh of " + to_string(mesh_), "DeviceOptions.mesh",
                "use 1 to " + std::to_string(most) + " devices");
}

std::vector<std::shared_ptr<Backend>> MeshDevice::divide(const Mesh& part) {
  const int count = mesh_.devices() / part.devices();
  DeviceOptions options = options_;
  options.mesh = part;
  options.threads = std::max(1, local_.pool().size() / count);
  std::vector<std::shared_ptr<Backend>> parts;
  for (int i = 0; i < count; ++i) {
    if (part == Mesh{})
      parts.push_back(std::make_shared<CpuDevice>(options));
    else
      parts.push_back(std::make_shared<MeshDevice>(options));
  }
  return parts;
}

std::string MeshDevice::description() const {
  return local_.description() + ", mesh " + to_string(mesh_) + " simulated";
}

template <class F>
void MeshDevice::along(int mesh_axis, const F& f) const {
  std::vector<int> devices;
  for (int i = 0; i < (mesh_axis == 0 ? mesh_.cols : mesh_.rows); ++i) {
    devices.clear();
    for (int k = 0; k < (mesh_axis == 0 ? mesh_.rows : mesh_.cols); ++k)
      devices.push_back(mesh_axis == 0 ? index(k, i) : index(i, k));
    f(devices);
  }
}

Tensor MeshDevice::join(const std::vector<Tensor>& parts) {
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (const Tensor& t : parts) buffers.push_back(t.buffer_ptr());
  const Tensor& first = parts.front();
  return Tensor(std::make_shared<MeshBuffer>(*this, std::move(buffers)), first.spec(), first.strides(),
                first.offset());
}

Tensor MeshDevice::allocate(const TensorSpec& spec) {
  std::vector<Tensor> parts;
  for (int d = 0; d < mesh_.devices(); ++d) parts.push_back(local_.allocate(spec));
  return join(parts);
}

void MeshDevice::write(const Tensor& t, std::span<const float> values) {
  for (int d = 0; d < mesh_.devices(); ++d) local_.write(part(t, d), values);
}
void MeshDevice::write(const Tensor& t, std::span<const std::int32_t> values) {
  for (int d = 0; d < mesh_.devices(); ++d) local_.write(part(t, d), values);
}
void MeshDevice::read(const Tensor& t, std::span<float> values) { local_.read(part(t, 0), values); }
void MeshDevice::read(const Tensor& t, std::span<std::int32_t> values) { local_.read(part(t, 0), values); }

// ---------------------------------------------------------------- weights

namespace {

std::int64_t parts_along(const Sharding& s, int mesh_axis) {
  std::int64_t parts = 1;
  for (const ShardAxis& axis : {s.rows, s.cols, s.experts}) {
    if (axis.mesh_axis == mesh_axis) parts *= axis.parts;
  }
  return parts;
}

}  // namespace

// Error where a weight divides into other parts than the mesh has devices.
WeightSpec MeshDevice::sharded_on_mesh(const WeightSpec& spec) const {
  for (const ShardAxis& axis : {spec.sharding.rows, spec.sharding.cols, spec.sharding.experts}) {
    const int devices = axis.mesh_axis < 0 ? 1 : axis.mesh_axis == 0 ? mesh_.rows : mesh_.cols;
    if (axis.parts != devices)
      throw Error("a weight in " + std::to_string(axis.parts) + " parts on a mesh of " + to_string(mesh_), {},
                  "resolve the plan for the device's mesh");
  }
  return shard_spec(spec);
}

std::string MeshDevice::packing(const WeightSpec& spec) const {
  std::string text = local_.packing(sharded_on_mesh(spec));
  if (spec.sharding == Sharding{}) return text;
  text += " of mesh " + to_string(mesh_);
  for (const auto& [axis, what] : {std::pair{&spec.sharding.rows, " rows "},
                                   {&spec.sharding.cols, " cols "},
                                   {&spec.sharding.experts, " experts "}}) {
    if (axis->mesh_axis >= 0) text += what + std::to_string(axis->mesh_axis);
  }
  return text;
}

namespace {

// Rows and columns of a part, as its source has them.
std::pair<std::int64_t, std::int64_t> part_extents(const WeightSpec& spec, std::int64_t rows,
                                                   std::int64_t cols) {
  weight_shape(spec, rows, cols);
  const Sharding& s = spec.sharding;
  return {rows / s.rows.parts / s.experts.parts, cols / s.cols.parts};
}

}  // namespace

std::size_t MeshDevice::packed_bytes(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) const {
  const auto [part_rows, part_cols] = part_extents(spec, rows, cols);
  return local_.packed_bytes(sharded_on_mesh(spec), part_rows, part_cols) *
         static_cast<std::size_t>(parts_along(spec.sharding, 0) * parts_along(spec.sharding, 1));
}

void MeshDevice::pack(const WeightSource& source, const WeightSpec& spec, std::span<std::byte> out) {
  const WeightSpec part = sharded_on_mesh(spec);
  const WeightSourcePtr whole(WeightSourcePtr(), &source);  // not owned
  const std::int64_t rows = parts_along(spec.sharding, 0), cols = parts_along(spec.sharding, 1);
  const std::size_t size = out.size() / static_cast<std::size_t>(rows * cols);
  std::size_t at = 0;
  for (int r = 0; r < static_cast<int>(rows); ++r) {
    for (int c = 0; c < static_cast<int>(cols); ++c, at += size)
      local_.pack(*shard_of(whole, spec, r, c), part, out.subspan(at, size));
  }
}

Tensor MeshDevice::adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols,
                         std::span<const std::byte> packed, std::shared_ptr<const void> owner) {
  const WeightSpec part = sharded_on_mesh(spec);
  const auto [part_rows, part_cols] = part_extents(spec, rows, cols);
  const std::int64_t down = parts_along(spec.sharding, 0), across = parts_along(spec.sharding, 1);
  const std::size_t size = packed.size() / static_cast<std::size_t>(down * across);
  std::vector<Tensor> kept;
  for (std::int64_t i = 0; i < down * across; ++i)
    kept.push_back(local_.adopt(part, part_rows, part_cols,
                                packed.subspan(static_cast<std::size_t>(i) * size, size), owner));
  std::vector<Tensor> parts;
  for (int r = 0; r < mesh_.rows; ++r) {
    for (int c = 0; c < mesh_.cols; ++c)
      parts.push_back(kept[static_cast<std::size_t>((down > 1 ? r : 0) * across + (across > 1 ? c : 0))]);
  }
  return join(parts);
}

// ---------------------------------------------------------------- ops

namespace {

bool is_collective(OpKind op) {
  return op == OpKind::all_gather || op == OpKind::reduce_scatter || op == OpKind::all_reduce ||
         op == OpKind::mesh_partition;
}

}  // namespace

OpCall MeshDevice::on_device(const OpCall& call, int device,
                             std::array<Tensor, OpCall::max_inputs>& operands) const {
  OpCall local = call;
  local.reusable = 0;  // the mesh's tensor holds the memory too
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (!call.has(i)) continue;
    const auto at = static_cast<std::size_t>(i);
    operands[at] = part(call.in(i), device);
    local.inputs[at] = &operands[at];
  }
  return local;
}

bool MeshDevice::supports(const OpCall& call) const {
  if (is_collective(call.op)) return !is_block_float(call.in(0).dtype()) && !is_packed(part(call.in(0), 0));
  std::array<Tensor, OpCall::max_inputs> operands;
  return local_.supports(on_device(call, 0, operands));
}

void MeshDevice::run(OpCall& call) {
  if (is_collective(call.op)) return run_collective(call);
  std::array<std::vector<Tensor>, OpCall::max_outputs> outputs;
  for (int d = 0; d < mesh_.devices(); ++d) {
    std::array<Tensor, OpCall::max_inputs> operands;
    OpCall local = on_device(call, d, operands);
    local_.run(local);
    for (std::size_t i = 0; i < static_cast<std::size_t>(call.outputs_count); ++i)
      outputs[i].push_back(std::move(local.outputs[i]));
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(call.outputs_count); ++i)
    call.outputs[i] = join(outputs[i]);
}

void MeshDevice::run_collective(OpCall& call) {
  const auto& a = call.as<AxisAttributes>();
  const Tensor& x = call.in(0);
  std::vector<Tensor> results(static_cast<std::size_t>(mesh_.devices()));
  along(a.mesh_axis, [&](const std::vector<int>& devices) {
    std::vector<Tensor> parts;
    for (const int d : devices) parts.push_back(part(x, d));
    const std::int64_t size = x.dim(a.axis) / static_cast<std::int64_t>(devices.size());
    // The k-th of the equal parts of an axis, at the same place in its memory on every device.
    const auto own = [&](const Tensor& t, std::size_t k) {
      const std::int64_t begin = static_cast<std::int64_t>(k) * size;
      const Tensor view = ops::to_contiguous(ops::slice(t, a.axis, begin, begin + size));
      Tensor copy = local_.allocate(view.spec());
      std::memcpy(
          cpu_buffer(copy).raw(),
          cpu_buffer(view).raw() + static_cast<std::size_t>(view.offset()) * element_size(view.dtype()),
          cpu_buffer(copy).bytes());
      return copy;
    };
    Tensor common;
    if (call.op == OpKind::all_gather) {
      common = ops::to_contiguous(ops::concat(parts, a.axis));
    } else if (call.op != OpKind::mesh_partition) {
      // In float32, in the order of the devices; rounded once.
      common = ops::typecast(parts[0], DataType::f32);
      for (std::size_t k = 1; k < parts.size(); ++k)
        common = ops::add(std::move(common), parts[k], {.dtype = DataType::f32});
      common = ops::typecast(std::move(common), x.dtype());
    }
    for (std::size_t k = 0; k < devices.size(); ++k) {
      Tensor& result = results[static_cast<std::size_t>(devices[k])];
      switch (call.op) {
        case OpKind::reduce_scatter:
          result = own(common, k);
          break;
        case OpKind::mesh_partition:
          result = own(parts[k], k);
          break;
        default:
          result = common;  // shared: nothing writes into a result
      }
    }
  });
  call.outputs[0] = join(results);
}

}  // namespace ttt::inline v2::cpu
