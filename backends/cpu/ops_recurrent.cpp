// Recurrences: causal_conv1d, selective_scan, gated_delta_rule, linear_recurrence. Pieces of work are
// (sequence, part of the state): within a piece tokens follow each other, so neither threads nor the cut of a
// sequence into steps change a result.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "access.h"

namespace ttt::inline v2::cpu {

namespace {

struct Segment {
  std::int64_t first = 0, rows = 0, slot = 0;
  bool begins = false;
};

Segment segment(const OpCall& call, std::int64_t i) {
  const std::int32_t* values = call.in(in_place_operand(call.op) + 1).data<std::int32_t>() + i * 4;
  return {values[0], values[1], values[2], values[3] != 0};
}

// Every row and slot that the segments name exists; rows that none names would stay undefined.
std::int64_t checked_segments(const OpCall& call) {
  const std::int64_t tokens = call.in(0).dim(2), slots = call.in(in_place_operand(call.op)).dim(0),
                     count = call.in(in_place_operand(call.op) + 1).dim(0);
  std::int64_t covered = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Segment s = segment(call, i);
    if (s.first < 0 || s.rows < 0 || s.first + s.rows > tokens || s.slot < 0 || s.slot >= slots)
      throw Error("[" + std::string(name(call.op)) + "] segment of rows " + std::to_string(s.first) + " + " +
                  std::to_string(s.rows) + " of " + std::to_string(tokens) + ", slot " +
                  std::to_string(s.slot) + " of " + std::to_string(slots));
    covered += s.rows;
  }
  if (covered != tokens)
    throw Error("[" + std::string(name(call.op)) + "] the segments have " + std::to_string(covered) + " of " +
                std::to_string(tokens) + " rows");
  return count;
}

// The rows of an operand [1, 1, tokens, width].
class Rows {
 public:
  Rows() = default;
  Rows(const Kernels& k, const Tensor& t) : kernels_(&k), elements_(t), stride_(t.strides()[2]) {}
  // Columns [begin, begin + n) of a row, in `buffer` or where they lie.
  const float* at(std::int64_t row, std::int64_t begin, std::int64_t n, float* buffer) const {
    return values_at(*kernels_, elements_, row * stride_ + begin, n, buffer);
  }
  void store(const float* values, std::int64_t row, std::int64_t begin, std::int64_t n) const {
    store_values(*kernels_, values, elements_, row * stride_ + begin, n);
  }

 private:
  const Kernels* kernels_ = nullptr;
  Elements elements_;
  std::int64_t stride_ = 0;
};

// Memory of one thread, handed out in parts.
class Memory {
 public:
  Memory(CpuDevice& device, int thread, std::int64_t floats)
      : next_(reinterpret_cast<float*>(device.scratch(thread, static_cast<std::size_t>(floats + 64) * 4))) {}
  float* take(std::int64_t n) { return std::exchange(next_, next_ + n); }

 private:
  float* next_;
};

// Small operands in float32, all of each: where they lie, or in memory that all threads read. Empty: absent.
template <std::size_t n>
std::array<std::span<const float>, n> small(CpuDevice& device, const OpCall& call, const int (&operands)[n]) {
  constexpr std::int64_t alignment = 16;
  const auto count = [&](int i) { return call.has(i) ? call.in(i).shape().elements() : 0; };
  std::int64_t floats = 0;
  for (const int i : operands) floats += round_up(count(i), alignment);
  auto* next = reinterpret_cast<float*>(device.shared_scratch(static_cast<std::size_t>(floats) * 4));
  std::array<std::span<const float>, n> values;
  for (std::size_t at = 0; at < n; ++at) {
    const std::int64_t size = count(operands[at]);
    if (size == 0) continue;
    values[at] = {values_at(device.kernels(), Elements(call.in(operands[at])), 0, size, next),
                  static_cast<std::size_t>(size)};
    next += round_up(size, alignment);
  }
  return values;
}

float* state_row(const OpCall& call, std::int64_t slot) {
  const Tensor& state = call.in(in_place_operand(call.op));
  return state.data<float>() + slot * state.dim(1);
}

// Eight partial sums, so that the compiler can keep them in a register.
constexpr std::int64_t lanes = 8;

float total(const float* partial) {
  return ((partial[0] + partial[4]) + (partial[2] + partial[6])) +
         ((partial[1] + partial[5]) + (partial[3] + partial[7]));
}

// s = decay s + input b;  returns c . s
float step_vector(float* s, const float* decay, const float* b, const float* c, float input, std::int64_t n) {
  float partial[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::int64_t j = 0; j < lanes; ++j) {
      const float value = decay[i + j] * s[i + j] + input * b[i + j];
      s[i + j] = value;
      partial[j] += c[i + j] * value;
    }
  }
  for (; i < n; ++i) {
    s[i] = decay[i] * s[i] + input * b[i];
    partial[i % lanes] += c[i] * s[i];
  }
  return total(partial);
}

