// The decoders of mBART and Blenderbot alone: norms before attention and MLP.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  m.norm = {.kind = NormKind::layer, .eps = 1e-5f, .bias = true};
  m.embed_norm = m.norm;
  m.positions = PositionSpec{.entries = m.max_positions + 2, .offset = 2};
  if (c.get_or("scale_embedding", false)) m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  const int heads = c.get<int>("decoder_attention_heads");
  const AttentionSpec attn{
      .heads = heads, .kv_heads = heads, .head_dim = m.dim / heads, .qkv_bias = true, .out_bias = true};
  const MlpSpec ffn{.hidden = c.get<int>("decoder_ffn_dim"), .act = c.act(), .gated = false, .bias = true};
  m.layers.assign(static_cast<std::size_t>(c.get<int>("decoder_layers")), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) { return hf_fairseq_names().ignore("*.encoder_attn*"); }

static const Family mbart("mbart", {"MBartForCausalLM"}, describe, weights,
                          {"encoder_*", "decoder_layerdrop", "decoder_start_token_id", "is_encoder_decoder",
                           "num_hidden_layers", "forced_*"});

}  // namespace ttt::models
