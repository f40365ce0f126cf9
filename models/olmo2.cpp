// OLMo 2: norms after attention and MLP instead of before, q and k normalised over their full width.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::full_width;
    attn.qk_norm_spec.eps = c.norm_eps();
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::post_norm});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.post_attention_layernorm", "{layer}.attn_post_norm")  // Llama's name for another norm
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm");
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names()
      .rename("{layer}.post_attention_norm", "{layer}.attn_post_norm")
      .rename("{layer}.post_ffw_norm", "{layer}.ffn_post_norm");
}

static const Family olmo2{
    "olmo2",
    {.architectures = {"Olmo2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "olmo2", .constants = R"({"model_type": "olmo2"})", .weights = gguf}}}};

}  // namespace ttt::models
