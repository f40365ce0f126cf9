// Attention through a window and to entries that stand for several positions each.
#pragma once

#include <algorithm>

#include "compressor.h"
#include "ttt/convert/hf_config.h"
#include "ttt/modules/selection.h"

namespace ttt::models {

// Scores compressed keys of its own: sum over heads of w relu(q . k), w = x W_w.
class EntryIndexer {
 public:
  EntryIndexer(const BuildContext& c, const HfConfig& p, std::int64_t rate, const RopeSpec& rope)
      : heads_(p.get<int>("index_heads")),
        dim_(p.get<int>("index_dim")),
        top_k_(p.get<int>("index_topk")),
        rope_(rope, dim_),
        q_(c.linear("indexer.q")),
        weights_(c.linear("indexer.weights", {}, DataType::f32)),
        compressor_(c, "indexer.compressor", {.rate = rate, .width = dim_, .overlap = true}, rope_) {}
  struct Queries {
    Tensor q, weights;  // [1, heads, tokens, dim], [1, heads, tokens, 1]
  };
  Queries forward(const Tensor& x, const Tensor& q_latent, const Tensor& cache, const Step& step) const {
    compressor_.forward(x, cache, step);
    const Tensor q = ops::nlp_create_qkv_heads(q_.forward(q_latent, step.mode), heads_, 0, dim_).q;
    return {rope_.forward(q, step),
            weights_.forward(x, step.mode).reshape({1, step.tokens, heads_, 1}).swap_axes(1, 2)};
  }
  // Which entries the rows of a sequence attend to: [1, 1, rows, entries]; `unseen` closes those that end
  // later.
  Tensor mask(const Queries& queries, const Tensor& unseen, const Tensor& cache, const Step& step,
              const SequenceRows& rows) const {
    const auto own = [&](const Tensor& t) {
      return ops::typecast(t.narrow(2, rows.first, rows.first + rows.count), DataType::f32);
    };
    const Tensor keys = ops::typecast(compressor_.cached(cache, step, rows), DataType::f32);
    const Tensor products =
        ops::unary(ops::matmul(own(queries.q), keys, {.transpose_b = true}), {UnaryOp::relu});
    return top_k_mask(ops::add(ops::sum(ops::mul(products, own(queries.weights)), 1), unseen), top_k_);
  }
  const Compressor& compressor() const { return compressor_; }

