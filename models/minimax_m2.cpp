// MiniMax M2: experts by sigmoid with a correction bias, q and k normalised over their full width, part of
// each head rotates.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  MoeSpec moe = softmax_moe(c);
  moe.router = {.score = RouterScore::sigmoid, .renormalize = true, .correction_bias = true};
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = attention(c, i, QkNorm::full_width), .ffn = moe});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.block_sparse_moe.", "{layer}.ffn.",
              {{"gate", "router"}, {"e_score_correction_bias", "router.correction_bias"}})
      .rename("{layer}.block_sparse_moe.experts.{e}.", "{layer}.ffn.experts.",
              {{"w1", "gate"}, {"w3", "up"}, {"w2", "down"}});
}

static const Family minimax_m2("minimax_m2", {"MiniMaxM2ForCausalLM"}, describe, weights);

}  // namespace ttt::models
