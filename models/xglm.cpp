// XGLM: sinusoidal positions that start at 2, a scaled embedding, layer norms and biases.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  const int heads = c.get<int>("attention_heads");
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("d_model"),
              .max_positions = c.get<int>("max_position_embeddings")};
  m.norm = {.kind = NormKind::layer, .eps = 1e-5f, .bias = true};
  m.positions =
      PositionSpec{.kind = PositionKind::sinusoidal_to_end, .entries = m.max_positions + 2, .offset = 2};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  if (c.get_or("scale_embedding", true)) m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  const AttentionSpec attn{
      .heads = heads, .kv_heads = heads, .head_dim = m.dim / heads, .qkv_bias = true, .out_bias = true};
  const MlpSpec ffn{.hidden = c.get<int>("ffn_dim"), .act = c.act(), .gated = false, .bias = true};
  m.layers.assign(static_cast<std::size_t>(c.get<int>("num_layers")), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.self_attn_layer_norm", "{layer}.attn_norm")
      .rename("{layer}.self_attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.final_layer_norm", "{layer}.ffn_norm")
      .rename("{layer}.fc1", "{layer}.ffn.up")
      .rename("{layer}.fc2", "{layer}.ffn.down")
      .rename("layer_norm", "norm")
      .ignore("embed_positions*");
}

static const Family xglm{"xglm",
                         {.architectures = {"XGLMForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .ignore = {"layerdrop", "dropout", "activation_dropout", "init_std",
                                     "decoder_start_token_id", "add_cross_attention"}}};

}  // namespace ttt::models