 private:
  std::int64_t heads_, dim_, top_k_;
  TailRope rope_;
  Linear q_, weights_;
  Compressor compressor_;
};

// q = rope(norm(norm(x W_qa) W_qb));  k = rope(norm(x W_kv)), one for all heads, which is the value too
// c = softmax(q [k of the window, entries]^T / sqrt(head_dim), sinks) [k, entries];  y = (c turned back) W_oa
// W_ob, where W_oa takes each group of heads by itself.
class CompressedAttention final : public Mixer {
 public:
  CompressedAttention(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        heads_(p.get<int>("heads")),
        dim_(p.get<int>("head_dim")),
        window_(p.get<int>("window")),
        groups_(p.get<int>("groups")),
        eps_(c.spec.norm.eps),
        rope_(*std::get<AttentionSpec>(parse_mixer(p.json("rope"))).rope, dim_),
        q_a_(c.linear("q_a")),
        q_b_(c.linear("q_b")),
        kv_(c.linear("kv")),
        o_b_(c.linear("o_b")),
        q_a_norm_(c.rms_norm("q_a_norm")),
        kv_norm_(c.rms_norm("kv_norm")),
        sinks_(c.vector("sinks")),
        o_a_(c.home.bind(grouped(c.weight("o_a"), groups_), c.target.weight_dtype((name_ / "o_a").path))) {
    if (!c.weight("compressor.kv")) return;
    const CompressorSpec spec{
        .rate = p.get<int>("rate"), .width = dim_, .overlap = static_cast<bool>(c.weight("indexer.q"))};
    compressor_.emplace(c, "compressor", spec, rope_);
    if (spec.overlap)
      indexer_.emplace(c, p, spec.rate, *std::get<AttentionSpec>(parse_mixer(p.json("rope"))).rope);
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor latent = q_a_norm_.forward(q_a_.forward(x, step.mode));
    Tensor q = ops::nlp_create_qkv_heads(q_b_.forward(latent, step.mode), heads_, 0, dim_).q;
    q = rope_.forward(ops::rms_norm(std::move(q), {.epsilon = eps_}), step);
    const KvCache& cache = step.state->cache(name_.layer, step.iteration);
    fill_cache(cache.k, rope_.forward(kv_norm_.forward(kv_.forward(x, step.mode)), step), step);
    EntryIndexer::Queries queries;
    if (compressor_) compressor_->forward(x, cache.v, step);
    if (indexer_) queries = indexer_->forward(x, latent, cache.indexer, step);
    std::vector<Tensor> contexts;
    for (const SequenceRows& rows : step.sequences) {
      const std::int64_t begin = std::max<std::int64_t>(0, rows.context - window_ + 1),
                         end = rows.context + rows.count;
      Tensor keys = ops::slice(cached_rows(cache.k, step, rows), 2, begin, end),
             mask = from_host(*step.device, window_mask(rows, begin), {1, 1, rows.count, end - begin},
                              DataType::f32);
      if (compressor_ && end >= compressor_->spec().rate) {
        const Tensor unseen = entry_mask(rows, *step.device);
        const Tensor closed = indexer_ ? indexer_->mask(queries, unseen, cache.indexer, step, rows) : unseen;
        keys = ops::concat(std::vector<Tensor>{keys, compressor_->cached(cache.v, step, rows)}, 2);
        mask = ops::concat(std::vector<Tensor>{mask, closed}, 3);
      }
      ops::AttentionOptions options;
      options.is_causal = false;
      options.attn_mask = &mask;
      options.attention_sink = &sinks_.get();
      contexts.push_back(ops::scaled_dot_product_attention(q.narrow(2, rows.first, rows.first + rows.count),
                                                           keys, keys, options));
    }
    const Tensor context =
        rope_.inverse(contexts.size() == 1 ? contexts.front() : ops::concat(contexts, 2), step);
    const Tensor by_group = ops::nlp_concat_heads(context)
                                .reshape({1, step.tokens, groups_, heads_ * dim_ / groups_})
                                .swap_axes(1, 2);
    return o_b_.forward(ops::nlp_concat_heads(ops::matmul(ops::to_contiguous(by_group), o_a_.get())),
                        step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&q_a_, &q_b_, &kv_, &o_b_}) ttt::print(part->plan(), rows);
  }

 private:
  static LazyWeight grouped(const LazyWeight& w, std::int64_t groups) {
    return LazyWeight(w.source(), WeightRole::experts, w.name()).experts(groups);
  }
  std::vector<float> window_mask(const SequenceRows& rows, std::int64_t begin) const {
    std::vector<float> mask;
    for (std::int64_t r = rows.context; r < rows.context + rows.count; ++r) {
      for (std::int64_t j = begin; j < rows.context + rows.count; ++j)
        mask.push_back(j <= r && j > r - window_ ? 0 : -std::numeric_limits<float>::infinity());
    }
    return mask;
  }
  // Closes entries that end after a row.
  Tensor entry_mask(const SequenceRows& rows, Device& device) const {
    const std::int64_t rate = compressor_->spec().rate, entries = (rows.context + rows.count) / rate;
    std::vector<float> mask;
    for (std::int64_t r = rows.context; r < rows.context + rows.count; ++r) {
      for (std::int64_t e = 0; e < entries; ++e)
        mask.push_back(e < (r + 1) / rate ? 0 : -std::numeric_limits<float>::infinity());
    }
    return from_host(device, mask, {1, 1, rows.count, entries}, DataType::f32);
  }

  ModuleName name_;
  std::int64_t heads_, dim_, window_, groups_;
  float eps_;
  TailRope rope_;
  Linear q_a_, q_b_, kv_, o_b_;
  RmsNorm q_a_norm_, kv_norm_;
  LazyWeight sinks_, o_a_;
  std::optional<Compressor> compressor_;
  std::optional<EntryIndexer> indexer_;
};

}  // namespace ttt::models
