// OLMo 2: norms after attention and MLP instead of before, q and k normalised over their full width.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back(
        {.mixer = attention(c, i, QkNorm::full_width), .ffn = mlp(c), .residual = Residual::post_norm});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_post_norm_names()); }

static const Family olmo2{"olmo2",
                          {.architectures = {"Olmo2ForCausalLM", "Olmo3ForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .gguf = {{.architecture = "olmo2", .constants = R"({"model_type": "olmo2"})"}}}};

}  // namespace ttt::models
