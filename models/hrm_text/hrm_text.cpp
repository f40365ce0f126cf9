// HRM Text: two stacks of layers, run over and over; the low one several times for each run of the high one.
// Every run starts from the sum of what the two gave last. Written out as one sequence of layers that share
// weights.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// high = x;  y = x + low
class StartBlock final : public Block {
 public:
  explicit StartBlock(const BuildContext& c) : low_(c.home.bind(c.weight("low"), vector_dtype)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    step.slots["high"] = x;
    return ops::add(x, low_.get(), {.dtype = x.dtype()});
  }
  void print(PlanRows&) const override {}

 private:
  LazyWeight low_;
};

// own = norm(x);  y = own + other: between two runs, own being low or high, whichever has just run.
class TurnBlock final : public Block {
 public:
  TurnBlock(const BuildContext& c, const HfConfig& p)
      : own_(p.get<std::string>("own")),
        other_(own_ == "low" ? "high" : "low"),
        norm_(RmsNorm::from_config({.name = c.name, .eps = c.spec.norm.eps}, c.target, c.home)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor& own = step.slots[own_] = norm_.forward(x);
    return ops::add(own, step.slots.at(other_));
  }
  void print(PlanRows& rows) const override { ttt::print(norm_.plan(), rows); }

 private:
  std::string own_, other_;
  RmsNorm norm_;
};

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.weight = false;
  m.embed_scale = c.get_or("embedding_scale", 1 / c.get_or("initializer_range", 0.02f));
  const int high_cycles = c.get_or("H_cycles", 2), low_cycles = c.get_or("L_cycles", 3);
  if (high_cycles < 1 || low_cycles < 1 || high_cycles > 64 || low_cycles > 64)
    throw Error("H_cycles " + std::to_string(high_cycles) + ", L_cycles " + std::to_string(low_cycles),
                c.source(), "they must be from 1 to 64");
  const int layers = c.get_or("num_layers_per_stack", c.layers());
  c.require("attention_bias", false);
  AttentionSpec attn = attention(c);
  attn.gate = AttentionGateSpec{};

  m.layers.push_back(
      {.block =
           CustomSpec{.name = "start_block",
                      .weights = {{.name = "low", .role = WeightRole::vector, .rows = 1, .cols = m.dim}}}});
  for (int run = 1; run <= high_cycles * (low_cycles + 1); ++run) {
    m.layers.insert(m.layers.end(), static_cast<std::size_t>(layers), {.mixer = attn, .ffn = mlp(c)});
    const bool high = run % (low_cycles + 1) == 0;
    if (run < high_cycles * (low_cycles + 1))
      m.layers.push_back(
          {.block = CustomSpec{.name = "turn_block",
                               .parameters = high ? R"({"own": "high"})" : R"({"own": "low"})"}});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  WeightMap map = hf_decoder_names().rename("z_L_init", "layers.0.low");
  // The runs: from where to where in the sequence, and of which stack. The last one, without a turn, is high.
  std::map<bool, std::size_t> first;  // high, low: where the stack's first run begins
  for (std::size_t begin = 1, end = 1; begin < m.layers.size(); begin = ++end) {
    while (end < m.layers.size() && !m.layers[end].block) ++end;
    const bool high =
        end == m.layers.size() || m.layers[end].block->parameters.find("high") != std::string::npos;
    const auto [own, new_stack] = first.emplace(high, begin);
    for (std::size_t i = begin; i < end; ++i) {
      const std::string to = "layers." + std::to_string(i) + ".",
                        home = "layers." + std::to_string(own->second + i - begin) + ".",
                        from = (high ? "H_module.layers." : "L_module.layers.") + std::to_string(i - begin) +
                               ".";
      if (new_stack) {
        map.split(from + "attn.gqkv_proj", {to + "attn.gate", to + "attn.q", to + "attn.k", to + "attn.v"})
            .rename(from + "attn.o_proj", to + "attn.o")
            .split(from + "mlp.gate_up_proj", {to + "ffn.gate", to + "ffn.up"})
            .rename(from + "mlp.down_proj", to + "ffn.down");
        continue;
      }
      for (const std::string part :
           {"attn.gate", "attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down"})
        map.alias(to + part, home + part);
    }
  }
  return map;
}

static void modules(CustomModules& m) {
  m.blocks["start_block"] = [](const BuildContext& c, std::string_view) {
    return std::make_unique<StartBlock>(c);
  };
  m.blocks["turn_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<TurnBlock>(c, HfConfig::parse(p));
  };
}

static const Family hrm_text{
    "hrm_text",
    {.architectures = {"HrmTextForCausalLM"},
     .describe = describe,
     .weights = weights,
     // prefix_lm: an instruction that is marked as such sees all of itself; a plain prompt is causal.
     .ignore = {"L_bp_cycles", "prefix_lm", "num_hidden_layers", "initializer_range"},
     .modules = modules}};

}  // namespace ttt::models
