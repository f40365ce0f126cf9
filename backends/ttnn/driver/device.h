// The device: a mesh of Tenstorrent chips opened through ttnn, or a mock of one.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "library.h"
#include "ttt/ops/submesh.h"
#include "ttt/ops/trace.h"
#include "ttt/ops/waiting_calls.h"

namespace ttt::inline v2::ttnn {

// What lives on the device, and whether it still does: tensors may outlive the interpreter at the end of a
// process.
struct Ledger {
  std::atomic<std::size_t> allocated{0}, peak{0};
  std::atomic<bool> closed{false};
  void take(std::size_t bytes);
};

class TtnnDevice;

// One ttnn.Tensor, replicated over the mesh where there is one. It is made when it is first written or used.
class TtnnBuffer final : public Buffer {
 public:
  TtnnBuffer(TtnnDevice& device, TensorSpec whole, Ref tensor = {});
  ~TtnnBuffer() override;
  std::size_t bytes() const override { return bytes_; }

  // Under the GIL:
  const TensorSpec& whole() const { return whole_; }
  const Ref& tensor();
  void set(Ref tensor);
  // The 32-bit integers that the processor wrote last, as long as nothing else has; empty: not known. What
  // decides how an op is composed (rows of sequences, pages) is read back without asking the device.
  std::span<const std::int32_t> sent() const { return sent_; }
  void remember(std::span<const std::int32_t> values) { sent_.assign(values.begin(), values.end()); }
  // Where a trace reads the tensor it stays: what is written goes into it.
  bool stays() const { return stays_; }
  void stay() { stays_ = true; }
  void overwritten() { derived_.clear(), sent_.clear(); }
  // A form of the tensor that some kernel takes, made once: it is dropped when the tensor is written.
  template <class Make>
  const Ref& derived(int form, Make&& make) {
    for (const auto& [known, value] : derived_) {
      if (known == form) return value;
    }
    return derived_.emplace_back(form, make()).second;
  }

 private:
  TensorSpec whole_;
  std::size_t bytes_;
  std::shared_ptr<Ledger> ledger_;
  Ref tensor_;
  bool stays_ = false;
  std::vector<std::pair<int, Ref>> derived_;
  std::vector<std::int32_t> sent_;
};

class TtnnDevice final : public Backend, public Tracer, public Divisible {
 public:
  // Under the GIL. Error when there is no such device.
  explicit TtnnDevice(const DeviceOptions&);
  // A part of another device, which outlives it.
  TtnnDevice(const TtnnDevice& whole, const Mesh& part, Ref handle);
  ~TtnnDevice() override;
  void close();  // waits for the device and gives it back; nothing may run afterwards

  std::string_view name() const override { return "ttnn"; }
  std::string description() const override;
  bool computes() const override { return !mock_; }
  Mesh mesh() const override { return mesh_; }
  std::vector<std::shared_ptr<Backend>> divide(const Mesh& part) override;

  Tensor allocate(const TensorSpec&) override;
  void write(const Tensor&, std::span<const float>) override;
  void write(const Tensor&, std::span<const std::int32_t>) override;
  void read(const Tensor&, std::span<float>) override;
  void read(const Tensor&, std::span<std::int32_t>) override;

  std::string packing(const WeightSpec&) const override;
  std::size_t packed_bytes(const WeightSpec&, std::int64_t rows, std::int64_t cols) const override;
  void pack(const WeightSource&, const WeightSpec&, std::span<std::byte> out) override;
  Tensor adopt(const WeightSpec&, std::int64_t rows, std::int64_t cols, std::span<const std::byte> packed,
               std::shared_ptr<const void> owner) override;
  std::size_t allocated_bytes() const override { return ledger_->allocated; }
  std::size_t peak_bytes() const override { return ledger_->peak; }

  bool can_trace() const override { return !mock_; }  // a mock cluster ends the process
  void begin_trace() override;
  std::unique_ptr<Trace> end_trace(std::span<const Tensor> inputs, const Tensor& result) override;
  void drop_trace() noexcept override;
  bool recording() const { return recording_; }

  bool supports(const OpCall&) const override;
  void run(OpCall&) override;

  // For buffers and kernels, under the GIL:
  Library& library() { return library_; }
  const std::shared_ptr<Ledger>& ledger() const { return ledger_; }
  const Ref& handle() const { return handle_; }
  CoreCoord grid() const { return grid_; }
  // A tensor without contents; zeros on a device that computes, since kernels read padding and unwritten
  // cache rows.
  Ref create(const TensorSpec&);
  Ref upload(const float*, const TensorSpec&, const Ref& mesh_mapper = {});  // replicated without a mapper
  Ref upload(const std::int32_t*, const TensorSpec&);
  // The tensor of a view.
  Ref materialise(const Tensor&);
  // The matrix that exchanges the two of each pair and negates the first, for interleaved rotations. It is
  // there from the beginning: below all weights, and nothing is sent while a trace is recorded.
  const Ref& exchange() const { return exchange_; }

 private:
  template <class T>
  void write_values(const Tensor&, std::span<const T>);
  template <class T>
  void read_values(const Ref& tensor, std::span<T>);
  template <class T>
  void read_tensor(const Tensor&, std::span<T>);
  Ref host_tensor(const void* data, std::size_t bytes, std::string_view type, const TensorSpec&,
                  const Ref& mapper);
  Ref host_tensor(const float*, const TensorSpec&, const Ref& mapper = {});
  Ref host_tensor(const std::int32_t*, const TensorSpec&);
  Ref to_device(const Ref& host, const TensorSpec&);
  Ref mesh_mapper(const WeightSpec&);
  Ref make_exchange();
  std::unique_ptr<Trace> record(const std::function<void()>& work, const Tensor& result);
  void bind(const Tensor& promised, const Tensor& made);

  Library& library_;  // of the process: it is never taken down
  Mesh mesh_;
  bool mock_ = false, is_part_ = false, recording_ = false;
  std::string arch_;
  CoreCoord grid_{};
  Ref handle_;
  std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
  WaitingCalls waiting_{*this, [this](const Tensor& promised, const Tensor& made) { bind(promised, made); }};
  HostTraffic traffic_;  // while it records
  bool records_ = false;
  Ref exchange_;
};

}  // namespace ttt::inline v2::ttnn
