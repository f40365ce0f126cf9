// The null backend: tensors without contents. It says what a model would allocate, move and compute, for
// models larger than any machine at hand: weights are never read, buffers have a size only. Opened for a SKU
// it refuses the calls that TTNN would refuse there.
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "ttt/hw/check.h"
#include "ttt/ops/planning.h"
#include "ttt/ops/submesh.h"

namespace ttt::inline v2 {

namespace {

struct Ledger {
  std::atomic<std::size_t> allocated{0}, peak{0};

  void take(std::size_t bytes) {
    const std::size_t now = allocated += bytes;
    std::size_t seen = peak;
    while (now > seen && !peak.compare_exchange_weak(seen, now)) {}
  }
};

class NullBuffer final : public Buffer {
 public:
  NullBuffer(Device& device, std::shared_ptr<Ledger> ledger, std::size_t bytes)
      : Buffer(device), ledger_(std::move(ledger)), bytes_(bytes) {
    ledger_->take(bytes_);
  }
  ~NullBuffer() override { ledger_->allocated -= bytes_; }
  std::size_t bytes() const override { return bytes_; }

 private:
  std::shared_ptr<Ledger> ledger_;
  std::size_t bytes_;
};

class NullBackend final : public Backend, public CallSource, public Divisible {
 public:
  explicit NullBackend(const DeviceOptions& options) : mesh_(options.mesh), sku_(options.sku) {
    if (mesh_.rows < 1 || mesh_.cols < 1) throw Error("a mesh of " + to_string(mesh_), "null backend");
    if (!sku_.empty()) facts_ = &hw::find(sku_);
  }

  std::string_view name() const override { return "null"; }
  std::string description() const override {
    std::string text = "null: shapes, bytes and FLOPs only";
    if (!sku_.empty()) text += ", for " + sku_;
    if (mesh_.devices() > 1) text += ", mesh " + to_string(mesh_);
    return text;
  }
  bool computes() const override { return false; }
  Mesh mesh() const override { return mesh_; }
  std::vector<std::shared_ptr<Backend>> divide(const Mesh& part) override {
    std::vector<std::shared_ptr<Backend>> parts;
    for (int i = 0; i < mesh_.devices() / part.devices(); ++i)
      parts.push_back(std::make_shared<NullBackend>(DeviceOptions{.mesh = part, .sku = sku_}));
    return parts;
  }

  Tensor allocate(const TensorSpec& spec) override {
    return Tensor(std::make_shared<NullBuffer>(*this, ledger_, held(spec)), spec);
  }
  void write(const Tensor& t, std::span<const float> values) override { check_count(t, values.size()); }
  void write(const Tensor& t, std::span<const std::int32_t> values) override {
    check_count(t, values.size());
  }
  void read(const Tensor& t, std::span<float> values) override {
    check_count(t, values.size());
    std::fill(values.begin(), values.end(), 0.0f);
  }
  void read(const Tensor& t, std::span<std::int32_t> values) override {
    check_count(t, values.size());
    std::fill(values.begin(), values.end(), 0);
  }

  std::string packing(const WeightSpec&) const override { return "null"; }
  std::size_t packed_bytes(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) const override {
    return bytes({.shape = weight_shape(spec, rows, cols), .dtype = spec.dtype});
  }
  void pack(const WeightSource&, const WeightSpec&, std::span<std::byte> out) override {
    std::fill(out.begin(), out.end(), std::byte{0});
  }
  Tensor adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols, std::span<const std::byte>,
               std::shared_ptr<const void>) override {
    return allocate({.shape = weight_shape(spec, rows, cols), .dtype = spec.dtype, .memory = spec.memory});
  }

  std::size_t allocated_bytes() const override { return ledger_->allocated; }
  std::size_t peak_bytes() const override { return ledger_->peak; }

  bool supports(const OpCall&) const override { return true; }

  void run(OpCall& call) override {
    if (facts_ != nullptr) check(*facts_, call);
    if (listener_) listener_(call);
    const OpCost work = cost(call);
    {
      const std::lock_guard lock(mutex_);
      OpCount& count = counts_[std::string(label(call))];
      ++count.calls;
      count.bytes += work.bytes;
      count.flops += work.flops;
    }
    for (int i = 0; i < call.outputs_count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const TensorSpec& spec = call.output_specs[at];
      // A card makes every result anew.
      call.outputs[at] = i == 0 && facts_ == nullptr ? reuse(call, spec) : Tensor();
      if (!call.outputs[at]) call.outputs[at] = allocate(spec);
    }
  }

  void on_call(std::function<void(const OpCall&)> listener) override { listener_ = std::move(listener); }
  void reset_peak() override { ledger_->peak = ledger_->allocated.load(); }

  std::vector<OpCount> op_counts() const override {
    const std::lock_guard lock(mutex_);
    std::vector<OpCount> all;
    for (const auto& [op, count] : counts_) all.push_back({op, count.calls, count.bytes, count.flops});
    return all;
  }
  void reset_op_counts() override {
    const std::lock_guard lock(mutex_);
    counts_.clear();
  }

 private:
  static void check_count(const Tensor& t, std::size_t values) {
    if (static_cast<std::int64_t>(values) != t.shape().elements()) {
      throw Error(std::to_string(values) + " values for a tensor of shape " + to_string(t.shape()));
    }
  }

  // Bytes of a tensor where it lies: on a SKU in whole tiles and pages, as much on each DRAM bank as on the
  // fullest.
  std::size_t held(const TensorSpec& spec) const {
    if (facts_ == nullptr || facts_->dram_banks == 0 || spec.memory.buffer_type != BufferType::dram)
      return bytes(spec);
    return hw::dram_bank_bytes(*facts_, spec) * static_cast<std::size_t>(facts_->dram_banks);
  }

  // As a device that works in place would: the memory of an operand that was moved in and that nobody else
  // holds.
  static Tensor reuse(const OpCall& call, const TensorSpec& spec) {
    for (int i = 0; i < OpCall::max_inputs; ++i) {
      if ((call.reusable >> i & 1u) == 0 || !call.has(i)) continue;
      const Tensor& x = call.in(i);
      if (x.sole_owner() && x.contiguous() && x.dtype() == spec.dtype && x.shape() == spec.shape &&
          x.buffer().bytes() == bytes(spec)) {
        return Tensor(x.buffer_ptr(), spec);
      }
    }
    return {};
  }

  Mesh mesh_;
  std::string sku_;
  const Sku* facts_ = nullptr;  // of the SKU whose limits calls are checked against; null: none
  std::function<void(const OpCall&)> listener_;
  std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
  mutable std::mutex mutex_;
  std::map<std::string, OpCount> counts_;
};

}  // namespace

}  // namespace ttt::inline v2

extern "C" TTT_EXPORT int ttt_backend_version() { return ttt::backend_abi_version; }

extern "C" TTT_EXPORT void ttt_backend_open(const ttt::DeviceOptions& options,
                                            std::shared_ptr<ttt::Backend>& out) {
  out = std::make_shared<ttt::NullBackend>(options);
}
