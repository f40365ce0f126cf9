// Zamba 2: Mamba 2 layers; a few transformer layers, over the stream beside the embedding, are shared by
// several places, each with low-rank changes of its own.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/attention.h"
#include "ttt/modules/mlp.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// base + up down, row by row as it is read: a place's own version of a shared matrix.
class LowRankSum final : public WeightSource {
 public:
  LowRankSum(WeightSourcePtr base, WeightSourcePtr up, WeightSourcePtr down)
      : base_(std::move(base)), up_(std::move(up)), down_(std::move(down)) {}
  std::int64_t rows() const override { return base_->rows(); }
  std::int64_t cols() const override { return base_->cols(); }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    base_->read(begin, count, out);
    const std::int64_t rank = down_->rows(), n = cols();
    std::vector<float> down(static_cast<std::size_t>(rank * n)), up(static_cast<std::size_t>(count * rank));
    down_->read(0, rank, down.data());
    up_->read(begin, count, up.data());
    for (std::int64_t row = 0; row < count; ++row) {
      for (std::int64_t k = 0; k < rank; ++k) {
        const float factor = up[static_cast<std::size_t>(row * rank + k)];
        const float* from = down.data() + k * n;
        for (std::int64_t j = 0; j < n; ++j) out[row * n + j] += factor * from[j];
      }
    }
  }
  std::uint64_t fingerprint() const override {
    return (base_->fingerprint() * 31 + up_->fingerprint()) * 31 + down_->fingerprint();
  }
  std::string describe() const override { return base_->describe() + " + " + up_->describe(); }

 private:
  WeightSourcePtr base_, up_, down_;
};

static LazyWeight adapted(const BuildContext& c, const std::string& base, const std::string& up,
                          const std::string& down) {
  const LazyWeight weight = c.weight(base), u = c.weight(up), d = c.weight(down);
  if (!u) return weight;
  return {std::make_shared<LowRankSum>(weight.source(), u.source(), d.source()), WeightRole::linear,
          (c.name / base).path};
}

// t = linear(mlp(norm(attention(norm([x, embedding])))));  y = x + mamba(norm(x + t))
class HybridBlock final : public Block {
 public:
  HybridBlock(const BuildContext& c, const HfConfig& p)
      : input_norm_(norm(c, "attention_norm")),
        ffn_norm_(norm(c, "ffn_norm")),
        mamba_norm_(norm(c, "attn_norm")),
        attention_(
            Attention::from_config({.spec = std::get<AttentionSpec>(parse_mixer(p.json("attention"))),
                                    .q = adapted(c, "attention.q", "attention.q_up", "attention.q_down"),
                                    .k = adapted(c, "attention.k", "attention.k_up", "attention.k_down"),
                                    .v = adapted(c, "attention.v", "attention.v_up", "attention.v_down"),
                                    .o = c.weight("attention.o"),
                                    .name = c.name / "attention"},
                                   c.target, c.home)),
        mlp_(Mlp::from_config({.gate = adapted(c, "ffn.gate", "ffn.gate_up", "ffn.adapter_down"),
                               .up = adapted(c, "ffn.up", "ffn.up_up", "ffn.adapter_down"),
                               .down = c.weight("ffn.down"),
                               .name = c.name / "ffn",
                               .act = HfConfig::act(p.get<std::string>("act"))},
                              c.target, c.home)),
        mamba_(c.mixer(parse_mixer(p.json("mamba")), "attn")),
        linear_(Linear::from_config({.weight = c.weight("linear"), .name = c.name / "linear"}, c.target,
                                    c.home)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor both[] = {x, step.embedding};
    const Tensor a = attention_.forward(input_norm_.forward(ops::concat(both, 3)), step);
    const Tensor t = linear_.forward(mlp_.forward(ffn_norm_.forward(a), step.mode), step.mode);
    return ops::add(x, mamba_->forward(mamba_norm_.forward(ops::add(x, t)), step));
  }
  void print(PlanRows& rows) const override {
    ttt::print(attention_.plan(), rows), ttt::print(mlp_.plan(), rows), ttt::print(linear_.plan(), rows);
    mamba_->print(rows);
  }

 private:
  static RmsNorm norm(const BuildContext& c, const char* part) {
    return RmsNorm(c.weight(part), c.spec.norm.eps, c.target, c.home);
  }

  RmsNorm input_norm_, ffn_norm_, mamba_norm_;
  Attention attention_;
  Mlp mlp_;
  std::unique_ptr<Mixer> mamba_;
  Linear linear_;
};

static SsdSpec mamba2(const HfConfig& c) {
  c.require("add_bias_linear", false);
  SsdSpec s{.heads = c.get<int>("n_mamba_heads"),
            .state = c.get<int>("mamba_d_state"),
            .groups = c.get_or("mamba_ngroups", 1),
            .conv_kernel = c.get_or("mamba_d_conv", 4),
            .norm_eps = 1e-5f,
            // The reference bounds the step while it reads a prompt and not while it writes; here a
            // token's result does not depend on that, and the bound holds.
            .dt_min = c.get_or("time_step_min", 0.001f)};
  s.head_dim = c.get_or("mamba_expand", 2) * c.get<int>("hidden_size") / s.heads;
  return s;
}

