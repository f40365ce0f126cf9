// GLM 4.7 Flash and GLM 5: latent attention, experts by sigmoid among groups. GLM 5 attends to the keys that
// an indexer chooses, some layers to those that an earlier one has chosen.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const auto indexers = c.get_or("indexer_types", std::vector<std::string>{});
  int chooser = 0;  // the last layer with an indexer
  for (int i = 0; i < c.layers(); ++i) {
    LatentAttentionSpec attn = latent_attention(c, i);
    if (!indexers.empty() && indexers.at(static_cast<std::size_t>(i)) == "shared") {
      attn.selection_of_layer = chooser;
    } else if (c.has("index_topk")) {
      attn.indexer = indexer(c, attn);
      attn.indexer->rope->interleaved = true;
      chooser = i;
    }
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, grouped_moe(c))});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .append(hf_latent_attention_names(std::get<LatentAttentionSpec>(m.layers.front().mixer).heads))
      .ignore(next_token_layer(m));  // predicts the token after next
}

static const Family glm_moe_dsa("glm_moe_dsa", {"GlmMoeDsaForCausalLM", "Glm4MoeLiteForCausalLM"}, describe,
                                weights,
                                {"qk_head_dim", "head_dim", "num_key_value_heads", "layer_types",
                                 "first_k_dense_replace", "indexer_rope_interleave", "moe_layer_freq",
                                 "scoring_func", "topk_method", "ep_size"});

}  // namespace ttt::models
