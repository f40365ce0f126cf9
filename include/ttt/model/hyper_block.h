// Layers over several residual streams (modules/hyper_connections.h): a pre-norm block whose mixer and
// feed-forward each read a mix of the streams and add to all of them. The first layer makes the streams, the
// last one joins them.
#pragma once

#include "ttt/model/build.h"
#include "ttt/modules/hyper_connections.h"

namespace ttt::inline v2 {

// The layer as a custom block, for LayerSpec::block. Its weights: attn_norm, ffn_norm, those of the parts
// under attn and ffn, and weight, base and scale under attn_hyper and ffn_hyper; in the last layer also under
// head_hyper.
CustomSpec hyper_block(const HyperConnectionSpec&, const MixerSpec&, const FfnSpec&, int dim, bool last);
// The factory of these blocks: CustomModules::blocks[hyper_block_name] = make_hyper_block.
inline constexpr const char* hyper_block_name = "hyper_block";
std::unique_ptr<Block> make_hyper_block(const BuildContext&, std::string_view parameters);

}  // namespace ttt::inline v2