static CustomSpec hybrid(const HfConfig& c, const MixerSpec& mamba) {
  const int dim = c.get<int>("hidden_size"), hidden = c.get<int>("intermediate_size"),
            head = c.get<int>("attention_head_dim");
  AttentionSpec attention{.heads = c.heads(),
                          .kv_heads = c.kv_heads(),
                          .head_dim = head,
                          .scale = 1 / std::sqrt(static_cast<float>(head) / 2)};
  if (c.get_or("use_mem_rope", false)) attention.rope = c.rope();
  if (attention.rope) attention.rope->rotary_dim = head;
  const bool adapters = c.get_or("use_shared_attention_adapter", false);
  const std::int64_t rank = c.get_or("adapter_rank", 128);
  CustomSpec s{.name = "hybrid_block",
               .parameters = "{\"attention\": " + to_json(MixerSpec{attention}) +
                             ", \"mamba\": " + to_json(mamba) + ", \"act\": \"" +
                             c.get_or<std::string>("hidden_act", "gelu") + "\"}",
               .state = state_slots(mamba, dim),
               .caches = {kv_cache(attention)}};
  for (const auto& [name, n] : {std::pair{"attention_norm", 2 * dim}, {"ffn_norm", dim}, {"attn_norm", dim}})
    s.weights.push_back({.name = name, .role = WeightRole::vector, .rows = 1, .cols = n});
  const auto matrix = [&](const std::string& name, std::int64_t rows, std::int64_t cols) {
    s.weights.push_back({.name = name, .rows = rows, .cols = cols});
  };
  matrix("linear", dim, dim);
  for (WeightSlot& slot : weight_slots(MixerSpec{attention}, 2 * dim, "attention")) {
    if (slot.name == "attention.o") slot.rows = dim;  // takes the doubled width, gives the stream's
    s.weights.push_back(slot);
    if (!adapters || slot.name == "attention.o") continue;
    matrix(slot.name + "_down", rank, 2 * dim);
    matrix(slot.name + "_up", slot.rows, rank);
  }
  for (WeightSlot& slot : weight_slots(FfnSpec{MlpSpec{.hidden = hidden}}, dim, "ffn"))
    s.weights.push_back(slot);
  matrix("ffn.adapter_down", rank, dim);
  matrix("ffn.gate_up", hidden, rank);
  matrix("ffn.up_up", hidden, rank);
  for (WeightSlot& slot : weight_slots(mamba, dim, "attn")) s.weights.push_back(slot);
  // How many shared layers there are, for the weight map.
  s.parameters.insert(1, "\"shared\": " + std::to_string(c.get_or("num_mem_blocks", 1)) + ", ");
  return s;
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-5f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  const MixerSpec mixer = mamba2(c);
  for (int i = 0; i < c.layers(); ++i) {
    if (c.layer_type(i) == "hybrid") {
      m.layers.push_back({.block = hybrid(c, mixer)});
    } else {
      m.layers.push_back({.mixer = mixer, .ffn = Absent{}});
    }
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names();
  map.rename("final_layernorm", "norm").rename("{layer}.linear", "{layer}.linear");
  const std::string shared = "{layer}.shared_transformer.";
  map.append(hf_ssd_names({"{layer}.mamba", "{layer}.mamba_decoder.mamba"}));
  map.rename("{layer}.mamba_decoder.input_layernorm", "{layer}.attn_norm")
      .rename(shared + "input_layernorm", "{layer}.attention_norm")
      .rename(shared + "pre_ff_layernorm", "{layer}.ffn_norm")
      .split(shared + "feed_forward.gate_up_proj", {"{layer}.ffn.gate", "{layer}.ffn.up"})
      .rename(shared + "feed_forward.down_proj", "{layer}.ffn.down");
  for (const std::string part : {"q", "k", "v", "o"})
    map.rename(shared + "self_attn." + part + "_proj", "{layer}.attention." + part);

  // Checkpoints hold each shared layer at its first place, with the low-rank changes of all its places.
  std::vector<std::string> places;
  int blocks = 1;
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    if (!m.layers[i].block) continue;
    places.push_back("layers." + std::to_string(i) + ".");
    blocks = HfConfig::parse(m.layers[i].block->parameters).get<int>("shared");
  }
  for (std::size_t place = 0; place < places.size(); ++place) {
    const std::string &layer = places[place], &home = places[place % static_cast<std::size_t>(blocks)];
    const std::string from = home + "shared_transformer.", list = "_adapter_list." + std::to_string(place);
    for (const std::string part : {"q", "k", "v"}) {
      map.rename(from + "self_attn.linear_" + part + list + ".0", layer + "attention." + part + "_down")
          .rename(from + "self_attn.linear_" + part + list + ".1", layer + "attention." + part + "_up");
    }
    map.rename(from + "feed_forward.gate_up_proj" + list + ".0", layer + "ffn.adapter_down")
        .split(from + "feed_forward.gate_up_proj" + list + ".1",
               {layer + "ffn.gate_up", layer + "ffn.up_up"});
    if (layer == home) continue;
    for (const char* part : {"attention_norm", "ffn_norm", "attention.q", "attention.k", "attention.v",
                             "attention.o", "ffn.gate", "ffn.up", "ffn.down"})
      map.alias(layer + part, home + part);
  }
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["hybrid_block"] = [](const BuildContext& c, std::string_view parameters) {
    return std::make_unique<HybridBlock>(c, HfConfig::parse(parameters));
  };
}

static const Family zamba2{
    "zamba2",
    {.architectures = {"Zamba2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .ignore = {"attention_hidden_size", "chunk_size", "hybrid_layer_ids", "kv_channels", "mamba_headdim",
                "num_query_groups", "rope_parameters", "time_step_floor", "time_step_max", "use_conv_bias",
                "use_long_context", "use_mem_eff_path"},
     .modules = modules}};

}  // namespace ttt::models
