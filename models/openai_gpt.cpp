// GPT 1: learned positions, norms after the additions, no norm at the end, matrices stored [in, out].
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  m.positions = PositionSpec{.entries = m.max_positions};
  m.final_norm = false;
  MlpSpec ffn = plain_mlp(c);
  ffn.act =
      HfConfig::act(c.get_or<std::string>("afn", "gelu") == "gelu" ? "gelu_new" : c.get<std::string>("afn"));
  m.layers.assign(static_cast<std::size_t>(c.layers()),
                  {.mixer = plain_attention(c), .ffn = ffn, .residual = Residual::norm_after_add});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_wte_names()
      .transpose("*.c_attn")
      .transpose("*.c_proj")
      .transpose("*.c_fc")
      .rename("tokens_embed", "embed")
      .rename("positions_embed", "position_embed")
      .rename("{layer}.", "{layer}.",
              {{"ln_1", "attn_post_norm"}, {"ln_2", "ffn_post_norm"}, {"attn.c_proj", "attn.o"}})
      .split_qkv("{layer}.attn.c_attn");
}

static const Family openai_gpt("openai_gpt", {"OpenAIGPTLMHeadModel"}, describe, weights);

}  // namespace ttt::models
