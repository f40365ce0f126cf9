// Keys that stand for several positions each (DeepSeek-V4's compressed attention).
#pragma once

#include <limits>
#include <string>

#include "ttt/model/build.h"

namespace ttt::models {

// Rotates the last dimensions of each head.
class TailRope {
 public:
  TailRope(const RopeSpec& spec, std::int64_t width)
      : rope_(spec, spec.rotary_dim), width_(width), turned_(spec.rotary_dim) {}
  Tensor forward(const Tensor& x, const Step& step) const { return joined(x, rope_.forward(tail(x), step)); }
  // Rows at positions of the caller's.
  Tensor forward(const Tensor& x, std::vector<std::int32_t> positions) const {
    Step step;
    step.tokens = x.dim(2), step.device = static_cast<Backend*>(&x.device());
    step.sequences = {{.count = step.tokens}};
    step.positions = std::move(positions);
    return forward(x, step);
  }
  // The other way round: a rotation of what is mirrored, mirrored.
  Tensor inverse(const Tensor& x, const Step& step) const {
    std::vector<float> signs;
    for (std::int64_t i = 0; i < turned_; ++i) signs.push_back(i % 2 == 0 ? 1.0f : -1.0f);
    const Tensor mirror = from_host(x.device(), signs, {1, 1, 1, turned_}, x.dtype());
    return joined(x, ops::mul(rope_.forward(ops::mul(tail(x), mirror), step), mirror));
  }

 private:
  Tensor tail(const Tensor& x) const { return ops::slice(x, -1, width_ - turned_, width_); }
  Tensor joined(const Tensor& x, const Tensor& tail) const {
    const Tensor parts[] = {ops::slice(x, -1, 0, width_ - turned_), tail};
    return ops::concat(parts, -1);
  }

  Rope rope_;
  std::int64_t width_, turned_;
};

struct CompressorSpec {
  std::int64_t rate = 0, width = 0;  // positions per entry, of an entry
  bool overlap = false;              // an entry reaches over the positions of the one before it too
  std::int64_t series() const { return overlap ? 2 : 1; }
  // Positions before a step that its entries may need.
  std::int64_t history() const { return series() * rate - 1; }
  std::vector<WeightSlot> weights(const std::string& part, std::int64_t dim) const {
    return {matrix_slot(part + ".kv", series() * width, dim),
            matrix_slot(part + ".gate", series() * width, dim),
            table_slot(part + ".bias", rate, series() * width), vector_slot(part + ".norm", width)};
  }
  StateSlot state(const std::string& part) const { return {part, history() * 2 * series() * width}; }
};

// Entry w is the mean of the tokens [w rate, (w + 1) rate) of x W_kv, each dimension weighted by a softmax of
// x W_gate + bias, normed and rotated to the position of the first; with overlap the mean is over a first
// series of the tokens before it and a second one of its own. It lies in the cache at the last of its
// positions.
class Compressor {
 public:
  Compressor(const BuildContext& c, const std::string& part, const CompressorSpec& spec, const TailRope& rope)
      : spec_(spec),
        name_(c.name / part),
        state_(part),
        in_(Linear::from_config(
            {.weight = LazyWeight::concat({c.weight(part + ".kv"), c.weight(part + ".gate")}),
             .name = name_ / "in",
             .out_dtype = DataType::f32},
            c.target, c.home)),
        bias_(c.vector(part + ".bias")),
        norm_(c.rms_norm(part + ".norm")),
        rope_(rope) {}

  // Makes the entries that end in this step and keeps what later ones need.
  void forward(const Tensor& x, const Tensor& cache, const Step& step) const {
    const Tensor in = in_.forward(x, step.mode);
    const std::int64_t history = spec_.history(), width = in.dim(3);
    const Tensor& kept = step.state->slots_of(name_.layer, state_, step.iteration);
    std::vector<Tensor> all;
    for (const SequenceRows& rows : step.sequences) {
      const Tensor before =
          rows.context == 0
              ? from_host(*step.device, std::vector<float>(static_cast<std::size_t>(history * width)),
                          {1, 1, history, width}, DataType::f32)
              : kept.narrow(0, rows.slot, rows.slot + 1).reshape({1, 1, history, width});
      const Tensor parts[] = {before, ops::slice(in, 2, rows.first, rows.first + rows.count)};
      const Tensor tokens = ops::concat(parts, 2);  // from position context - history on
      all.push_back(entries(tokens, rows, x.dtype()));
      const Tensor slot =
          from_host(*step.device, std::vector<std::int32_t>{static_cast<std::int32_t>(rows.slot)}, {1, 1});
      ops::paged_fill_cache(kept.reshape({kept.dim(0), 1, history, width}),
                            ops::slice(tokens, 2, rows.count, rows.count + history), slot);
    }
    fill_cache(cache, all.size() == 1 ? all.front() : ops::concat(all, 2), step);
  }

