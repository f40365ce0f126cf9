// A.X K1: latent attention, experts by sigmoid among groups after some dense layers, a norm over what they
// give.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// norm(moe(x))
class NormedMoe final : public FeedForward {
 public:
  NormedMoe(const BuildContext& c, std::string_view moe)
      : moe_(c.ffn(parse_ffn(moe), "moe")), norm_(c.weight("norm"), c.spec.norm.eps, c.target, c.home) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    return norm_.forward(moe_->forward(x, step));
  }
  void print(PlanRows& rows) const override { moe_->print(rows), ttt::print(norm_.plan(), rows); }

 private:
  std::unique_ptr<FeedForward> moe_;
  RmsNorm norm_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const FfnSpec moe = grouped_moe(c);
  CustomSpec normed{
      .name = "normed_moe", .parameters = to_json(moe), .weights = weight_slots(moe, m.dim, "moe")};
  normed.weights.push_back({.name = "norm", .role = WeightRole::vector, .rows = 1, .cols = m.dim});
  for (int i = 0; i < c.layers(); ++i)
    m.layers.push_back({.mixer = latent_attention(c, i), .ffn = feed_forward(c, i, normed)});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_decoder_names()
      .append(hf_latent_attention_names(std::get<LatentAttentionSpec>(m.layers.front().mixer).heads))
      .append(hf_moe_names("{layer}.ffn.moe"))
      .rename("{layer}.post_mlp_layernorm", "{layer}.ffn.norm")
      .surplus("*.ffn.norm")  // published checkpoints have it for dense layers too
      .optional("*.router.correction_bias");
}

static void modules(CustomModules& m) {
  m.feed_forwards["normed_moe"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<NormedMoe>(c, parameters);
  };
}

static const Family axk1{"axk1",
                         {.architectures = {"AXK1ForCausalLM"},
                          .describe = describe,
                          .weights = weights,
                          .ignore = {"qk_head_dim", "head_dim", "num_key_value_heads", "*aux_loss*",
                                     "ep_size", "scoring_func", "topk_method"},
                          .modules = modules}};

}  // namespace ttt::models
