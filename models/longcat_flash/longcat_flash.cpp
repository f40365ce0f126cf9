// LongCat Flash: two rounds of latent attention and MLP in a layer; experts see what the first MLP sees, and
// what they give is added at the end. Some experts only pass on their input.
#include <array>
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/moe.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// sum over the chosen experts e of p_e * (e < spec.experts ? expert_e(x) : x)
class ZeroExpertMoe {
 public:
  ZeroExpertMoe(const BuildContext& c, const MoeSpec& spec, int all_experts)
      : moe_(Moe::from_config({.spec = spec,
                               .router = {.spec = spec.router,
                                          .experts = all_experts,
                                          .top_k = spec.top_k,
                                          .weight = c.weight("moe.router"),
                                          .correction_bias = c.weight("moe.router.correction_bias"),
                                          .name = c.name / "moe.router"},
                               .gate = c.weight("moe.experts.gate"),
                               .up = c.weight("moe.experts.up"),
                               .down = c.weight("moe.experts.down"),
                               .name = c.name / "moe"},
                              c.target, c.home)),
        last_(from_host(c.home.backend(), std::vector{static_cast<float>(spec.experts) - 0.5f}, {1, 1, 1, 1},
                        DataType::f32)) {}
  Tensor forward(const Tensor& x, Mode mode) const {
    const Router::Choice choice = moe_.choose(x, mode);
    const Tensor passes = ops::compare(BinaryOp::gt, ops::typecast(choice.experts, DataType::f32), last_);
    const Tensor passed = ops::sum(ops::mul(choice.weights, passes));
    return ops::add(moe_.experts(x, choice), ops::mul(x, passed));
  }
  const MoePlan& plan() const { return moe_.plan(); }

 private:
  Moe moe_;
  Tensor last_;  // between the last expert that computes and the first that does not
};

class ShortcutBlock final : public Block {
 public:
  ShortcutBlock(const BuildContext& c, const HfConfig& p)
      : rounds_{Round(c, p, "0"), Round(c, p, "1")},
        moe_(c, std::get<MoeSpec>(parse_ffn(p.json("moe"))), p.get<int>("all_experts")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    Tensor h = ops::add(x, rounds_[0].attn->forward(rounds_[0].attn_norm.forward(x), step));
    const Tensor y = rounds_[0].ffn_norm.forward(h);
    const Tensor shortcut = moe_.forward(y, step.mode);
    h = ops::add(std::move(h), rounds_[0].ffn->forward(y, step));
    Step second = step;
    second.iteration = 1;
    h = ops::add(h, rounds_[1].attn->forward(rounds_[1].attn_norm.forward(h), second));
    h = ops::add(h, rounds_[1].ffn->forward(rounds_[1].ffn_norm.forward(h), step));
    return ops::add(std::move(h), shortcut);
  }
  void print(PlanRows& rows) const override {
    ttt::print(moe_.plan(), rows);
    for (const Round& round : rounds_) round.attn->print(rows), round.ffn->print(rows);
  }

 private:
  struct Round {
    Round(const BuildContext& c, const HfConfig& p, const std::string& i)
        : attn_norm(c.weight("attn_norm." + i), c.spec.norm.eps, c.target, c.home),
          ffn_norm(c.weight("ffn_norm." + i), c.spec.norm.eps, c.target, c.home),
          attn(c.mixer(parse_mixer(p.json("attention")), "attn." + i)),
          ffn(c.ffn(parse_ffn(p.json("mlp")), "ffn." + i)) {}
    RmsNorm attn_norm, ffn_norm;
    std::unique_ptr<Mixer> attn;
    std::unique_ptr<FeedForward> ffn;
  };
  std::array<Round, 2> rounds_;
  ZeroExpertMoe moe_;
};

