#include "ttt/convert/decoder_spec.h"

namespace ttt::inline v2 {

ModelSpec decoder(const HfConfig& c) {
  return {.vocab = c.get<int>("vocab_size"),
          .dim = c.get<int>("hidden_size"),
          .max_positions = c.get<int>("max_position_embeddings"),
          .norm = {.eps = c.norm_eps()},
          .tied_embeddings = c.get_or("tie_word_embeddings", false)};
}

AttentionSpec attention(const HfConfig& c, int layer) {
  const bool bias = c.get_or("attention_bias", false);
  return {.heads = c.heads(),
          .kv_heads = c.kv_heads(),
          .head_dim = c.head_dim(),
          .qkv_bias = bias,
          .out_bias = bias,
          .rope = c.rope(layer),
          .window = c.window(layer)};
}

MlpSpec mlp(const HfConfig& c) {
  return {.hidden = c.get<int>("intermediate_size"), .act = c.act(), .bias = c.get_or("mlp_bias", false)};
}

}  // namespace ttt::inline v2
