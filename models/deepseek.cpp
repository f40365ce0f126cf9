// DeepSeek V2, V3 and V3.2: latent attention, experts after some dense layers. V2 chooses them by softmax, V2
// Lite among all, the others by sigmoid. V3.2 attends to the keys that an indexer chooses.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static MoeSpec moe_of(const HfConfig& c) {
  MoeSpec moe = grouped_moe(c);
  const auto method = c.find<std::string>("topk_method");
  // transformers writes the method for V2 only.
  if (c.get_or<std::string>("scoring_func", method ? "softmax" : "sigmoid") == "sigmoid") return moe;
  const RouterSpec sigmoid = moe.router;
  moe.router = {.scale = sigmoid.scale};
  if (method == "group_limited_greedy")
    moe.router.groups = sigmoid.groups, moe.router.top_groups = sigmoid.top_groups,
    moe.router.group_score_top = 1;
  return moe;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe = moe_of(c);
  for (int i = 0; i < c.layers(); ++i) {
    LatentAttentionSpec attn = latent_attention(c, i);
    if (c.has("index_topk")) attn.indexer = indexer(c, attn);
    m.layers.push_back({.mixer = attn, .ffn = feed_forward(c, i, moe)});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .append(hf_latent_attention_names(std::get<LatentAttentionSpec>(m.layers.front().mixer).heads))
      .ignore(next_token_layer(m));  // predicts the token after next
}

// Older files have kv_b as it was; newer ones k_b, turned around for each head, and v_b.
static WeightMap gguf(const ModelSpec& m) {
  const int heads = std::get<LatentAttentionSpec>(m.layers.front().mixer).heads;
  return gguf_decoder_names()
      .rename("{layer}.attn_", "{layer}.attn.",
              {{"q_a", "q_a"},
               {"q_a_norm", "q_a_norm"},
               {"q_b", "q"},
               {"kv_a_mqa", "kv_a"},
               {"kv_a_norm", "kv_a_norm"},
               {"k_b", "k_b"},
               {"v_b", "v_b"}})
      .split("{layer}.attn_kv_b", {"{layer}.attn.k_b", "{layer}.attn.v_b"}, {.groups = heads})
      .transpose("*.attn_k_b");
}

static const Family deepseek{
    "deepseek",
    {.architectures = {"DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM", "DeepseekV32ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "deepseek2",
               .config = {{"qk_rope_head_dim", "{arch}.rope.dimension_count"},
                          {"qk_head_dim", "{arch}.attention.key_length_mla"},
                          {"v_head_dim", "{arch}.attention.value_length_mla"}},
               .constants = R"({"topk_method": "greedy"})",
               .weights = gguf}},
     .ignore = {"norm_topk_prob", "n_group", "topk_group", "topk_method", "qk_head_dim", "head_dim",
                "num_key_value_heads", "layer_types", "aux_loss*", "ep_size", "moe_layer_freq",
                "first_k_dense_replace", "intermediate_size", "mlp_bias"}}};

}  // namespace ttt::models