  // The entries of one sequence: [1, 1, n, width].
  Tensor cached(const Tensor& cache, const Step& step, const SequenceRows& rows) const {
    const std::int64_t n = (rows.context + rows.count) / spec_.rate;
    const Tensor held = ops::slice(cached_rows(cache, step, rows), 2, 0, n * spec_.rate);
    return ops::slice(held.reshape({1, 1, n, spec_.rate * spec_.width}), -1, (spec_.rate - 1) * spec_.width,
                      spec_.rate * spec_.width);
  }
  const CompressorSpec& spec() const { return spec_; }

 private:
  // For each row of the sequence the entry that it ends, else zeros: [1, 1, rows, width].
  Tensor entries(const Tensor& tokens, const SequenceRows& rows, DataType dtype) const {
    const std::int64_t rate = spec_.rate, width = spec_.width, first = rows.context / rate,
                       n = (rows.context + rows.count) / rate - first,
                       origin = rows.context - spec_.history();
    std::vector<std::int32_t> positions, lines(static_cast<std::size_t>(rows.count));
    for (std::int64_t w = first; w < first + n; ++w) {
      positions.push_back(static_cast<std::int32_t>(w * rate));
      lines[static_cast<std::size_t>((w + 1) * rate - 1 - rows.context)] =
          static_cast<std::int32_t>(w - first + 1);
    }
    std::vector<Tensor> table{from_host(tokens.device(), std::vector<float>(static_cast<std::size_t>(width)),
                                        {1, 1, 1, width}, dtype)};
    if (n > 0) {
      // Values and gates of the tokens of n windows from `from` on: [1, n, rate, width] of one series.
      const auto series = [&](std::int64_t from, std::int64_t which) {
        const std::int64_t begin = from * rate - origin, columns = spec_.series() * width;
        const Tensor window =
            ops::slice(tokens, 2, begin, begin + n * rate).reshape({1, n, rate, 2 * columns});
        const auto part = [&](const Tensor& t, std::int64_t at) { return ops::slice(t, -1, at, at + width); };
        const Tensor bias = part(bias_.get(), which * width).reshape({1, 1, rate, width});
        return std::pair{part(window, which * width), ops::add(part(window, columns + which * width), bias)};
      };
      auto [values, gates] = series(first, spec_.overlap ? 1 : 0);
      if (spec_.overlap) {
        const auto [values_before, gates_before] = series(first - 1, 0);
        std::vector<float> closed(static_cast<std::size_t>(n));  // nothing stands before a sequence
        if (first == 0) closed[0] = -std::numeric_limits<float>::infinity();
        const Tensor open =
            ops::add(gates_before, from_host(tokens.device(), closed, {1, n, 1, 1}, DataType::f32));
        values = ops::concat(std::vector<Tensor>{values_before, values}, 2);
        gates = ops::concat(std::vector<Tensor>{open, gates}, 2);
      }
      const Tensor mean = ops::sum(ops::mul(values, ops::softmax(gates, 2)), 2).reshape({1, 1, n, width});
      table.push_back(rope_.forward(norm_.forward(ops::typecast(mean, dtype)), positions));
    }
    const Tensor ids = from_host(tokens.device(), lines, {1, 1, 1, rows.count});
    return ops::embedding(ids, table.size() == 1 ? table.front() : ops::concat(table, 2));
  }

  CompressorSpec spec_;
  ModuleName name_;
  std::string state_;
  Linear in_;
  LazyWeight bias_;
  RmsNorm norm_;
  TailRope rope_;
};

}  // namespace ttt::models
