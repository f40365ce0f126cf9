// Residual streams with gates of low rank between them, and what the last tokens add to them.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "ttt/convert/hf_config.h"
#include "ttt/model/build.h"
#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/token_shift.h"

namespace ttt::models {

// Each stream's norm, times its own weights: x [1, 1, tokens, streams * dim] -> the same.
inline Tensor stream_norm(const Tensor& x, const LazyWeight& weight, std::int64_t streams, float eps) {
  const std::int64_t dim = x.dim(3) / streams;
  const Tensor n =
      ops::rms_norm(x.reshape({1, x.dim(2), streams, dim}), {.epsilon = eps, .dtype = DataType::f32});
  return ops::mul(n, weight.get().reshape({1, 1, streams, dim}), {.dtype = x.dtype()}).reshape(x.shape());
}

// n = norm(streams);  x = mean of the streams of sigmoid(silu(n W_down / count) W_up) n
// streams += y times 2 sigmoid(n W_inject / count)
class GatedStreams {
 public:
  GatedStreams(const BuildContext& c, const std::string& part, int streams)
      : streams_(streams),
        eps_(c.spec.norm.eps),
        norm_(c.vector(part + ".norm")),
        down_(c.linear(part + ".down", {UnaryOp::mul_scalar, 1 / static_cast<float>(streams)})),
        up_(c.linear(part + ".up", {UnaryOp::sigmoid})) {
    if (c.weight(part + ".inject"))
      inject_.emplace(c.linear(part + ".inject", {UnaryOp::mul_scalar, 1 / static_cast<float>(streams)}));
  }
  struct Read {
    Tensor x, inject;  // [1, 1, tokens, dim], [1, tokens, streams, 1]
  };
  Read read(const Tensor& streams, Mode mode) const {
    const std::int64_t tokens = streams.dim(2), dim = streams.dim(3) / streams_;
    const Tensor n = stream_norm(streams, norm_, streams_, eps_);
    const Tensor gate = up_.forward(ops::unary(down_.forward(n, mode), {UnaryOp::silu}), mode);
    Read r;
    r.x = ops::mean(ops::mul(n, gate).reshape({1, tokens, streams_, dim}), 2).reshape({1, 1, tokens, dim});
    if (inject_)
      r.inject = ops::mul(ops::unary(inject_->forward(n, mode), {UnaryOp::sigmoid}), 2.0f)
                     .reshape({1, tokens, streams_, 1});
    return r;
  }
  Tensor write(const Tensor& y, const Read& r, const Tensor& streams) const {
    const Tensor each = ops::mul(r.inject, y.reshape({1, y.dim(2), 1, y.dim(3)}));
    return ops::add(streams, each.reshape(streams.shape()));
  }

 private:
  std::int64_t streams_;
  float eps_;
  LazyWeight norm_;
  Linear down_, up_;
  std::optional<Linear> inject_;
};

// The rows of a table that hashes of the last 2 .. n tokens name, `heads` for each length.
class NgramHash {
 public:
  NgramHash(int n, int heads, std::int64_t base, std::int64_t vocab, std::int64_t seed, int index,
            std::int32_t eos)
      : n_(n), heads_(heads), eos_(eos) {
    const std::uint64_t step = 0x9E3779B97F4A7C15u,
                        bound =
                            std::max<std::uint64_t>(1, (INT64_MAX / static_cast<std::uint64_t>(vocab)) / 2);
    for (int i = 0; i < n; ++i) {
      std::uint64_t z =
          static_cast<std::uint64_t>(seed + 10007 * index) + step * static_cast<std::uint64_t>(i + 1) + step;
      z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;  // splitmix64 (Steele et al. 2014)
      z = (z ^ z >> 27) * 0x94D049BB133111EBu;
      multipliers_.push_back(2 * ((z ^ z >> 31) % bound) + 1);
    }
    // Sizes are the primes from `base` on; those of earlier layers are not used again.
    const int all = (n - 1) * heads;
    for (std::int64_t prime = base - 1, found = 0; static_cast<int>(sizes_.size()) < all;) {
      while (!is_prime(++prime)) {}
      if (found++ < std::int64_t{index} * all) continue;
      offsets_.push_back(entries_), sizes_.push_back(prime);
      entries_ += prime;
    }
  }
  std::int64_t entries() const { return entries_; }
  // `before[s][t]` is the token s + 1 before token t plus one, 0 where there is none -> (n - 1) * heads rows
  // each.
  std::vector<std::int32_t> rows(const std::vector<std::int32_t>& ids,
                                 const std::vector<std::vector<float>>& before) const {
    std::vector<std::int32_t> rows;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      std::uint64_t mixed = static_cast<std::uint64_t>(ids[t]) * multipliers_[0];
      bool ended = false;  // n-grams do not reach over the end of a text
      for (int s = 1; s < n_; ++s) {
        const auto token = static_cast<std::int32_t>(before[static_cast<std::size_t>(s - 1)][t]) - 1;
        ended = ended || token < 0 || token == eos_;
        mixed ^= static_cast<std::uint64_t>(ended ? eos_ : token) * multipliers_[static_cast<std::size_t>(s)];
        for (int h = 0; h < heads_; ++h) {
          const auto i = static_cast<std::size_t>((s - 1) * heads_ + h);
          rows.push_back(static_cast<std::int32_t>(
              offsets_[i] + static_cast<std::int64_t>(mixed % static_cast<std::uint64_t>(sizes_[i]))));
        }
      }
    }
    return rows;
  }

