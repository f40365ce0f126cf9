// BLOOM: linear position biases, a norm after the embedding, q, k and v of each head together.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  c.require("apply_residual_connection_post_layernorm", false);
  const int heads = c.heads();
  ModelSpec m{.vocab = c.get<int>("vocab_size"),
              .dim = c.get<int>("hidden_size"),
              .max_positions = c.get_or("seq_length", 2048)};
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.embed_norm = m.norm;
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const AttentionSpec attn{.heads = heads,
                           .kv_heads = heads,
                           .head_dim = m.dim / heads,
                           .qkv_bias = true,
                           .out_bias = true,
                           .alibi = 1};
  const MlpSpec ffn{.hidden = 4 * m.dim, .act = {UnaryOp::gelu_tanh}, .gated = false, .bias = true};
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const auto& attn = std::get<AttentionSpec>(m.layers.front().mixer);
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .rename("word_embeddings", "embed")
      .rename("word_embeddings_layernorm", "embed_norm")
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .split("{layer}.self_attention.query_key_value", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = attn.heads})
      .rename("{layer}.self_attention.dense", "{layer}.attn.o")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.dense_h_to_4h", "{layer}.ffn.up")
      .rename("{layer}.mlp.dense_4h_to_h", "{layer}.ffn.down")
      .rename("ln_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static const Family bloom{"bloom",
                          {.architectures = {"BloomForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .ignore = {"slow_but_exact", "pretraining_tp", "hidden_dropout"}}};

}  // namespace ttt::models
