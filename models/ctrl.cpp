// CTRL: sinusoidal positions, a scaled embedding, ReLU, a bias on the logits.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  const int heads = c.heads();
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("n_embd"),
              .max_positions = c.get<int>("n_positions")};
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.positions = PositionSpec{.kind = PositionKind::sinusoidal, .entries = m.max_positions};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.lm_head_bias = true;
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  const AttentionSpec attn{
      .heads = heads, .kv_heads = heads, .head_dim = m.dim / heads, .qkv_bias = true, .out_bias = true};
  const MlpSpec ffn{.hidden = c.get<int>("dff"), .act = {UnaryOp::relu}, .gated = false, .bias = true};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .rename("w", "embed")
      .rename("{layer}.layernorm1", "{layer}.attn_norm")
      .rename("{layer}.multi_head_attention.Wq", "{layer}.attn.q")
      .rename("{layer}.multi_head_attention.Wk", "{layer}.attn.k")
      .rename("{layer}.multi_head_attention.Wv", "{layer}.attn.v")
      .rename("{layer}.multi_head_attention.dense", "{layer}.attn.o")
      .rename("{layer}.layernorm2", "{layer}.ffn_norm")
      .rename("{layer}.ffn.0", "{layer}.ffn.up")
      .rename("{layer}.ffn.2", "{layer}.ffn.down")
      .rename("layernorm", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static const Family ctrl{"ctrl",
                         {.architectures = {"CTRLLMHeadModel"}, .describe = describe, .weights = weights}};

}  // namespace ttt::models
