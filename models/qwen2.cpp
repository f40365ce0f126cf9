// Qwen 2 and 2.5: biases on q, k and v; a window in the upper layers.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = true;
    attn.out_bias = false;  // GGUF files show biases of some kind only
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static const Family qwen2{"qwen2",
                          {.architectures = {"Qwen2ForCausalLM"},
                           .describe = describe,
                           .gguf = {{.architecture = "qwen2", .constants = R"({"model_type": "qwen2"})"}}}};

}  // namespace ttt::models
