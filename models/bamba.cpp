// Bamba: Mamba 2 layers with some attention between them, an MLP in each.
#include <algorithm>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const auto attention_layers = c.get_or("attn_layer_indices", std::vector<int>{});
  for (int i = 0; i < c.layers(); ++i) {
    const bool attends = std::ranges::count(attention_layers, i) > 0;
    m.layers.push_back({.mixer = attends ? MixerSpec{attention(c, i)} : ssd(c), .ffn = mlp(c)});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_ssd_names({"{layer}.mamba"}))
      .rename("{layer}.pre_ff_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.feed_forward.", "{layer}.ffn.",
              {{"gate_proj", "gate"}, {"up_proj", "up"}, {"down_proj", "down"}})
      .rename("final_layernorm", "norm");
}

static const Family bamba("bamba", {"BambaForCausalLM"}, describe, weights,
                          {"mamba_chunk_size", "z_loss_coefficient"});

}  // namespace ttt::models
