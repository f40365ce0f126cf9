// CTRL: sinusoidal positions, a scaled embedding, ReLU, a bias on the logits.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  m.positions = PositionSpec{.kind = PositionKind::sinusoidal, .entries = m.max_positions};
  m.lm_head_bias = true;
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  MlpSpec ffn = plain_mlp(c);
  ffn.act = {UnaryOp::relu};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = plain_attention(c), .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_wte_names()
      .rename("w", "embed")
      .rename("{layer}.layernorm1", "{layer}.attn_norm")
      .rename("{layer}.multi_head_attention.", "{layer}.attn.",
              {{"Wq", "q"}, {"Wk", "k"}, {"Wv", "v"}, {"dense", "o"}})
      .rename("{layer}.layernorm2", "{layer}.ffn_norm")
      .rename("{layer}.ffn.", "{layer}.ffn.", {{"0", "up"}, {"2", "down"}})
      .rename("layernorm", "norm");
}

static const Family ctrl("ctrl", {"CTRLLMHeadModel"}, describe, weights);

}  // namespace ttt::models
