#include "model/blocks.h"

namespace ttt::inline v2 {

Mixer::~Mixer() = default;
FeedForward::~FeedForward() = default;
Block::~Block() = default;

static BlockNorms block_norms(Residual kind) {
  switch (kind) {
    case Residual::pre_norm:
    case Residual::parallel:
      return {.attn_norm = true, .attn_post_norm = false, .ffn_norm = true, .ffn_post_norm = false};
    case Residual::post_norm:
    case Residual::norm_after_add:
      return {.attn_norm = false, .attn_post_norm = true, .ffn_norm = false, .ffn_post_norm = true};
    case Residual::sandwich:
      return {.attn_norm = true, .attn_post_norm = true, .ffn_norm = true, .ffn_post_norm = true};
    case Residual::parallel_shared:
      return {.attn_norm = true, .attn_post_norm = false, .ffn_norm = false, .ffn_post_norm = false};
  }
  return {};
}

BlockNorms block_norms(const LayerSpec& layer) {
  BlockNorms norms = block_norms(layer.residual);
  if (std::holds_alternative<Absent>(layer.mixer)) norms.attn_norm = norms.attn_post_norm = false;
  if (std::holds_alternative<Absent>(layer.ffn)) norms.ffn_norm = norms.ffn_post_norm = false;
  return norms;
}

namespace {

class BlockBase : public Block {
 public:
  explicit BlockBase(BlockParts parts) : p(std::move(parts)) {}
  void print(PlanRows& rows) const override {
    if (p.attn_norm) p.attn_norm->print(rows);
    if (p.mixer) p.mixer->print(rows);
    if (p.attn_post_norm) p.attn_post_norm->print(rows);
    if (p.ffn_norm) p.ffn_norm->print(rows);
    if (p.ffn) p.ffn->print(rows);
    if (p.ffn_post_norm) p.ffn_post_norm->print(rows);
  }

 protected:
  // x + residual_scale * y
  Tensor add(const Tensor& x, Tensor y) const {
    if (p.residual_scale == 1) return ops::add(x, std::move(y));
    return ops::add(x, std::move(y), {.rhs_activation = {UnaryOp::mul_scalar, p.residual_scale}});
  }
  Tensor mix(const Tensor& x, const Step& s) const { return p.mixer->forward(x, s); }
  Tensor feed(const Tensor& x, const Step& s) const { return p.ffn->forward(x, s); }

  BlockParts p;
};

class PreNormBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override {
    const Tensor h = add(x, mix((*p.attn_norm)(x), s));
    return add(h, feed((*p.ffn_norm)(h), s));
  }
};

class MixerBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override { return add(x, mix((*p.attn_norm)(x), s)); }
};

class FeedForwardBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override { return add(x, feed((*p.ffn_norm)(x), s)); }
};

class PostNormBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override {
    const Tensor h = add(x, (*p.attn_post_norm)(mix(x, s)));
    return add(h, (*p.ffn_post_norm)(feed(h, s)));
  }
};

class SandwichBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override {
    const Tensor h = add(x, (*p.attn_post_norm)(mix((*p.attn_norm)(x), s)));
    return add(h, (*p.ffn_post_norm)(feed((*p.ffn_norm)(h), s)));
  }
};

class NormAfterAddBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override {
    const Tensor h = (*p.attn_post_norm)(add(x, mix(x, s)));
    return (*p.ffn_post_norm)(add(h, feed(h, s)));
  }
};

class ParallelBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override {
    const Tensor h = add(x, mix((*p.attn_norm)(x), s));
    return add(h, feed((*p.ffn_norm)(x), s));
  }
};

class ParallelSharedBlock final : public BlockBase {
 public:
  using BlockBase::BlockBase;
  Tensor forward(const Tensor& x, const Step& s) const override {
    const Tensor n = (*p.attn_norm)(x);
    const Tensor h = add(x, mix(n, s));
    return add(h, feed(n, s));
  }
};

}  // namespace

std::unique_ptr<Block> make_block(Residual kind, BlockParts parts) {
  if (!parts.ffn) return std::make_unique<MixerBlock>(std::move(parts));
  if (!parts.mixer) return std::make_unique<FeedForwardBlock>(std::move(parts));
  switch (kind) {
    case Residual::pre_norm:
      return std::make_unique<PreNormBlock>(std::move(parts));
    case Residual::post_norm:
      return std::make_unique<PostNormBlock>(std::move(parts));
    case Residual::sandwich:
      return std::make_unique<SandwichBlock>(std::move(parts));
    case Residual::norm_after_add:
      return std::make_unique<NormAfterAddBlock>(std::move(parts));
    case Residual::parallel:
      return std::make_unique<ParallelBlock>(std::move(parts));
    case Residual::parallel_shared:
      return std::make_unique<ParallelSharedBlock>(std::move(parts));
  }
  throw Error("unknown kind of residual block", parts.name.path);
}

}  // namespace ttt::inline v2
