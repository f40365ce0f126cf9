// LFM2: short gated convolutions in most layers, attention with normalised q and k in the others.
#include <algorithm>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

// Some checkpoints say the size before two thirds are taken of it.
static int hidden_size(const HfConfig& c) {
  int hidden = c.get_or("block_ff_dim", c.get<int>("intermediate_size"));
  if (!c.get_or("block_auto_adjust_ff_dim", true)) return hidden;
  const int multiple = c.get_or("block_multiple_of", 256);
  hidden = static_cast<int>(c.get_or("block_ffn_dim_multiplier", 1.0) * (2 * hidden / 3));
  return (hidden + multiple - 1) / multiple * multiple;
}

static bool attends(const HfConfig& c, int layer) {
  if (const std::string type = c.layer_type(layer); !type.empty()) return type != "conv";
  const auto indices = c.get<std::vector<int>>("full_attn_idxs");
  return std::find(indices.begin(), indices.end(), layer) != indices.end();
}

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.tied_embeddings = c.get_or("tie_word_embeddings", c.get_or("tie_embedding", true));
  const ShortConvSpec conv{.kernel = c.get<int>("conv_L_cache"), .bias = c.get_or("conv_bias", false)};
  const MlpSpec ffn{.hidden = hidden_size(c)};
  for (int i = 0; i < c.layers(); ++i) {
    m.layers.push_back(
        {.mixer = attends(c, i) ? MixerSpec{attention(c, i, QkNorm::per_head)} : conv, .ffn = ffn});
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  return hf_decoder_names()
      .rename("embedding_norm", "norm")
      .rename("{layer}.operator_norm", "{layer}.attn_norm")
      .rename("{layer}.ffn_norm", "{layer}.ffn_norm")
      .split("{layer}.conv.in_proj", {"{layer}.attn.b", "{layer}.attn.c", "{layer}.attn.x"})
      .rename("{layer}.conv.", "{layer}.attn.", {{"conv", "conv"}, {"out_proj", "o"}})
      .rename("{layer}.self_attn.", "{layer}.attn.",
              {{"q_layernorm", "q_norm"}, {"k_layernorm", "k_norm"}, {"out_proj", "o"}})
      .rename("{layer}.feed_forward.", "{layer}.ffn.", {{"w1", "gate"}, {"w3", "up"}, {"w2", "down"}});
}

static WeightMap gguf(const ModelSpec&) {
  return gguf_decoder_names()
      .rename("token_embd_norm", "norm")
      .split("{layer}.shortconv.in_proj", {"{layer}.attn.b", "{layer}.attn.c", "{layer}.attn.x"})
      .rename("{layer}.shortconv.conv", "{layer}.attn.conv")
      .rename("{layer}.shortconv.out_proj", "{layer}.attn.o");
}

static const Family lfm2{
    "lfm2",
    {.architectures = {"Lfm2ForCausalLM"},
     .describe = describe,
     .weights = weights,
     .gguf = {{.architecture = "lfm2",
               .config = {{"conv_L_cache", "{arch}.shortconv.l_cache"}},
               .constants = R"({"block_auto_adjust_ff_dim": false})",
               .weights = gguf}},
     .ignore = {"block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale",
                "block_use_swiglu", "block_use_xavier_init", "conv_dim", "conv_dim_out",
                "conv_use_xavier_init", "full_attn_idxs", "num_heads", "theta"}}};

}  // namespace ttt::models
