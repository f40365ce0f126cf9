// Mixtral: every MLP is a mixture of experts; the chosen probabilities add up to one.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = softmax_moe(c, true);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = moe});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.block_sparse_moe.gate", "{layer}.ffn.router")
      .stack("{layer}.block_sparse_moe.experts.{e}.w1", "{layer}.ffn.experts.gate")
      .stack("{layer}.block_sparse_moe.experts.{e}.w3", "{layer}.ffn.experts.up")
      .stack("{layer}.block_sparse_moe.experts.{e}.w2", "{layer}.ffn.experts.down");
}

static const Family mixtral{"mixtral",
                            {.architectures = {"MixtralForCausalLM"},
                             .describe = describe,
                             .weights = weights,
                             .gguf = {{.architecture = "llama",
                                       .constants = R"({"model_type": "mixtral"})",
                                       .key = "{arch}.expert_count",
                                       .weights = gguf_permuted_names}}}};

}  // namespace ttt::models
