// StarCoder 2: layer norms and a plain GELU MLP with biases in an otherwise Llama-like decoder; a window.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const bool bias = c.get_or("use_bias", true);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  MlpSpec ffn = mlp(c);
  ffn.gated = false;
  ffn.bias = bias;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = bias;
    m.layers.push_back({.mixer = attn, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.mlp.c_fc", "{layer}.ffn.up")
      .rename("{layer}.mlp.c_proj", "{layer}.ffn.down");
}

static WeightMap gguf(const ModelSpec&) { return gguf_decoder_names(); }

static const Family starcoder2{
    "starcoder2",
    {.architectures = {"Starcoder2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "starcoder2",
               .constants = R"({"model_type": "starcoder2"})",
               .weights = gguf}},
     .ignore = {"embedding_dropout", "residual_dropout", "mlp_type", "norm_type"}}};

}  // namespace ttt::models
