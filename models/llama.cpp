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

// GGUF files have the rows of q and k reordered for interleaved rotation.
static const Family llama{"llama",
                          {.architectures = {"LlamaForCausalLM", "MistralForCausalLM", "MinistralForCausalLM",
                                             "CwmForCausalLM", "SmolLM3ForCausalLM", "Emu3ForCausalLM"},
                           .describe = describe,
                           .gguf = {{.architecture = "llama",
                                     .constants = R"({"model_type": "llama"})",
                                     .weights = gguf_permuted_names}}}};

}  // namespace ttt::models
