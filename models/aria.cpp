// Aria (its decoder): experts stored [in, out] whose chosen logits are normalised, beside shared ones.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  MoeSpec moe = softmax_moe(c);
  moe.router = {.order = RouterOrder::top_k_then_score};
  moe.act = {UnaryOp::silu};
  moe.shared = MlpSpec{.hidden = c.get_or("moe_num_shared_experts", 2) * moe.hidden, .act = c.act()};
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = moe});
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .append(hf_moe_names())
      .transpose("*.mlp.experts.fc1")
      .transpose("*.mlp.experts.fc2")
      .split_gate_up("{layer}.mlp.experts.fc1", "{layer}.ffn.experts")
      .rename("{layer}.mlp.", "{layer}.ffn.", {{"router", "router"}, {"experts.fc2", "experts.down"}});
}

static const Family aria("aria", {"AriaTextForCausalLM"}, describe, weights);

}  // namespace ttt::models
