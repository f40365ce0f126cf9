// Ministral 3: Llama whose queries grow with the logarithm of their position.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    const HfConfig rope = c.rope_parameters(i);
    attn.temperature =
        QueryTemperature{.scale = rope.get<float>("llama_4_scaling_beta"),
                         .length = static_cast<float>(rope.get<int>("original_max_position_embeddings"))};
    m.layers.push_back({.mixer = attn, .ffn = mlp(c)});
  }
  return m;
}

static const Family ministral3("ministral3", {"Ministral3ForCausalLM"}, describe);

}  // namespace ttt::models
