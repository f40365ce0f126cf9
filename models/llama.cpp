// Llama 1 to 3 and everything of its shape: the network that the other files differ from. Mistral adds a
// window.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = mlp(c)});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names(); }

// GGUF files have the rows of q and k reordered for interleaved rotation.
static WeightMap gguf(const ModelSpec& m) {
  const auto& attn = std::get<AttentionSpec>(m.layers.front().mixer);
  return gguf_decoder_names().permute("*.attn.q", attn.heads).permute("*.attn.k", attn.kv_heads);
}

static const Family llama{
    "llama",
    {.architectures = {"LlamaForCausalLM", "MistralForCausalLM", "MinistralForCausalLM", "CwmForCausalLM",
                       "Emu3ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "llama", .constants = R"({"model_type": "llama"})", .weights = gguf}},
     .ignore = {"pretraining_tp"}}};

}  // namespace ttt::models
