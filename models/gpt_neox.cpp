// GPT-NeoX and Pythia: attention and MLP side by side, q, k and v of each head together, part of each head
// rotates.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c);
  const auto residual = c.get_or("use_parallel_residual", true) ? Residual::parallel : Residual::pre_norm;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = c.get_or("attention_bias", true);
    m.layers.push_back({.mixer = attn, .ffn = plain_mlp(c), .residual = residual});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_megatron_names(first_attention(m).heads, "{layer}.attention")
      .strip("gpt_neox.")
      .rename("embed_in", "embed")
      .rename("final_layer_norm", "norm")
      .rename("embed_out", "lm_head")
      .ignore("*.attention.bias")  // causal masks and tables of older checkpoints
      .ignore("*.attention.masked_bias")
      .ignore("*.rotary_emb.inv_freq");
}

// GGUF files have all of q, then k, then v.
static WeightMap gguf(const ModelSpec&) { return gguf_decoder_names().split_qkv("{layer}.attn_qkv"); }

static const Family gpt_neox{
    "gpt_neox",
    {.architectures = {"GPTNeoXForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gptneox", .constants = R"({"hidden_act": "gelu"})", .weights = gguf}}}};

}  // namespace ttt::models
