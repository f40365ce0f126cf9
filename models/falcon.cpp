// Falcon: attention and MLP side by side; one kv head (7B), groups (40B, 180B) or, with linear biases, all of
// them (RW).
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = layer_norm_decoder(c, true);
  // GGUF files say only how many kv heads there are.
  const bool several = !c.has("multi_query") && c.get_or("num_kv_heads", 1) > 1;
  const bool grouped = c.get_or("new_decoder_architecture", several), bias = c.get_or("bias", false),
             alibi = c.get_or("alibi", false);
  const bool parallel = grouped || c.get_or("parallel_attn", true);
  const bool two_norms = grouped && c.get_or("num_ln_in_parallel_attn", 2) == 2;
  AttentionSpec attn = plain_attention(c, bias);
  if (grouped)
    attn.kv_heads = c.get<int>("num_kv_heads");
  else if (c.get_or("multi_query", true))
    attn.kv_heads = 1;
  if (alibi) {
    // The biases are scaled with the scores. transformers' eager attention adds them twice, to the scores and
    // in the mask; its default attention, as the code that the checkpoints come from, once.
    const bool twice = c.get_or<std::string>("attn_implementation", "sdpa") == "eager";
    attn.alibi = (twice ? 2 : 1) / std::sqrt(static_cast<float>(attn.head_dim));
  } else {
    attn.rope = c.rope();
  }
  const auto residual = !parallel   ? Residual::pre_norm
                        : two_norms ? Residual::parallel
                                    : Residual::parallel_shared;
  m.layers.assign(static_cast<std::size_t>(c.layers()),
                  {.mixer = attn, .ffn = plain_mlp(c, bias), .residual = residual});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_wte_names()
      .append(hf_megatron_names(first_attention(m).kv_heads))
      .rename("word_embeddings", "embed")
      .rename("{layer}.", "{layer}.", {{"ln_attn", "attn_norm"}, {"ln_mlp", "ffn_norm"}});
}

static WeightMap gguf(const ModelSpec& m) {
  WeightMap map = gguf_decoder_names().split_qkv("{layer}.attn_qkv");
  if (m.layers.front().residual == Residual::parallel)  // the first norm is the MLP's there
    map.rename("{layer}.attn_norm", "{layer}.ffn_norm").rename("{layer}.attn_norm_2", "{layer}.attn_norm");
  return map;
}

static const Family falcon{
    "falcon",
    {.architectures = {"FalconForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "falcon",
               .config = {{"num_kv_heads", "{arch}.attention.head_count_kv"},
                          {"ffn_hidden_size", "{arch}.feed_forward_length"}},
               .constants = R"({"activation": "gelu"})",
               .weights = gguf}},
     .ignore = {"num_ln_in_parallel_attn", "num_kv_heads", "multi_query", "parallel_attn"}}};

}  // namespace ttt::models
