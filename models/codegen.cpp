// CodeGen: GPT-J with q, v and k in one matrix, in four groups of heads.
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
      .split("{layer}.attn.qkv_proj", {"{layer}.attn.q", "{layer}.attn.v", "{layer}.attn.k"}, {.groups = 4})
      .rename("{layer}.attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.mlp.", "{layer}.ffn.", {{"fc_in", "up"}, {"fc_out", "down"}});
}

static const Family codegen("codegen", {"CodeGenForCausalLM"}, describe, weights, {"n_ctx"});

}  // namespace ttt::models