 private:
  static bool is_prime(std::int64_t n) {
    for (std::int64_t d = 2; d * d <= n; ++d)
      if (n % d == 0) return false;
    return n > 1;
  }
  int n_, heads_;
  std::int32_t eos_;
  std::int64_t entries_ = 0;
  std::vector<std::uint64_t> multipliers_;
  std::vector<std::int64_t> sizes_, offsets_;
};

inline NgramHash ngram_hash(const HfConfig& c, int index) {
  const auto eos = c.json("eos_token_id").starts_with('[') ? c.get<std::vector<int>>("eos_token_id").at(0)
                                                           : c.get<int>("eos_token_id");
  return {c.get<int>("ngram_size"),
          c.get<int>("heads_per_ngram"),
          c.get<int>("ngram_vocab_size_base"),
          c.get<int>("vocab_size"),
          c.get<int>("seed"),
          index,
          eos};
}

// e = table[hash of the last tokens];  gate = sqrt(|g|) sign(g) of g = norm(e W_k) . norm(stream) / sqrt(dim)
// v = sigmoid(gate) e W_v;  y = v + silu(conv(norm(v))), of each stream, the convolution's taps n tokens
// apart
class NgramFeatures {
 public:
  NgramFeatures(const BuildContext& c, const HfConfig& p, int streams)
      : name_(c.name / "ple"),
        streams_(streams),
        n_(p.get<int>("ngram_size")),
        eps_(c.spec.norm.eps),
        hash_(ngram_hash(p, p.get<int>("ple"))),
        table_(c.home.bind(c.weight("ple.table"), DataType::bf16)),
        norm_key_(c.vector("ple.norm_key")),
        norm_query_(c.vector("ple.norm_query")),
        norm_conv_(c.vector("ple.norm_conv")),
        key_(c.linear("ple.key")),
        value_(c.linear("ple.value")),
        shift_(1, c.home),
        conv_(CausalConv1d::from_config({.weight = spread_taps(c.weight("ple.conv").source(), n_),
                                         .name = name_ / "conv",
                                         .act = Activation{UnaryOp::silu},
                                         .state = "ple.conv"},
                                        c.target, c.home)) {}
  Tensor forward(const Tensor& streams, const Step& step) const {
    const std::int64_t tokens = step.tokens, dim = streams.dim(3) / streams_;
    const Shape by_stream{1, tokens, streams_, dim};
    const Tensor e = embed(step, streams.dtype());
    const auto normed = [&](const Tensor& x, const LazyWeight& w) {
      return stream_norm(x, w, streams_, eps_);
    };
    const Tensor product = ops::mul(normed(key_.forward(e, step.mode), norm_key_),
                                    normed(streams, norm_query_), {.dtype = DataType::f32});
    const Tensor g = ops::mul(ops::sum(product.reshape(by_stream)), 1 / std::sqrt(static_cast<float>(dim)));
    const Tensor root = ops::unary(
        ops::clamp(ops::unary(g, {UnaryOp::abs}), 1e-6f, std::numeric_limits<float>::max()), {UnaryOp::sqrt});
    const Tensor gate =
        ops::unary(ops::mul(root, g, {.rhs_activation = {UnaryOp::sign}}), {UnaryOp::sigmoid});
    const Tensor v =
        ops::mul(gate, value_.forward(e, step.mode).reshape({1, tokens, 1, dim}), {.dtype = streams.dtype()})
            .reshape(streams.shape());
    return ops::add(v, conv_.forward(normed(v, norm_conv_), step));
  }

 private:
  // The taps of a convolution over every n-th token, with zeros between.
  static LazyWeight spread_taps(const WeightSourcePtr& taps, std::int64_t n) {
    std::vector<WeightSourcePtr> rows;
    for (std::int64_t i = 0; i < taps->cols(); ++i) {
      if (i > 0)
        rows.push_back(make_source(std::vector<float>(static_cast<std::size_t>((n - 1) * taps->rows())),
                                   n - 1, taps->rows(), "zeros"));
      rows.push_back(gather_rows(transpose(taps), {i}));
    }
    return {transpose(concat_rows(std::move(rows))), WeightRole::vector, "ple.conv"};
  }
  Tensor embed(const Step& step, DataType dtype) const {
    const std::vector<std::int32_t> ids = to_host_int(step.ids);
    const std::vector<float> values(ids.begin(), ids.end());
    Tensor token = ops::add(from_host(*step.device, values, {1, 1, step.tokens, 1}, DataType::f32), 1.0f);
    std::vector<std::vector<float>> before;
    for (int s = 1; s < n_; ++s) {
      token = shift_.forward(
          token, step.state->slots_of(name_.layer, "ple.token." + std::to_string(s), step.iteration), step);
      before.push_back(to_host(token));
    }
    const std::vector<std::int32_t> rows = hash_.rows(ids, before);
    const Tensor e =
        ops::embedding(from_host(*step.device, rows, {1, 1, 1, static_cast<std::int64_t>(rows.size())}),
                       table_.get(), dtype);
    return e.reshape({1, 1, step.tokens, e.dim(3) * e.dim(2) / step.tokens});
  }

  ModuleName name_;
  std::int64_t streams_;
  int n_;
  float eps_;
  NgramHash hash_;
  LazyWeight table_, norm_key_, norm_query_, norm_conv_;
  Linear key_, value_;
  TokenShift shift_;
  CausalConv1d conv_;
};

}  // namespace ttt::models
