// Falcon: attention and MLP side by side; one kv head (7B), groups (40B, 180B) or, with linear biases, all of
// them (RW).
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  // GGUF files say only how many kv heads there are.
  const bool several = !c.has("multi_query") && c.get_or("num_kv_heads", 1) > 1;
  const bool grouped = c.get_or("new_decoder_architecture", several), bias = c.get_or("bias", false),
             alibi = c.get_or("alibi", false);
  const bool parallel = grouped || c.get_or("parallel_attn", true);
  const bool two_norms = grouped && c.get_or("num_ln_in_parallel_attn", 2) == 2;
  const int heads = c.heads(), head_dim = m.dim / heads;
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const bool one = c.get_or("multi_query", true);
  AttentionSpec attn{.heads = heads,
                     .kv_heads = grouped ? c.get<int>("num_kv_heads")
                                 : one   ? 1
                                         : heads,
                     .head_dim = head_dim,
                     .qkv_bias = bias,
                     .out_bias = bias};
  if (alibi) {
    // The biases are scaled with the scores. transformers' eager attention adds them twice, to the scores and
    // in the mask; its default attention, as the code that the checkpoints come from, once.
    const bool twice = c.get_or<std::string>("attn_implementation", "sdpa") == "eager";
    attn.alibi = (twice ? 2 : 1) / std::sqrt(static_cast<float>(head_dim));
  } else {
    attn.rope = c.rope();
  }
  const MlpSpec ffn{
      .hidden = c.get_or("ffn_hidden_size", 4 * m.dim), .act = c.act(), .gated = false, .bias = bias};
  const auto residual = !parallel   ? Residual::pre_norm
                        : two_norms ? Residual::parallel
                                    : Residual::parallel_shared;
  m.layers.assign(static_cast<std::size_t>(c.layers()), {.mixer = attn, .ffn = ffn, .residual = residual});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const auto& attn = std::get<AttentionSpec>(m.layers.front().mixer);
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .rename("word_embeddings", "embed")
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .rename("{layer}.ln_attn", "{layer}.attn_norm")
      .rename("{layer}.ln_mlp", "{layer}.ffn_norm")
      .split("{layer}.self_attention.query_key_value", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = attn.kv_heads})
      .rename("{layer}.self_attention.dense", "{layer}.attn.o")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.dense_h_to_4h", "{layer}.ffn.up")
      .rename("{layer}.mlp.dense_4h_to_h", "{layer}.ffn.down")
      .rename("ln_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

static WeightMap gguf(const ModelSpec& m) {
  WeightMap map =
      gguf_decoder_names().split("{layer}.attn_qkv", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"});
  if (m.layers.front().residual == Residual::parallel)  // the first norm is the MLP's there
    map.rename("{layer}.attn_norm", "{layer}.ffn_norm").rename("{layer}.attn_norm_2", "{layer}.attn_norm");
  return map;
}

static const Family falcon{"falcon",
                           {.architectures = {"FalconForCausalLM"},
                            .describe = describe,
                            .weights = weights,
                            .gguf = {{.architecture = "falcon",
                                      .config = {{"num_kv_heads", "{arch}.attention.head_count_kv"},
                                                 {"ffn_hidden_size", "{arch}.feed_forward_length"}},
                                      .constants = R"({"activation": "gelu"})",
                                      .weights = gguf}},
                            .ignore = {"num_ln_in_parallel_attn", "num_kv_heads", "hidden_dropout",
                                       "multi_query", "parallel_attn"}}};

}  // namespace ttt::models
