// Qwen 3: every head of q and k is normalised before it rotates.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = attention(c, i, QkNorm::per_head), .ffn = mlp(c)});
  return m;
}

static const Family qwen3{"qwen3",
                          {.architectures = {"Qwen3ForCausalLM"},
                           .describe = describe,
                           .gguf = {{.architecture = "qwen3", .constants = R"({"model_type": "qwen3"})"}}}};

}  // namespace ttt::models
