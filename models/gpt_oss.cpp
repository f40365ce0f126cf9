// gpt-oss: sinks, every other layer through a window, yarn, biases, experts chosen before their scores are
// normalised and whose gated units are bounded.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  if (c.get_or("swiglu_alpha", 1.702f) != 1.702f)
    throw Error("swiglu_alpha " + std::to_string(c.get<float>("swiglu_alpha")), c.source(),
                "only 1.702 is known");
  const MoeSpec moe{.experts = c.get<int>("num_local_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("intermediate_size"),
                    .router = {.order = RouterOrder::top_k_then_score, .bias = true},
                    .act = {UnaryOp::quick_gelu},  // x sigmoid(1.702 x)
                    .bias = true,
                    .limit = GluLimit{.limit = c.get_or("swiglu_limit", 7.0f), .up_offset = 1}};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.sinks = true;
    if (attn.rope) attn.rope->scaling.truncate = c.get_or("rope_truncate", attn.rope->scaling.truncate);
    m.layers.push_back({.mixer = attn, .ffn = moe});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .transpose("*.mlp.experts.gate_up_proj")
      .transpose("*.mlp.experts.down_proj")
      .rename("{layer}.self_attn.sinks", "{layer}.attn.sinks")
      .rename("{layer}.mlp.router", "{layer}.ffn.router")
      .split("{layer}.mlp.experts.gate_up_proj", {"{layer}.ffn.experts.gate", "{layer}.ffn.experts.up"},
             {.interleaved = true})
      .split("{layer}.mlp.experts.gate_up_proj_bias",
             {"{layer}.ffn.experts.gate.bias", "{layer}.ffn.experts.up.bias"}, {.interleaved = true})
      .rename("{layer}.mlp.experts.down_proj", "{layer}.ffn.experts.down")
      .rename("{layer}.mlp.experts.down_proj_bias", "{layer}.ffn.experts.down.bias");
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names().rename("{layer}.post_attention_norm", "{layer}.ffn_norm");
}

static const Family gpt_oss{
    "gpt_oss",
    {.architectures = {"GptOssForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "gpt-oss",
               .config = {{"num_local_experts", "{arch}.expert_count"},
                          {"intermediate_size", "{arch}.expert_feed_forward_length"}},
               .constants = R"({"sliding_window_pattern": 2, "rope_truncate": false})",
               .weights = gguf}},
     .ignore = {"initial_context_length", "experts_per_token", "hidden_act"}}};

}  // namespace ttt::models
