// GPT-NeoX and Pythia: attention and MLP side by side, q, k and v of each head together, part of each head
// rotates.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  MlpSpec ffn = mlp(c);
  ffn.gated = false;
  ffn.bias = true;
  const auto residual = c.get_or("use_parallel_residual", true) ? Residual::parallel : Residual::pre_norm;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = c.get_or("attention_bias", true);
    m.layers.push_back({.mixer = attn, .ffn = ffn, .residual = residual});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const auto& attn = std::get<AttentionSpec>(m.layers.front().mixer);
  return WeightMap()
      .strip("gpt_neox.")
      .rename("embed_in", "embed")
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .split("{layer}.attention.query_key_value", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = attn.heads})
      .rename("{layer}.attention.dense", "{layer}.attn.o")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.dense_h_to_4h", "{layer}.ffn.up")
      .rename("{layer}.mlp.dense_4h_to_h", "{layer}.ffn.down")
      .rename("final_layer_norm", "norm")
      .rename("embed_out", "lm_head")
      .ignore("*.attention.bias")  // causal masks and tables of older checkpoints
      .ignore("*.attention.masked_bias")
      .ignore("*.rotary_emb.inv_freq");
}

// GGUF files have all of q, then k, then v.
static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names().split("{layer}.attn_qkv",
                                    {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"});
}

static const Family gpt_neox{
    "gpt_neox",
    {.architectures = {"GPTNeoXForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gptneox", .constants = R"({"hidden_act": "gelu"})", .weights = gguf}},
     .ignore = {"classifier_dropout", "hidden_dropout", "is_decoder"}}};

}  // namespace ttt::models
