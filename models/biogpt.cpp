// BioGPT: learned positions that start at 2, a scaled embedding, layer norms and biases.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer,
            .eps = 1e-5f,
            .bias = true};  // the config's value changes nothing in the reference
  m.positions = PositionSpec{.entries = m.max_positions + 2, .offset = 2};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  if (c.get_or("scale_embedding", true)) m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  const int heads = c.heads();
  const AttentionSpec attn{
      .heads = heads, .kv_heads = heads, .head_dim = m.dim / heads, .qkv_bias = true, .out_bias = true};
  const MlpSpec ffn{.hidden = c.get<int>("intermediate_size"), .act = c.act(), .gated = false, .bias = true};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return WeightMap()
      .strip("biogpt.")
      .rename("embed_tokens", "embed")
      .rename("embed_positions", "position_embed")
      .rename("{layer}.self_attn_layer_norm", "{layer}.attn_norm")
      .rename("{layer}.self_attn.q_proj", "{layer}.attn.q")
      .rename("{layer}.self_attn.k_proj", "{layer}.attn.k")
      .rename("{layer}.self_attn.v_proj", "{layer}.attn.v")
      .rename("{layer}.self_attn.out_proj", "{layer}.attn.o")
      .rename("{layer}.final_layer_norm", "{layer}.ffn_norm")
      .rename("{layer}.fc1", "{layer}.ffn.up")
      .rename("{layer}.fc2", "{layer}.ffn.down")
      .rename("layer_norm", "norm")
      .rename("output_projection", "lm_head")
      .surplus("lm_head");
}

static const Family biogpt{"biogpt",
                           {.architectures = {"BioGptForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .ignore = {"layer_norm_eps", "layerdrop", "activation_dropout",
                                       "hidden_dropout_prob", "attention_probs_dropout_prob"}}};

}  // namespace ttt::models