// The same with one decay.
float step_scalar(float* s, float decay, const float* b, const float* c, float input, std::int64_t n) {
  float partial[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::int64_t j = 0; j < lanes; ++j) {
      const float value = decay * s[i + j] + input * b[i + j];
      s[i + j] = value;
      partial[j] += c[i + j] * value;
    }
  }
  for (; i < n; ++i) {
    s[i] = decay * s[i] + input * b[i];
    partial[i % lanes] += c[i] * s[i];
  }
  return total(partial);
}

constexpr std::int64_t channel_block = 256;

void conv1d(CpuDevice& device, OpCall& call, const Tensor& y) {
  const Kernels& k = device.kernels();
  const Tensor &x = call.in(0), &weight = call.in(1);
  const Activation act = call.as<RecurrentAttributes>().activation;
  const std::int64_t channels = x.dim(3), kernel = weight.dim(3), past = kernel - 1;
  const std::int64_t blocks = (channels + channel_block - 1) / channel_block;
  const Rows from(k, x), to(k, y);
  const auto operands = small(device, call, {1, 2});
  const std::span<const float>&w = operands[0], &bias = operands[1];
  const std::int64_t sequences = checked_segments(call);
  const std::int64_t cost = x.dim(2) / std::max<std::int64_t>(sequences, 1) * channel_block * kernel;
  for_each_piece(device, sequences * blocks, cost, [&](std::int64_t begin, std::int64_t end, int thread) {
    Memory memory(device, thread, channel_block * (2 * kernel + 2));
    float *taps = memory.take(channel_block * kernel), *window = memory.take(channel_block * kernel),
          *sum = memory.take(channel_block);
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Segment s = segment(call, piece / blocks);
      if (s.rows == 0) continue;
      const std::int64_t c0 = piece % blocks * channel_block, n = std::min(channel_block, channels - c0);
      float* state = state_row(call, s.slot) + c0;
      for (std::int64_t i = 0; i < kernel; ++i) {
        for (std::int64_t c = 0; c < n; ++c)
          taps[i * n + c] = w[static_cast<std::size_t>((c0 + c) * kernel + i)];
      }
      for (std::int64_t i = 0; i < past; ++i) {
        for (std::int64_t c = 0; c < n; ++c) window[i * n + c] = s.begins ? 0.0f : state[i * channels + c];
      }
      // Input t stands in row (past + t) % kernel of the window.
      for (std::int64_t t = 0; t < s.rows; ++t) {
        float* newest = window + (past + t) % kernel * n;
        const float* in = from.at(s.first + t, c0, n, newest);
        if (in != newest) std::copy_n(in, n, newest);
        if (bias.empty()) {
          std::fill_n(sum, n, 0.0f);
        } else {
          std::copy_n(bias.data() + c0, n, sum);
        }
        for (std::int64_t i = 0; i < kernel; ++i) {
          const float *tap = taps + i * n, *input = window + (t + i) % kernel * n;
          for (std::int64_t c = 0; c < n; ++c) sum[c] += tap[c] * input[c];
        }
        if (act.op != UnaryOp::identity) k.unary(static_cast<Fn>(act.op), act.a, act.b, sum, sum, n);
        to.store(sum, s.first + t, c0, n);
      }
      for (std::int64_t i = 0; i < past; ++i)
        std::copy_n(window + (s.rows + i) % kernel * n, n, state + i * channels);
    }
  });
}

