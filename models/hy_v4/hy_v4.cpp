// Hunyuan V4: several residual streams; latent attention with sinks, gates and an indexer that some layers
// share; a dense layer first, then experts whose units are bounded.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/hyper_block.h"
#include "ttt/modules/latent_attention.h"

namespace ttt::models {

// Its indexer turns the last dimensions of a head, the core's the first. What is compared does not change
// when the last ones of queries and keys are put in front.
static WeightSourcePtr tail_first(const WeightSourcePtr& rows, std::int64_t width, std::int64_t tail) {
  std::vector<std::int64_t> order;
  for (std::int64_t head = 0; head < rows->rows(); head += width) {
    for (std::int64_t i = 0; i < width; ++i) order.push_back(head + (i + width - tail) % width);
  }
  return gather_rows(rows, std::move(order));
}

class TailIndexedAttention final : public Mixer {
 public:
  TailIndexedAttention(const BuildContext& c, const LatentAttentionSpec& spec)
      : attention_(LatentAttention::from_config(latent_attention_config(spec, c.name, part(c, spec)),
                                                c.target, c.home)) {}
  Tensor forward(const Tensor& x, const Step& step) const override { return attention_.forward(x, step); }
  void print(PlanRows& rows) const override { ttt::print(attention_.plan(), rows); }

 private:
  static std::function<LazyWeight(std::string_view)> part(const BuildContext& c,
                                                          const LatentAttentionSpec& spec) {
    return [&c, &spec](std::string_view name) {
      const LazyWeight w = c.weight(name);
      if (!w || !spec.indexer || !name.starts_with("indexer.") || name == "indexer.weights") return w;
      const std::int64_t width = spec.indexer->head_dim, tail = spec.rope_dim;
      const bool lies = w.role() == WeightRole::vector;  // the norm's values run along its columns
      const WeightSourcePtr rows = lies ? reshape_source(w.source(), width, 1) : w.source();
      const WeightSourcePtr turned = tail_first(rows, width, tail);
      return LazyWeight(lies ? reshape_source(turned, 1, width) : turned, w.role(), w.name());
    };
  }

  LatentAttention attention_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const HyperConnectionSpec hyper{.streams = c.get<int>("hc_mult"),
                                  .eps = c.get_or("hc_eps", 1e-6f),
                                  .norm_eps = m.norm.eps,
                                  .magnitude = c.get_or("hc_magnitude", 2.0f),
                                  .post_eps = c.get_or("hc_eps", 1e-6f)};
  const auto indexers = c.get<std::vector<std::string>>("indexer_types");
  MoeSpec moe = grouped_moe(c);
  moe.limit = GluLimit{.limit = c.get<float>("swiglu_limit")};
  int chooser = 0;  // the last layer with an indexer
  for (int i = 0; i < c.layers(); ++i) {
    LatentAttentionSpec attn = latent_attention(c, i);
    attn.rope->interleaved = false;
    attn.sinks = true;
    attn.gate = AttentionGateSpec{};
    if (indexers.at(static_cast<std::size_t>(i)) == "shared") {
      attn.selection_of_layer = chooser;
    } else {
      attn.indexer = indexer(c, attn);
      attn.indexer->norm_eps = m.norm.eps;
      chooser = i;
    }
    const MixerSpec latent = attn;
    const CustomSpec mixer{.name = "tail_indexed_attention",
                           .parameters = to_json(latent),
                           .weights = weight_slots(latent, m.dim, ""),
                           .caches = {kv_cache(attn)}};
    m.layers.push_back(
        {.block = hyper_block(hyper, mixer, feed_forward(c, i, moe), m.dim, i + 1 == c.layers())});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const HfConfig mixer = HfConfig::parse(m.layers.front().block->parameters);
  const int heads =
      std::get<LatentAttentionSpec>(parse_mixer(mixer.get<std::string>("mixer.custom.parameters"))).heads;
  WeightMap map = hf_decoder_names().append(hf_moe_names()).append(hf_latent_attention_names(heads));
  map.rename("{layer}.self_attn.learnable_sink_param", "{layer}.attn.sinks")
      .rename("{layer}.self_attn.linear_gate", "{layer}.attn.gate")
      .rename("{layer}.mlp.linear_gate", "{layer}.ffn.gate")
      .rename("{layer}.mlp.shared_experts.linear_gate", "{layer}.ffn.shared.gate")
      .split_gate_up("{layer}.mlp.experts.gate_up_proj", "{layer}.ffn.experts")
      .rename("{layer}.mlp.experts.down_proj", "{layer}.ffn.experts.down")
      .ignore(next_token_layer(m));  // predicts the token after next
  const std::string last = "layers." + std::to_string(m.layers.size() - 1) + ".head_hyper.";
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"fn", "weight"}, {"base", "base"}, {"scale", "scale"}}) {
    map.rename("{layer}.hc_pre.hc_attn_layer.hc_" + from, "{layer}.attn_hyper." + to)
        .rename("{layer}.hc_pre.hc_mlp_layer.hc_" + from, "{layer}.ffn_hyper." + to)
        .rename("hc_pre.hc_head.hc_head_" + from, last + to);
  }
  return map;
}

static void modules(CustomModules& m) {
  m.blocks[hyper_block_name] = make_hyper_block;
  m.mixers["tail_indexed_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<TailIndexedAttention>(c, std::get<LatentAttentionSpec>(parse_mixer(p)));
  };
}

static const Family hy_v4{"hy_v4",
                          {.architectures = {"HYV4ForCausalLM"},
                           .describe = describe,
                           .weights = weights,
                           .ignore = {"head_dim", "index_*", "layer_types", "learnable_sink_init",
                                      "num_key_value_heads", "qk_head_dim"},
                           .modules = modules}};

}  // namespace ttt::models
