// GPT-Neo: learned positions, unscaled scores, every other layer through a window.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  m.positions = PositionSpec{.entries = m.max_positions};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = plain_attention(c, false);
    attn.out_bias = true;
    attn.scale = 1.0f;
    if (c.layer_type(i) == "local") attn.window = c.get<int>("window_size");
    m.layers.push_back({.mixer = attn, .ffn = plain_mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_wte_names().rename("{layer}.attn.attention.", "{layer}.attn.",
                               {{"q_proj", "q"}, {"k_proj", "k"}, {"v_proj", "v"}, {"out_proj", "o"}});
}

static const Family gpt_neo("gpt_neo", {"GPTNeoForCausalLM"}, describe, weights, {"attention_types"});

}  // namespace ttt::models