void scan(CpuDevice& device, OpCall& call, const Tensor& y) {
  const Kernels& k = device.kernels();
  const auto& at = call.as<RecurrentAttributes>();
  const Tensor &x = call.in(0), &b = call.in(3), &c = call.in(4);
  const std::int64_t heads = at.heads, per_group = heads / at.groups, p = x.dim(3) / heads,
                     n = b.dim(3) / at.groups;
  const auto operands = small(device, call, {2, 5, 6});
  const std::span<const float>&a = operands[0], &d = operands[1], &dt_bias = operands[2];
  const bool matrix = !a.empty() && static_cast<std::int64_t>(a.size()) != heads;
  // Heads of one group go together until there is enough to do for a token.
  const std::int64_t block = std::clamp<std::int64_t>(2048 / (p * n), 1, per_group),
                     blocks_per_group = (per_group + block - 1) / block,
                     blocks = blocks_per_group * at.groups;
  const Rows xs(k, x), bs(k, b), cs(k, c), dts = call.has(1) ? Rows(k, call.in(1)) : Rows(), to(k, y);
  const std::int64_t sequences = checked_segments(call);
  const std::int64_t cost = 4 * (x.dim(2) / std::max<std::int64_t>(sequences, 1)) * block * p * n;
  for_each_piece(device, sequences * blocks, cost, [&](std::int64_t begin, std::int64_t end, int thread) {
    Memory memory(device, thread, 2 * n + 2 * block * p + block * 3 + block * n);
    float *b_buffer = memory.take(n), *c_buffer = memory.take(n), *x_buffer = memory.take(block * p),
          *out = memory.take(block * p), *dt_buffer = memory.take(block), *dt = memory.take(block),
          *decay = memory.take(block * std::max<std::int64_t>(n, 1));
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Segment s = segment(call, piece / blocks);
      if (s.rows == 0) continue;
      const std::int64_t group = piece % blocks / blocks_per_group,
                         h0 = group * per_group + piece % blocks % blocks_per_group * block,
                         count = std::min(block, (group + 1) * per_group - h0);
      float* state = state_row(call, s.slot) + h0 * p * n;
      if (s.begins) std::fill_n(state, count * p * n, 0.0f);
      const std::int64_t decays = matrix ? count * n : count;
      for (std::int64_t t = s.first; t < s.first + s.rows; ++t) {
        const float *bt = bs.at(t, group * n, n, b_buffer), *ct = cs.at(t, group * n, n, c_buffer),
                    *xt = xs.at(t, h0 * p, count * p, x_buffer);
        std::fill_n(dt, count, 1.0f);
        if (call.has(1)) {
          std::copy_n(dts.at(t, h0, count, dt_buffer), count, dt);
          if (!dt_bias.empty()) k.binary(Fn2::add, dt, dt_bias.data() + h0, dt, count);
          if (at.softplus) k.unary(Fn::softplus, 0, 0, dt, dt, count);
          if (at.dt_min || at.dt_max) {
            constexpr float infinity = std::numeric_limits<float>::infinity();
            k.unary(Fn::clamp, at.dt_min.value_or(-infinity), at.dt_max.value_or(infinity), dt, dt, count);
          }
        }
        if (call.has(1) || !a.empty()) {
          for (std::int64_t h = 0; h < count; ++h) {
            if (matrix) {
              for (std::int64_t i = 0; i < n; ++i)
                decay[h * n + i] = dt[h] * a[static_cast<std::size_t>((h0 + h) * n + i)];
            } else {
              decay[h] = a.empty() ? dt[h] : dt[h] * a[static_cast<std::size_t>(h0 + h)];
            }
          }
          k.unary(Fn::exp, 0, 0, decay, decay, decays);
        } else {
          std::fill_n(decay, decays, 1.0f);
        }
        for (std::int64_t h = 0; h < count; ++h) {
          for (std::int64_t i = 0; i < p; ++i) {
            const float value = xt[h * p + i], input = call.has(1) && at.scale_input ? value * dt[h] : value;
            float* row = state + (h * p + i) * n;
            const float read = matrix ? step_vector(row, decay + h * n, bt, ct, input, n)
                                      : step_scalar(row, decay[h], bt, ct, input, n);
            out[h * p + i] = d.empty() ? read : read + d[static_cast<std::size_t>(h0 + h)] * value;
          }
        }
        to.store(out, t, h0 * p, count * p);
      }
    }
  });
}

void delta_rule(CpuDevice& device, OpCall& call, const Tensor& y) {
  const Kernels& k = device.kernels();
  const auto& at = call.as<RecurrentAttributes>();
  const Tensor &q = call.in(0), &v = call.in(2), &g = call.in(3);
  const std::int64_t heads = at.heads, per_key = heads / at.groups, kd = q.dim(3) / at.groups,
                     vd = v.dim(3) / heads, gates = g.dim(3) / heads;
  const float scale = at.scale != 0 ? at.scale : 1 / std::sqrt(static_cast<float>(kd));
  const Rows qs(k, q), ks(k, call.in(1)), vs(k, v), gs(k, g), betas(k, call.in(4)), to(k, y);
  const std::int64_t sequences = checked_segments(call);
  const std::int64_t cost = 6 * (q.dim(2) / std::max<std::int64_t>(sequences, 1)) * kd * vd;
  for_each_piece(device, sequences * heads, cost, [&](std::int64_t begin, std::int64_t end, int thread) {
    Memory memory(device, thread, 5 * kd + 4 * vd + 16);
    float *buffer = memory.take(kd), *qt = memory.take(kd), *kt = memory.take(kd), *decay = memory.take(kd),
          *v_buffer = memory.take(vd), *error = memory.take(vd), *out = memory.take(vd),
          *beta_buffer = memory.take(8);
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Segment s = segment(call, piece / heads);
      if (s.rows == 0) continue;
      const std::int64_t head = piece % heads, key = head / per_key;
      float* state = state_row(call, s.slot) + head * kd * vd;
      if (s.begins) std::fill_n(state, kd * vd, 0.0f);
      const auto direction = [&](const Rows& rows, std::int64_t t, float factor, float* to_) {
        const float* values = rows.at(t, key * kd, kd, buffer);
        if (at.l2norm_eps) factor *= 1 / std::sqrt(k.sum_squares(values, 0, kd) + *at.l2norm_eps);
        for (std::int64_t i = 0; i < kd; ++i) to_[i] = values[i] * factor;
      };
      for (std::int64_t t = s.first; t < s.first + s.rows; ++t) {
        direction(qs, t, scale, qt);
        direction(ks, t, 1, kt);
        k.unary(Fn::exp, 0, 0, gs.at(t, head * gates, gates, buffer), decay, gates);
        const float* value = vs.at(t, head * vd, vd, v_buffer);
        const float beta = *betas.at(t, head, 1, beta_buffer);
        std::fill_n(error, vd, 0.0f);
        for (std::int64_t i = 0; i < kd; ++i) {
          float* row = state + i * vd;
          const float factor = decay[gates == 1 ? 0 : i], key_value = kt[i];
          for (std::int64_t j = 0; j < vd; ++j) {
            row[j] *= factor;
            error[j] += key_value * row[j];
          }
        }
        for (std::int64_t j = 0; j < vd; ++j) error[j] = (value[j] - error[j]) * beta;
        std::fill_n(out, vd, 0.0f);
        for (std::int64_t i = 0; i < kd; ++i) {
          float* row = state + i * vd;
          const float key_value = kt[i], query = qt[i];
          for (std::int64_t j = 0; j < vd; ++j) {
            row[j] += key_value * error[j];
            out[j] += query * row[j];
          }
        }
        to.store(out, t, head * vd, vd);
      }
    }
  });
}

