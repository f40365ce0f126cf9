// GPT-J: attention and MLP side by side under one layer norm, interleaved rotation of part of each head.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
  m.lm_head_bias = true;
  AttentionSpec attn = attention(c);
  attn.rope->interleaved = true;
  m.layers.assign(static_cast<std::size_t>(c.layers()),
                  {.mixer = attn, .ffn = plain_mlp(c), .residual = Residual::parallel_shared});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_wte_names()
      .rename("{layer}.attn.", "{layer}.attn.",
              {{"q_proj", "q"}, {"k_proj", "k"}, {"v_proj", "v"}, {"out_proj", "o"}})
      .rename("{layer}.mlp.", "{layer}.ffn.", {{"fc_in", "up"}, {"fc_out", "down"}});
}

static const Family gptj("gptj", {"GPTJForCausalLM"}, describe, weights);

}  // namespace ttt::models
