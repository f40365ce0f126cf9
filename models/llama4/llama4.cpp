// Llama 4: attention within chunks, and, without rotation but with a temperature, over everything in every
// fourth layer; experts see their input multiplied by their score.
#include <algorithm>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/moe.h"

namespace ttt::models {

// y = shared(x) + sum over the chosen experts e of expert_e(p_e x)
class InputScaledMoe final : public FeedForward {
 public:
  InputScaledMoe(const BuildContext& c, const MoeSpec& spec)
      : spec_(spec),
        router_(Router::from_config({.spec = spec.router,
                                     .experts = spec.experts,
                                     .top_k = spec.top_k,
                                     .weight = c.weight("router"),
                                     .name = c.name / "router"},
                                    c.target, c.home)),
        shared_(c.ffn(*spec.shared, "shared")),
        gate_(experts(c, "experts.gate")),
        up_(experts(c, "experts.up")),
        down_(experts(c, "experts.down")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const auto [weights, chosen] = router_.forward(x, step.mode);
    const std::int64_t dim = x.dim(3);
    const Tensor inputs = ops::mul(x.reshape({1, step.tokens, 1, dim}),
                                   weights.reshape({1, step.tokens, spec_.top_k, 1}), {.dtype = x.dtype()});
    const Tensor hidden =
        gated_product(ops::sparse_matmul(inputs, gate_.get(), chosen),
                      ops::sparse_matmul(inputs, up_.get(), chosen), spec_.act, std::nullopt);
    const Tensor each = ops::sparse_matmul(hidden, down_.get(), chosen);
    const Tensor y = ops::add(shared_->forward(x, step), ops::sum(each, 2).reshape(x.shape()));
    tap(y, router_.plan().name, "sum");
    return y;
  }
  void print(PlanRows& rows) const override { ttt::print(router_.plan(), rows), shared_->print(rows); }

 private:
  LazyWeight experts(const BuildContext& c, const char* part) const {
    return c.home.bind(c.weight(part).experts(spec_.experts), c.target.weight_dtype((c.name / part).path));
  }

  MoeSpec spec_;
  Router router_;
  std::unique_ptr<FeedForward> shared_;
  LazyWeight gate_, up_, down_;
};

static AttentionSpec attention_of(const HfConfig& c, int layer) {
  AttentionSpec attn = attention(c, layer);
  if (c.layer_type(layer) != "full_attention" && attn.rope) attn.chunk = c.find<int>("attention_chunk_size");
  if (!attn.rope) {
    if (c.get_or("attn_temperature_tuning", true))
      attn.temperature = QueryTemperature{
          .scale = c.get_or("attn_scale", 0.1f), .length = c.get_or("floor_scale", 8192.0f), .offset = 1};
    return attn;
  }
  attn.rope->interleaved = true;
  if (c.get_or("use_qk_norm", true)) {
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec = {.eps = c.norm_eps(), .weight = false};
    attn.qk_norm_after_rope = true;
  }
  return attn;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  const MoeSpec moe{.experts = c.get<int>("num_local_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("intermediate_size"),
                    .router = {.score = RouterScore::sigmoid, .order = RouterOrder::top_k_then_score},
                    .act = c.act(),
                    .shared = MlpSpec{.hidden = c.get<int>("intermediate_size"), .act = c.act()}};
  const CustomSpec experts{.name = "input_scaled_moe",
                           .parameters = to_json(FfnSpec{moe}),
                           .weights = weight_slots(moe, m.dim, "")};
  const MlpSpec dense{.hidden = c.get_or("intermediate_size_mlp", moe.hidden), .act = c.act()};
  const auto listed = c.find<std::vector<int>>("moe_layers");
  const int every = c.get_or("interleave_moe_layer_step", 1);
  for (int i = 0; i < c.layers(); ++i) {
    const bool sparse = listed ? std::ranges::count(*listed, i) > 0 : (i + 1) % every == 0;
    m.layers.push_back({.mixer = attention_of(c, i), .ffn = sparse ? FfnSpec{experts} : FfnSpec{dense}});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  const std::string ffn = "{layer}.feed_forward.";
  WeightMap map =
      hf_decoder_names()
          .strip("language_model.")
          .rename(ffn + "router", "{layer}.ffn.router")
          .transpose("*.experts.gate_up_proj")
          .transpose("*.experts.down_proj")
          .split(ffn + "experts.gate_up_proj", {"{layer}.ffn.experts.gate", "{layer}.ffn.experts.up"})
          .rename(ffn + "experts.down_proj", "{layer}.ffn.experts.down")
          .ignore("vision_model.*")
          .ignore("multi_modal_projector.*");
  for (const std::string part : {"gate", "up", "down"})
    map.rename(ffn + part + "_proj", "{layer}.ffn." + part)
        .rename(ffn + "shared_expert." + part + "_proj", "{layer}.ffn.shared." + part);
  return map;
}

static void modules(CustomModules& m) {
  m.feed_forwards["input_scaled_moe"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<InputScaledMoe>(c, std::get<MoeSpec>(parse_ffn(p)));
  };
}

static const Family llama4{
    "llama4",
    {.architectures = {"Llama4ForCausalLM", "Llama4ForConditionalGeneration"},
     .describe = describe,
     .weights = weights,
     .ignore = {"interleave_moe_layer_step", "attn_scale", "floor_scale", "for_llm_compressor"},
     .modules = modules}};

}  // namespace ttt::models
