// The network's blocks: how mixer, feed-forward and norms stand to the residual stream. Each forward is the
// formula of its Residual in model/spec.h.
#pragma once

#include <memory>
#include <optional>
#include <variant>

#include "ttt/model/build.h"
#include "ttt/modules/norm.h"

namespace ttt::inline v2 {

// An RMS or layer norm, decided when it is built.
class Norm {
 public:
  Norm(const NormSpec&, LazyWeight weight, LazyWeight bias, const ModuleName&, const Target&, const Home&);
  Tensor operator()(const Tensor& x) const;
  void print(PlanRows&) const;

 private:
  ModuleName name_;
  std::variant<RmsNorm, LayerNorm> norm_;
};

struct BlockParts {
  ModuleName name;
  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<FeedForward> ffn;
  std::optional<Norm> attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
  float residual_scale = 1;
};

// Which norms a kind of block has; weight_slots() and build() both ask here.
struct BlockNorms {
  bool attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
};
BlockNorms block_norms(Residual);

std::unique_ptr<Block> make_block(Residual, BlockParts);

}  // namespace ttt::inline v2
