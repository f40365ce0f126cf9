#include "device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "ttt/base/error.h"
#include "ttt/hw/sku.h"
#include "ttt/tensor/block_float.h"
#include "view_plan.h"

namespace ttt::inline v2::ttnn {

void Ledger::take(std::size_t bytes) {
  const std::size_t now = allocated += bytes;
  std::size_t seen = peak;
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {}
}

// --- Buffers

TtnnBuffer::TtnnBuffer(TtnnDevice& device, TensorSpec whole, Ref tensor)
    : Buffer(device),
      whole_(std::move(whole)),
      bytes_(ttt::bytes(whole_)),
      ledger_(device.ledger()),
      tensor_(std::move(tensor)) {
  ledger_->take(bytes_);
}

TtnnBuffer::~TtnnBuffer() {
  ledger_->allocated -= bytes_;
  if (ledger_->closed) {  // the interpreter may be gone with everything it held
    (void)tensor_.release();
    for (auto& [form, value] : derived_) (void)value.release();
    return;
  }
  const Gil gil;
  derived_.clear();
  tensor_ = Ref();
}

const Ref& TtnnBuffer::tensor() {
  if (!tensor_) tensor_ = static_cast<TtnnDevice&>(device()).create(whole_);
  return tensor_;
}

void TtnnBuffer::set(Ref tensor) {
  derived_.clear();
  sent_.clear();
  tensor_ = std::move(tensor);
}

static TtnnBuffer& buffer_of(const Tensor& t) { return static_cast<TtnnBuffer&>(t.buffer()); }

// --- The device

namespace {

// Of DRAM, for the commands of traces.
constexpr std::int64_t trace_bytes = std::int64_t{64} << 20;

constexpr const char* mock_variable = "TT_METAL_MOCK_CLUSTER_DESC_PATH";

std::string arch_name(Arch arch) { return arch == Arch::blackhole ? "blackhole" : "wormhole_b0"; }

}  // namespace

// One interpreter, one ttnn, for as long as the process lives: both outlast the destructors of static
// objects.
static Library& process_library() {
  static Library* const library = new Library;
  return *library;
}

TtnnDevice::TtnnDevice(const DeviceOptions& options) : library_(process_library()), mesh_(options.mesh) {
  const char* mock = std::getenv(mock_variable);
  mock_ = mock != nullptr && *mock != '\0';
  if (mesh_.rows < 1 || mesh_.cols < 1) throw Error("a mesh of " + to_string(mesh_), "ttnn backend");
  try {
    if (mesh_.devices() > 1) {
      call(library_.member("set_fabric_config"), {library_.member("FabricConfig.FABRIC_1D")});
    }
    // A mock has no Ethernet cores that could dispatch.
    Ref dispatch;
    if (mock_) {
      dispatch = call(library_.member("DispatchCoreConfig"), {library_.member("DispatchCoreType.WORKER")});
    }
    handle_ = call(
        library_.member("open_mesh_device"),
        {call(library_.member("MeshShape"), {number(mesh_.rows), number(mesh_.cols)})},
        {{"dispatch_core_config", dispatch}, {"trace_region_size", mock_ ? Ref() : number(trace_bytes)}});
    const Ref size = call(handle_.attr("compute_with_storage_grid_size"), {});
    grid_ = {static_cast<int>(to_int(size.attr("x"))), static_cast<int>(to_int(size.attr("y")))};
    arch_ = to_text(call(handle_.attr("arch"), {}));
    arch_.erase(0, arch_.find('.') + 1);
    std::transform(arch_.begin(), arch_.end(), arch_.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    exchange_ = make_exchange();
  } catch (const Error& error) {
    if (handle_) close();
    throw Error("no Tenstorrent device of mesh " + to_string(mesh_) + ": " + error.problem(), "ttnn backend",
                mock_ ? std::string("check the descriptor that ") + mock_variable + " names"
                      : std::string("install a card with its driver, or set ") + mock_variable +
                            " to a mock cluster (docs/hardware.md)");
  }
  if (!options.sku.empty() && options.sku != "cpu" && arch_name(hw::find(options.sku).arch) != arch_) {
    close();
    throw Error("the device is " + arch_ + ", plans are for " + options.sku, "ttnn backend",
                "choose another --sku");
  }
}

TtnnDevice::TtnnDevice(const TtnnDevice& whole, const Mesh& part, Ref handle)
    : library_(whole.library_),
      mesh_(part),
      mock_(whole.mock_),
      is_part_(true),
      arch_(whole.arch_),
      grid_(whole.grid_),
      handle_(std::move(handle)),
      ledger_(whole.ledger_) {
  exchange_ = make_exchange();
}

std::vector<std::shared_ptr<Backend>> TtnnDevice::divide(const Mesh& part) {
  const int count = mesh_.devices() / part.devices();
  const Gil gil;
  const Ref handles = call(handle_.attr("create_submeshes"),
                           {call(library_.member("MeshShape"), {number(part.rows), number(part.cols)})});
  std::vector<std::shared_ptr<Backend>> parts;
  for (int i = 0; i < count; ++i)
    parts.push_back(
        std::make_shared<TtnnDevice>(*this, part, Ref::steal(PySequence_GetItem(handles.get(), i))));
  return parts;
}

TtnnDevice::~TtnnDevice() {
  if (ledger_->closed) {
    (void)handle_.release();
    (void)exchange_.release();
    return;
  }
  const Gil gil;
  if (is_part_) {  // closed with the whole
    exchange_ = Ref();
    handle_ = Ref();
    return;
  }
  close();
  (void)handle_.release();  // defined only where closing failed
}

Ref TtnnDevice::make_exchange() {
  std::vector<float> values(32 * 32);
  for (std::size_t i = 0; i < 32; i += 2) {
    values[i * 32 + i + 1] = 1;
    values[(i + 1) * 32 + i] = -1;
  }
  return upload(values.data(), {.shape = {1, 1, 32, 32}, .dtype = DataType::bf16});
}

void TtnnDevice::close() {
  if (!handle_ || ledger_->closed) return;
  exchange_ = Ref();
  ledger_->closed = true;
  try {
    call(library_.member("close_mesh_device"), {handle_});
    handle_ = Ref();
  } catch (const Error&) {
    // The process is about to end or the device is lost; there is nobody to tell.
  }
}

std::string TtnnDevice::description() const {
  std::string text = "ttnn: " + arch_ + ", grid " + std::to_string(grid_.x) + "x" + std::to_string(grid_.y);
  if (mesh_.devices() > 1) text += ", mesh " + to_string(mesh_);
  return mock_ ? text + ", mock (computes nothing)" : text;
}

// --- Memory

Tensor TtnnDevice::allocate(const TensorSpec& spec) {
  TensorSpec placed = spec;
  if (is_block_float(spec.dtype)) placed.layout = Layout::tile;
  return Tensor(std::make_shared<TtnnBuffer>(*this, placed), placed);
}

Ref TtnnDevice::create(const TensorSpec& spec) {
  return call(library_.function(mock_ ? "empty" : "zeros"), {tuple(spec.shape)},
              {{"dtype", library_.dtype(spec.dtype)},
               {"layout", library_.layout(spec.layout)},
               {"device", handle_},
               {"memory_config", library_.memory_config(spec.memory)}});
}

// Values are converted by the host, as packed weights are: the device's own conversion rounds otherwise.
Ref TtnnDevice::host_tensor(const void* data, std::size_t bytes, std::string_view type,
                            const TensorSpec& spec, const Ref& mapper) {
  const Ref flat = call(library_.numpy("frombuffer"), {memory_view(const_cast<void*>(data), bytes)},
                        {{"dtype", library_.numpy(type)}});
  Ref array = call(flat.attr("reshape"), {tuple(spec.shape)});
  // What is neither converted nor tiled would be sent from our memory, perhaps after it is gone.
  if (spec.layout == Layout::row_major) array = call(array.attr("copy"), {});
  if (spec.dtype == DataType::u16 || spec.dtype == DataType::u8) {
    array = call(array.attr("astype"), {library_.numpy(spec.dtype == DataType::u16 ? "uint16" : "uint8")});
  }
  return call(library_.member("Tensor"), {array, library_.dtype(spec.dtype)},
              {{"layout", library_.layout(spec.layout)}, {"mesh_mapper", mapper}});
}
Ref TtnnDevice::host_tensor(const float* values, const TensorSpec& spec, const Ref& mapper) {
  const auto n = static_cast<std::size_t>(spec.shape.elements());
  return host_tensor(values, n * sizeof(float), "float32", spec, mapper);
}
Ref TtnnDevice::host_tensor(const std::int32_t* values, const TensorSpec& spec) {
  const auto n = static_cast<std::size_t>(spec.shape.elements());
  return host_tensor(values, n * sizeof(std::int32_t), spec.dtype == DataType::u32 ? "uint32" : "int32", spec,
                     {});
}

Ref TtnnDevice::to_device(const Ref& host, const TensorSpec& spec) {
  return call(host.attr("to"), {handle_, library_.memory_config(spec.memory)});
}
Ref TtnnDevice::upload(const float* values, const TensorSpec& spec, const Ref& mapper) {
  return to_device(host_tensor(values, spec, mapper), spec);
}
Ref TtnnDevice::upload(const std::int32_t* values, const TensorSpec& spec) {
  return to_device(host_tensor(values, spec), spec);
}

template <class T>
void TtnnDevice::write_values(const Tensor& t, std::span<const T> values) {
  if (static_cast<std::int64_t>(values.size()) != t.shape().elements()) {
    throw Error(std::to_string(values.size()) + " values for a tensor of shape " + to_string(t.shape()));
  }
  if (values.empty()) return;
  if (records_) traffic_.wrote(t);
  const Gil gil;
  TtnnBuffer& buffer = buffer_of(t);
  const std::int64_t whole = buffer.whole().shape.elements();
  if (t.contiguous() && t.offset() == 0 && whole == t.shape().elements()) {
    if (buffer.stays()) {
      buffer.overwritten();
      call(library_.function("copy_host_to_device_tensor"),
           {host_tensor(values.data(), buffer.whole()), buffer.tensor()});
    } else {
      buffer.set(upload(values.data(), buffer.whole()));
    }
    if constexpr (std::is_same_v<T, std::int32_t>) {
      if (element_size(t.dtype()) == sizeof(T)) buffer.remember(values);
    }
    if (records_) buffer.stay();
    return;
  }
  // A part of a tensor: through the host.
  std::vector<T> all(static_cast<std::size_t>(whole));
  read_values(buffer.tensor(), std::span<T>(all));
  std::vector<std::int64_t> at(static_cast<std::size_t>(t.shape().rank()), 0);
  std::int64_t position = t.offset();
  for (const T value : values) {
    all[static_cast<std::size_t>(position)] = value;
    for (int axis = t.shape().rank() - 1; axis >= 0; --axis) {
      auto& i = at[static_cast<std::size_t>(axis)];
      position += t.strides()[axis];
      if (++i < t.shape()[axis]) break;
      position -= i * t.strides()[axis];
      i = 0;
    }
  }
  buffer.set(upload(all.data(), buffer.whole()));
}

void TtnnDevice::write(const Tensor& t, std::span<const float> values) { write_values(t, values); }
void TtnnDevice::write(const Tensor& t, std::span<const std::int32_t> values) { write_values(t, values); }

template <class T>
void TtnnDevice::read_values(const Ref& tensor, std::span<T> values) {
  Ref one = tensor;
  if (mesh_.devices() > 1) {  // replicated: any device's
    const Ref parts = call(library_.member("get_device_tensors"), {tensor});
    one = Ref::steal(PySequence_GetItem(parts.get(), 0));
  }
  Ref host = call(one.attr("cpu"), {});
  if (is_float(library_.to_dtype(host.attr("dtype"))))
    host = call(library_.function("to_dtype"), {host, library_.dtype(DataType::f32)});
  const Ref array = call(host.attr("to_numpy"), {});
  const char* type = std::is_same_v<T, float> ? "float32" : "int32";
  const Ref target = call(library_.numpy("frombuffer"), {memory_view(values.data(), values.size_bytes())},
                          {{"dtype", library_.numpy(type)}});
  call(library_.numpy("copyto"), {target, call(array.attr("reshape"), {number(-1)})},
       {{"casting", text("unsafe")}});
}

template <class T>
void TtnnDevice::read_tensor(const Tensor& t, std::span<T> values) {
  if (values.empty()) return;
  if (records_) {
    traffic_.read();
    waiting_.run();
  }
  if constexpr (std::is_same_v<T, std::int32_t>) {
    const std::span<const std::int32_t> sent = buffer_of(t).sent();
    if (sent.size() == values.size() && t.contiguous()) {
      std::ranges::copy(sent, values.begin());
      return;
    }
  }
  const Gil gil;
  read_values(materialise(t), values);
}
void TtnnDevice::read(const Tensor& t, std::span<float> values) { read_tensor(t, values); }
void TtnnDevice::read(const Tensor& t, std::span<std::int32_t> values) { read_tensor(t, values); }

Ref TtnnDevice::materialise(const Tensor& t) {
  TtnnBuffer& buffer = buffer_of(t);
  if (t.shape() == buffer.whole().shape && t.contiguous()) return buffer.tensor();
  const std::optional<ViewPlan> plan = plan_view(buffer.whole().shape, t.shape(), t.strides(), t.offset());
  if (!plan) {
    throw Error("TTNN has no such view: shape " + to_string(t.shape()) + ", strides " +
                    to_string(t.strides()) + " of " + to_string(buffer.whole().shape),
                "ttnn backend", "call ops::to_contiguous on fewer axes at a time");
  }
  Ref x = buffer.tensor();
  if (plan->split) x = call(library_.function("reshape"), {x, tuple(*plan->split)});
  if (plan->begin) x = call(library_.function("slice"), {x, tuple(*plan->begin), tuple(*plan->end)});
  if (!plan->order.empty()) {
    Shape order;
    for (int axis : plan->order) order.push_back(axis);
    x = call(library_.function("permute"), {x, tuple(order)});
  }
  if (plan->shape) x = call(library_.function("reshape"), {x, tuple(*plan->shape)});
  return x;
}

// --- Traces

namespace {

// It may outlive the device's object, and the device.
class DeviceTrace final : public Trace {
 public:
  DeviceTrace(TtnnDevice& device, Ref id, Tensor result)
      : library_(device.library()),
        handle_(device.handle()),
        ledger_(device.ledger()),
        id_(std::move(id)),
        result_(std::move(result)) {}
  ~DeviceTrace() override {
    if (ledger_->closed) {
      (void)id_.release(), (void)handle_.release();
      return;
    }
    const Gil gil;
    try {
      call(library_.member("release_trace"), {handle_, id_});
    } catch (const Error&) {
      // The device is lost, and the trace with it.
    }
    id_ = Ref(), handle_ = Ref();
  }
  Tensor replay() override {
    const Gil gil;
    call(library_.member("execute_trace"), {handle_, id_},
         {{"cq_id", number(0)}, {"blocking", boolean(false)}});
    return result_;
  }

 private:
  Library& library_;
  Ref handle_;
  std::shared_ptr<Ledger> ledger_;
  Ref id_;
  Tensor result_;
};

}  // namespace

void TtnnDevice::begin_trace() {
  records_ = true;
  waiting_.begin();
}

void TtnnDevice::drop_trace() noexcept {
  records_ = false;
  waiting_.clear(), traffic_.clear();
}

std::unique_ptr<Trace> TtnnDevice::end_trace(std::span<const Tensor> inputs, const Tensor& result) {
  struct Ending {
    TtnnDevice& device;
    ~Ending() { device.drop_trace(); }
  } const ending{*this};
  if (!traffic_.only(inputs)) {
    waiting_.run();
    return nullptr;
  }
  std::unique_ptr<Trace> trace;
  try {
    trace = record([&] { waiting_.run(); }, result);
  } catch (const std::exception& error) { throw TraceRefused(error.what()); }
  trace->replay();
  return waiting_.leave_only(result) ? std::move(trace) : nullptr;
}

std::unique_ptr<Trace> TtnnDevice::record(const std::function<void()>& work, const Tensor& result) {
  Ref id;
  {
    const Gil gil;
    id = call(library_.member("begin_trace_capture"), {handle_}, {{"cq_id", number(0)}});
  }
  std::exception_ptr failed;
  recording_ = true;
  try {
    work();
  } catch (...) { failed = std::current_exception(); }
  recording_ = false;
  const Gil gil;
  call(library_.member("end_trace_capture"), {handle_, id}, {{"cq_id", number(0)}});
  auto trace = std::make_unique<DeviceTrace>(*this, std::move(id), result);
  if (failed) std::rethrow_exception(failed);
  return trace;
}

void TtnnDevice::bind(const Tensor& promised, const Tensor& made) {
  const Gil gil;
  buffer_of(promised).set(buffer_of(made).tensor());
}

// --- Weights

namespace {

// The weight before it is dealt out over the mesh: it is packed whole.
WeightSpec undivided(WeightSpec spec) {
  spec.sharding = {};
  return spec;
}

// The matrices [rows, cols] that a weight is, and how many.
struct Matrices {
  std::int64_t count, rows, cols;
  bool transposed;  // of the source's
};

bool is_transposed(WeightRole role) { return role == WeightRole::linear || role == WeightRole::experts; }

Matrices matrices(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) {
  const Shape shape = weight_shape(undivided(spec), rows, cols);
  return {shape[1], shape[2], shape[3], is_transposed(spec.role)};
}

std::size_t matrix_bytes(const Matrices& m, DataType t) {
  return is_block_float(t) ? ttt::packed_bytes(m.rows, m.cols, t)
                           : static_cast<std::size_t>(m.rows * m.cols) * element_size(t);
}

// Rows are dealt out by the tile: a panel of block floats packs on its own.
constexpr std::int64_t panel_rows = tile_size;

}  // namespace

std::string TtnnDevice::packing(const WeightSpec&) const { return "ttnn 1"; }

std::size_t TtnnDevice::packed_bytes(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) const {
  const Matrices m = matrices(spec, rows, cols);
  return static_cast<std::size_t>(m.count) * matrix_bytes(m, spec.dtype);
}

void TtnnDevice::pack(const WeightSource& source, const WeightSpec& spec, std::span<std::byte> out) {
  const Matrices m = matrices(spec, source.rows(), source.cols());
  const std::int64_t source_rows = source.rows() / m.count;
  std::vector<float> values(static_cast<std::size_t>(source_rows * source.cols()));
  std::vector<float> panel(static_cast<std::size_t>(panel_rows * m.cols));
  for (std::int64_t matrix = 0; matrix < m.count; ++matrix) {
    source.read(matrix * source_rows, source_rows, values.data());
    for (std::int64_t first = 0; first < m.rows; first += panel_rows) {
      const std::int64_t height = std::min(panel_rows, m.rows - first);
      for (std::int64_t r = 0; r < height; ++r) {
        for (std::int64_t c = 0; c < m.cols; ++c) {
          const std::int64_t from = m.transposed ? c * source.cols() + first + r : (first + r) * m.cols + c;
          panel[static_cast<std::size_t>(r * m.cols + c)] = values[static_cast<std::size_t>(from)];
        }
      }
      const std::span<const float> part = std::span(panel).first(static_cast<std::size_t>(height * m.cols));
      std::size_t bytes = 0;
      if (is_block_float(spec.dtype)) {
        const std::vector<std::uint8_t> tiles = pack_tiles(part, height, m.cols, spec.dtype);
        bytes = tiles.size();
        std::memcpy(out.data(), tiles.data(), bytes);
      } else if (spec.dtype == DataType::bf16) {
        bytes = part.size() * sizeof(BFloat16);
        std::vector<BFloat16> rounded(part.begin(), part.end());
        std::memcpy(out.data(), rounded.data(), bytes);
      } else {
        bytes = part.size_bytes();
        std::memcpy(out.data(), part.data(), bytes);
      }
      out = out.subspan(bytes);
    }
  }
}

// Which axis of the tensor is dealt out along each axis of the mesh; undefined where none is.
Ref TtnnDevice::mesh_mapper(const WeightSpec& spec) {
  const bool transposed = is_transposed(spec.role);
  Ref axes[2] = {none(), none()};
  bool any = false;
  const auto deal = [&](const ShardAxis& axis, int tensor_axis) {
    if (axis.parts == 1) return;
    axes[axis.mesh_axis] = number(tensor_axis);
    any = true;
  };
  deal(spec.sharding.rows, transposed ? 3 : 2);
  deal(spec.sharding.cols, transposed ? 2 : 3);
  deal(spec.sharding.experts, 1);
  if (!any) return {};
  return call(
      library_.member("ShardTensor2dMesh"), {handle_},
      {{"mesh_shape", tuple({number(mesh_.rows), number(mesh_.cols)})}, {"dims", tuple({axes[0], axes[1]})}});
}

Tensor TtnnDevice::adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols,
                         std::span<const std::byte> packed, std::shared_ptr<const void>) {
  TensorSpec part{.shape = weight_shape(spec, rows, cols), .dtype = spec.dtype, .memory = spec.memory};
  if (spec.role == WeightRole::embedding && !is_block_float(spec.dtype)) part.layout = Layout::row_major;
  if (packed.empty()) {  // nothing computes here, and nothing was converted
    const Gil gil;
    return Tensor(std::make_shared<TtnnBuffer>(*this, part, create(part)), part);
  }
  const Matrices m = matrices(spec, rows, cols);
  TensorSpec whole = part;
  whole.shape = weight_shape(undivided(spec), rows, cols);
  std::vector<float> values(static_cast<std::size_t>(whole.shape.elements()));
  float* next = values.data();
  if (is_block_float(spec.dtype)) {
    // Values that the format has: TTNN's conversion finds the same bytes again.
    const std::size_t size = matrix_bytes(m, spec.dtype);
    for (std::int64_t i = 0; i < m.count; ++i) {
      const auto* bytes =
          reinterpret_cast<const std::uint8_t*>(packed.data()) + static_cast<std::size_t>(i) * size;
      const std::vector<float> matrix = unpack_tiles({bytes, size}, m.rows, m.cols, spec.dtype);
      next = std::copy(matrix.begin(), matrix.end(), next);
    }
  } else if (spec.dtype == DataType::bf16) {
    for (float& value : values) {
      BFloat16 stored;
      std::memcpy(&stored, packed.data() + static_cast<std::size_t>(&value - values.data()) * sizeof stored,
                  sizeof stored);
      value = stored;
    }
  } else {
    std::memcpy(values.data(), packed.data(), packed.size());
  }
  const Gil gil;
  return Tensor(std::make_shared<TtnnBuffer>(*this, part, upload(values.data(), whole, mesh_mapper(spec))),
                part);
}

}  // namespace ttt::inline v2::ttnn
