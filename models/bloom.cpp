// BLOOM: linear position biases, a norm after the embedding, q, k and v of each head together.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  c.require("apply_residual_connection_post_layernorm", false);
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = c.get_or("seq_length", 2048),
              .norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true},
              .tied_embeddings = c.get_or("tie_word_embeddings", true)};
  m.embed_norm = m.norm;
  AttentionSpec attn = plain_attention(c);
  attn.alibi = 1;
  MlpSpec ffn = plain_mlp(c);
  ffn.act = {UnaryOp::gelu_tanh};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_wte_names()
      .append(hf_megatron_names(first_attention(m).heads))
      .rename("word_embeddings", "embed")
      .rename("word_embeddings_layernorm", "embed_norm");
}

static const Family bloom("bloom", {"BloomForCausalLM"}, describe, weights, {"slow_but_exact"});

}  // namespace ttt::models