static ModelSpec describe(const HfConfig& c) {
  c.require("router_bias", false);
  ModelSpec m = decoder(c);
  const LatentAttentionSpec attn = latent_attention(c);
  const MlpSpec dense{.hidden = c.get<int>("ffn_hidden_size"), .act = c.act()};
  const MoeSpec moe{.experts = c.get<int>("n_routed_experts"),
                    .top_k = c.get<int>("moe_topk"),
                    .hidden = c.get<int>("expert_ffn_hidden_size"),
                    .router = {.scale = c.get_or("routed_scaling_factor", 1.0f), .correction_bias = true},
                    .act = c.act()};
  const int all = moe.experts + c.get_or("zero_expert_num", 0);
  CustomSpec block{
      .name = "shortcut_block",
      .parameters = "{\"attention\": " + to_json(MixerSpec{attn}) + ", \"mlp\": " + to_json(FfnSpec{dense}) +
                    ", \"moe\": " + to_json(FfnSpec{moe}) + ", \"all_experts\": " + std::to_string(all) + "}",
      .caches = {kv_cache(attn), kv_cache(attn)}};
  const auto add = [&](const std::vector<WeightSlot>& slots) {
    block.weights.insert(block.weights.end(), slots.begin(), slots.end());
  };
  for (const std::string i : {"0", "1"}) {
    for (const std::string norm : {"attn_norm.", "ffn_norm."})
      add({{.name = norm + i, .role = WeightRole::vector, .rows = 1, .cols = m.dim}});
    add(weight_slots(MixerSpec{attn}, m.dim, "attn." + i));
    add(weight_slots(FfnSpec{dense}, m.dim, "ffn." + i));
  }
  for (WeightSlot slot : weight_slots(FfnSpec{moe}, m.dim, "moe")) {
    if (slot.name == "moe.router") slot.rows = all;
    if (slot.name == "moe.router.correction_bias") slot.cols = all;
    add({slot});
  }
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.block = block});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const HfConfig p = HfConfig::parse(m.layers.front().block->parameters);
  const auto attn = std::get<LatentAttentionSpec>(parse_mixer(p.json("attention")));
  WeightMap map = hf_decoder_names();
  map.append(hf_moe_names("{layer}.moe"))
      .rename("{layer}.mlp.router.classifier", "{layer}.moe.router")
      .rename("{layer}.mlp.router.e_score_correction_bias", "{layer}.moe.router.correction_bias")
      .rename("{layer}.input_layernorm.{j}", "{layer}.attn_norm.{j}")
      .rename("{layer}.post_attention_layernorm.{j}", "{layer}.ffn_norm.{j}")
      .rename("{layer}.self_attn.{j}.o_proj", "{layer}.attn.{j}.o")
      .append(hf_latent_attention_names(attn.heads, "{layer}.self_attn.{j}", "{layer}.attn.{j}"))
      .ignore("mtp.*");
  for (const std::string part : {"gate", "up", "down"})
    map.rename("{layer}.mlps.{j}." + part + "_proj", "{layer}.ffn.{j}." + part);
  // The zero experts' matrices are there and do nothing.
  const int experts = std::get<MoeSpec>(parse_ffn(p.json("moe"))).experts;
  for (int e = experts; e < p.get<int>("all_experts"); ++e)
    map.ignore("{layer}.mlp.experts." + std::to_string(e) + ".*");
  // The latents are multiplied by (dim / rank)^1/2, here in their norms.
  const auto scale = [&](int rank) { return multiply(std::sqrt(static_cast<float>(m.dim) / rank)); };
  return map.apply("*.q_a_norm", scale(attn.q_lora_rank)).apply("*.kv_a_norm", scale(attn.kv_lora_rank));
}

static void modules(CustomModules& m) {
  m.blocks["shortcut_block"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<ShortcutBlock>(c, HfConfig::parse(parameters));
  };
}

static const Family longcat_flash{"longcat_flash",
                                  {.architectures = {"LongcatFlashForCausalLM"},
                                   .describe = describe,
                                   .weights = weights,
                                   .ignore = {"qk_head_dim", "head_dim", "num_key_value_heads",
                                              "zero_expert_type", "mla_scale_*_lora", "attention_method"},
                                   .modules = modules}};

}  // namespace ttt::models
