// A device for tests: row-major memory in float32 or int32, weights packed as float32 [rows, cols] of the
// rounded values.
#pragma once

#include <atomic>
#include <cstring>
#include <vector>

#include "ttt/tensor/block_float.h"
#include "ttt/tensor/device.h"

namespace ttt {

class FakeBuffer final : public Buffer {
 public:
  FakeBuffer(Device& device, std::vector<float> values) : Buffer(device), values_(std::move(values)) {}
  FakeBuffer(Device& device, std::span<const std::byte> packed, std::shared_ptr<const void> owner)
      : Buffer(device), packed_(packed), owner_(std::move(owner)) {}
  std::size_t bytes() const override { return values_.size() * 4 + packed_.size(); }
  std::byte* data() override { return reinterpret_cast<std::byte*>(values_.data()); }
  float at(std::size_t i) const {
    if (packed_.empty()) return values_.at(i);
    float value;
    std::memcpy(&value, packed_.data() + 4 * i, 4);
    return value;
  }
  std::vector<float>& values() { return values_; }
  std::span<const std::byte> packed() const { return packed_; }

 private:
  std::vector<float> values_;
  std::span<const std::byte> packed_;
  std::shared_ptr<const void> owner_;
};

class FakeDevice final : public Device {
 public:
  std::string pack_format = "fake 1";
  std::atomic<int> packs{0};

  std::string_view name() const override { return "fake"; }
  std::string description() const override { return "fake"; }
  Tensor allocate(const TensorSpec& spec) override {
    return Tensor(std::make_shared<FakeBuffer>(
                      *this, std::vector<float>(static_cast<std::size_t>(spec.shape.elements()))),
                  spec);
  }
  void write(const Tensor& t, std::span<const float> v) override { store(t, v); }
  void write(const Tensor& t, std::span<const std::int32_t> v) override { store(t, v); }
  void read(const Tensor& t, std::span<float> v) override { fetch(t, v); }
  void read(const Tensor& t, std::span<std::int32_t> v) override { fetch(t, v); }

  std::string packing(const WeightSpec&) const override { return pack_format; }
  std::size_t packed_bytes(const WeightSpec& spec, std::int64_t rows, std::int64_t cols) const override {
    const std::size_t size = pack_format == row_major_packing ? element_size(spec.dtype) : 4;
    return static_cast<std::size_t>(rows * cols) * size;
  }
  void pack(const WeightSource& source, const WeightSpec& spec, std::span<std::byte> out) override {
    ++packs;
    std::vector<float> values(static_cast<std::size_t>(source.rows() * source.cols()));
    source.read(0, source.rows(), values.data());
    for (float& v : values) v = spec.dtype == DataType::bf16 ? round_to_bf16(v) : v;
    require_equal(out.size(), values.size() * 4);
    std::memcpy(out.data(), values.data(), out.size());
  }
  Tensor adopt(const WeightSpec& spec, std::int64_t rows, std::int64_t cols,
               std::span<const std::byte> packed, std::shared_ptr<const void> owner) override {
    return Tensor(std::make_shared<FakeBuffer>(*this, packed, std::move(owner)),
                  {.shape = weight_shape(spec, rows, cols), .dtype = spec.dtype});
  }

 private:
  static void require_equal(std::size_t a, std::size_t b) {
    if (a != b) throw Error("fake device: wrong size");
  }
  template <class F>
  static void visit(const Tensor& t, F&& f) {
    const Shape& s = t.shape();
    for (std::int64_t i = 0; i < s.elements(); ++i) {
      std::int64_t rest = i, at = t.offset();
      for (int axis = s.rank() - 1; axis >= 0; --axis)
        at += rest % s[axis] * t.strides()[axis], rest /= s[axis];
      f(static_cast<std::size_t>(i), static_cast<std::size_t>(at));
    }
  }
  template <class T>
  static void store(const Tensor& t, std::span<const T> v) {
    auto& buffer = static_cast<FakeBuffer&>(t.buffer());
    visit(t, [&](std::size_t i, std::size_t at) { buffer.values().at(at) = static_cast<float>(v[i]); });
  }
  template <class T>
  static void fetch(const Tensor& t, std::span<T> v) {
    auto& buffer = static_cast<FakeBuffer&>(t.buffer());
    visit(t, [&](std::size_t i, std::size_t at) { v[i] = static_cast<T>(buffer.at(at)); });
  }
};

}  // namespace ttt