void recurrence(CpuDevice& device, OpCall& call, const Tensor& y) {
  const Kernels& k = device.kernels();
  const auto& at = call.as<RecurrentAttributes>();
  const Tensor& a = call.in(0);
  const std::int64_t channels = a.dim(3), blocks = (channels + channel_block - 1) / channel_block;
  const Rows as(k, a), bs(k, call.in(1)), to(k, y);
  const std::int64_t sequences = checked_segments(call);
  const std::int64_t cost = 2 * (a.dim(2) / std::max<std::int64_t>(sequences, 1)) * channel_block;
  for_each_piece(device, sequences * blocks, cost, [&](std::int64_t begin, std::int64_t end, int thread) {
    Memory memory(device, thread, 3 * channel_block);
    float *a_buffer = memory.take(channel_block), *b_buffer = memory.take(channel_block);
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const Segment s = segment(call, piece / blocks);
      if (s.rows == 0) continue;
      const std::int64_t c0 = piece % blocks * channel_block, n = std::min(channel_block, channels - c0);
      float* h = state_row(call, s.slot) + c0;
      if (s.begins) std::fill_n(h, n, at.initial);
      for (std::int64_t t = s.first; t < s.first + s.rows; ++t) {
        const float *at_t = as.at(t, c0, n, a_buffer), *bt = bs.at(t, c0, n, b_buffer);
        if (at.exclusive) to.store(h, t, c0, n);
        if (at.max_plus) {
          for (std::int64_t c = 0; c < n; ++c) h[c] = std::max(at_t[c] + h[c], bt[c]);
        } else {
          for (std::int64_t c = 0; c < n; ++c) h[c] = at_t[c] * h[c] + bt[c];
        }
        if (!at.exclusive) to.store(h, t, c0, n);
      }
    }
  });
}

}  // namespace

void run_recurrent(CpuDevice& device, OpCall& call) {
  const Tensor y = device.allocate(call.output_specs[0]);
  switch (call.op) {
    case OpKind::causal_conv1d:
      conv1d(device, call, y);
      break;
    case OpKind::selective_scan:
      scan(device, call, y);
      break;
    case OpKind::gated_delta_rule:
      delta_rule(device, call, y);
      break;
    default:
      recurrence(device, call, y);
      break;
  }
  call.outputs[0] = y;
}

// What lies where run_recurrent() reads it: dense rows, and whole small operands.
bool supports_recurrent(const OpCall& call) {
  const int state = in_place_operand(call.op);
  for (int i = 0; i < state; ++i) {
    if (!call.has(i)) continue;
    const Tensor& t = call.in(i);
    const bool per_token = call.op == OpKind::causal_conv1d
                               ? i == 0
                               : call.op != OpKind::selective_scan || i == 0 || i == 1 || i == 3 || i == 4;
    if (is_packed(t) || (t.dtype() != DataType::f32 && t.dtype() != DataType::bf16)) return false;
    if (per_token ? t.dim(-1) > 1 && t.strides()[-1] != 1 : !t.contiguous()) return false;
  }
  return call.in(state + 1).contiguous() && !is_block_float(call.output_specs[0].dtype);
}

}  // namespace ttt::inline v2::cpu
