// Small weights, steps and a plain float reference for the tests of modules.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "ttt/modules/module.h"

namespace ttt::test {

// Values in [-1, 1) times `scale`, a function of the seed only.
inline std::vector<float> values(std::size_t n, std::uint64_t seed, float scale = 1) {
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t z = (seed + 1) * 0x9E3779B97F4A7C15u + i * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    out[i] = (static_cast<float>(z >> 40) / 8388608.0f - 1.0f) * scale;
  }
  return out;
}

// A matrix as stored, [rows, cols], with its values at hand.
struct Matrix {
  std::int64_t rows, cols;
  std::vector<float> data;
  LazyWeight weight(WeightRole role = WeightRole::linear) const {
    return LazyWeight::from_values(data, rows, cols, role);
  }
};
inline Matrix matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  return {rows, cols,
          values(static_cast<std::size_t>(rows * cols), seed, 1.0f / std::sqrt(static_cast<float>(cols)))};
}
inline Matrix vector(std::int64_t n, std::uint64_t seed, float scale = 0.3f) {
  return {1, n, values(static_cast<std::size_t>(n), seed, scale)};
}

// y[t] = W x[t] (+ b), W as stored [out, in].
inline std::vector<float> multiply(const Matrix& w, const std::vector<float>& x,
                                   const std::vector<float>& bias = {}) {
  const std::size_t in = static_cast<std::size_t>(w.cols), out = static_cast<std::size_t>(w.rows),
                    tokens = x.size() / in;
  std::vector<float> y(tokens * out);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t o = 0; o < out; ++o) {
      double sum = bias.empty() ? 0 : bias[o];
      for (std::size_t i = 0; i < in; ++i) sum += static_cast<double>(w.data[o * in + i]) * x[t * in + i];
      y[t * out + o] = static_cast<float>(sum);
    }
  return y;
}

inline Target f32_target() { return make_target(hw::cpu(), "f32"); }
inline Home cpu_home() {
  static const std::shared_ptr<Backend> device = open_device("cpu");
  return {.device = device, .cache = {}, .bound = {}};
}

// One sequence as a step takes it: new rows after `context` earlier ones.
struct Part {
  std::int64_t context, count;
};

// Sequences one after the other, each with blocks of its own in reverse order, so that page tables matter.
// Decode rows must come first.
class Stage {
 public:
  Stage(std::size_t sequences, int kv_heads, int head_dim, DataType kv, int v_head_dim,
        std::int64_t block_size = 4, std::int64_t blocks_each = 16, Backend& device = cpu_home().backend())
      : device_(device), blocks_each_(blocks_each) {
    state_.blocks = static_cast<std::int64_t>(sequences) * blocks_each;
    state_.block_size = block_size;
    state_.kv[{0, 0}] = {cache(kv_heads, head_dim, kv),
                         v_head_dim > 0 ? cache(kv_heads, v_head_dim, kv) : Tensor()};
  }
  void add_indexer(int head_dim, DataType kv) { state_.kv[{0, 0}].indexer = cache(1, head_dim, kv); }

  // `which[i]` is the sequence that parts[i] continues.
  Step step(const std::vector<Part>& parts, const std::vector<std::size_t>& which) {
    Step s;
    s.state = &state_;
    s.device = &device_;
    std::vector<std::int32_t> table, decode_positions;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      s.sequences.push_back({.first = s.tokens,
                             .count = parts[i].count,
                             .context = parts[i].context,
                             .page_row = static_cast<std::int64_t>(i)});
      for (std::int64_t k = 0; k < parts[i].count; ++k)
        s.positions.push_back(static_cast<std::int32_t>(parts[i].context + k));
      if (parts[i].count == 1)
        decode_positions.push_back(static_cast<std::int32_t>(parts[i].context)), ++s.decode_rows;
      for (std::int64_t b = 0; b < blocks_each_; ++b)
        table.push_back(
            static_cast<std::int32_t>((static_cast<std::int64_t>(which[i]) + 1) * blocks_each_ - 1 - b));
      s.tokens += parts[i].count;
    }
    s.mode = s.decode_rows == s.tokens ? Mode::decode : Mode::prefill;
    s.page_table = from_host(device_, table, {static_cast<std::int64_t>(parts.size()), blocks_each_});
    if (s.decode_rows > 0) s.decode_positions = from_host(device_, decode_positions, {s.decode_rows});
    return s;
  }

 private:
  Tensor cache(int heads, int width, DataType kv) const {
    return device_.allocate({.shape = {state_.blocks, heads, state_.block_size, width}, .dtype = kv});
  }

  Backend& device_;
  State state_;
  std::int64_t blocks_each_;
};

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - b[i]);
    if (!(d <= most)) most = std::isnan(d) ? INFINITY : d;
  }
  return most;
}

}  // namespace ttt::test
