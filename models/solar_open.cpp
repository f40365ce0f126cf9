// Solar Open: experts by sigmoid among groups in every layer.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = grouped_moe(c)});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }

static const Family solar_open("solar_open", {"SolarOpenForCausalLM"}, describe, weights);

}  // namespace ttt::models
