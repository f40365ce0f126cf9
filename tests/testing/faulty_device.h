// A backend with a mistake in one kernel: everything goes to the backend "cpu", but one call of one operation
// gets a wrong result. Opened as "faulty" after install_faulty_device().
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ttt/ops/backend.h"

namespace ttt::test {

// Which call is wrong, counted within the operations of that label since the last reset, and how.
struct Fault {
  enum class Kind { none, scaled, last_row_zero, one_value, nan, infinite };
  std::string op;  // label() of the call
  int call = 0;
  Kind kind = Kind::none;
  int seen = 0;
};
inline Fault fault;

class FaultyBuffer final : public Buffer {
 public:
  FaultyBuffer(Device& device, Tensor tensor) : Buffer(device), inner(std::move(tensor)) {}
  std::size_t bytes() const override { return inner.buffer().bytes(); }
  std::byte* data() override { return inner.buffer().data(); }
  Tensor inner;
};

class FaultyDevice final : public Backend {
 public:
  explicit FaultyDevice(const DeviceOptions& options) : inner_(open_device("cpu", options)) {}
  std::string_view name() const override { return "faulty"; }
  std::string description() const override { return "faulty, over " + inner_->description(); }
  Mesh mesh() const override { return inner_->mesh(); }

  Tensor allocate(const TensorSpec& spec) override { return wrapped(inner_->allocate(spec)); }
  void write(const Tensor& t, std::span<const float> v) override { inner_->write(unwrapped(t), v); }
  void write(const Tensor& t, std::span<const std::int32_t> v) override { inner_->write(unwrapped(t), v); }
  void read(const Tensor& t, std::span<float> v) override { inner_->read(unwrapped(t), v); }
  void read(const Tensor& t, std::span<std::int32_t> v) override { inner_->read(unwrapped(t), v); }
  std::string packing(const WeightSpec& spec) const override { return inner_->packing(spec); }
  std::size_t packed_bytes(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) const override {
    return inner_->packed_bytes(spec, rows, cols);
  }
  void pack(const WeightSource& source, const WeightSpec& spec, std::span<std::byte> out) override {
    inner_->pack(source, spec, out);
  }
  Tensor adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols,
               std::span<const std::byte> packed, std::shared_ptr<const void> owner) override {
    return wrapped(inner_->adopt(spec, rows, cols, packed, std::move(owner)));
  }

  bool supports(const OpCall& call) const override { return inner_->supports(Inner(call).call); }
  void run(OpCall& call) override {
    Inner inner(call);
    inner_->run(inner.call);
    const bool wrong = label(call) == fault.op && fault.seen++ == fault.call;
    for (std::size_t i = 0; i < static_cast<std::size_t>(call.outputs_count); ++i) {
      if (wrong && i == 0) spoil(inner.call.outputs[i]);
      call.outputs[i] = wrapped(std::move(inner.call.outputs[i]));
    }
  }

 private:
  static Tensor unwrapped(const Tensor& t) {
    if (!t.defined()) return {};
    return Tensor(static_cast<FaultyBuffer&>(t.buffer()).inner.buffer_ptr(), t.spec(), t.strides(),
                  t.offset());
  }
  Tensor wrapped(Tensor inner) {
    if (!inner.defined()) return {};
    const TensorSpec spec = inner.spec();
    const Shape strides = inner.strides();
    const std::int64_t offset = inner.offset();
    return Tensor(std::make_shared<FaultyBuffer>(*this, std::move(inner)), spec, strides, offset);
  }
  // The call with the tensors of the backend below, which live as long as this.
  struct Inner {
    explicit Inner(const OpCall& outer) : call(outer) {
      call.reusable = 0;
      for (std::size_t i = 0; i < held.size(); ++i) {
        if (outer.inputs[i] == nullptr) continue;
        held[i] = unwrapped(*outer.inputs[i]);
        call.inputs[i] = &held[i];
      }
      for (Tensor& t : call.outputs) t = unwrapped(t);
    }
    std::array<Tensor, OpCall::max_inputs> held;
    OpCall call;
  };

  void spoil(const Tensor& t) {
    std::vector<float> values = to_host(t);
    const auto width = static_cast<std::size_t>(t.dim(-1));
    switch (fault.kind) {
      case Fault::Kind::none:
        return;
      case Fault::Kind::scaled:
        for (float& v : values) v *= 1.01f;
        break;
      case Fault::Kind::last_row_zero:
        std::fill(values.end() - static_cast<std::ptrdiff_t>(width), values.end(), 0.0f);
        break;
      case Fault::Kind::one_value:
        values[values.size() - width / 2] += 0.25f;
        break;
      case Fault::Kind::nan:
        values[values.size() - width / 2] = std::numeric_limits<float>::quiet_NaN();
        break;
      case Fault::Kind::infinite:
        values[values.size() - width / 2] = std::numeric_limits<float>::infinity();
        break;
    }
    inner_->write(t, values);
  }

  std::shared_ptr<Backend> inner_;
};

inline void install_faulty_device() {
  register_backend("faulty", [](const DeviceOptions& options) -> std::shared_ptr<Backend> {
    return std::make_shared<FaultyDevice>(options);
  });
}

}  // namespace ttt::test
