// The network's blocks: how mixer, feed-forward and norms stand to the residual stream. Each forward is the
// formula of its Residual in model/spec.h.
#pragma once

#include <memory>
#include <optional>
#include <variant>

#include "ttt/model/build.h"
#include "ttt/modules/norm.h"

namespace ttt::inline v2 {

// A norm that shows its result under its name.
class BlockNorm {
 public:
  BlockNorm(const NormConfig& config, const Target& target, const Home& home)
      : name_(config.name), norm_(Norm::from_config(config, target, home)) {}
  Tensor operator()(const Tensor& x) const {
    Tensor y = norm_.forward(x);
    tap(y, name_);
    return y;
  }
  void print(PlanRows& rows) const { ttt::print(norm_.plan(), rows); }

 private:
  ModuleName name_;
  Norm norm_;
};

struct BlockParts {
  ModuleName name;
  std::unique_ptr<Mixer> mixer;      // null: the layer only feeds forward
  std::unique_ptr<FeedForward> ffn;  // null: the layer only mixes
  std::optional<BlockNorm> attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
  float residual_scale = 1;
};

// Which norms a kind of block has; weight_slots() and build() both ask here.
struct BlockNorms {
  bool attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
};
BlockNorms block_norms(const LayerSpec&);

std::unique_ptr<Block> make_block(Residual, BlockParts);

}  // namespace ttt::inline v2
