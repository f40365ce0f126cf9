// Ports that went wrong: four families as they are right ("Right..."), and each with one typical mistake.
// What `ttt check` says of them is tested in check_test.cpp.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

namespace {

// ---------------------------------------------------------------- a plain decoder

ModelSpec plain(const HfConfig& c) {
  ModelSpec m = decoder(c);
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.mixer = attention(c, i), .ffn = mlp(c)});
  return m;
}
WeightMap plain_weights(const ModelSpec&) { return hf_decoder_names(); }

template <class F>
ModelSpec with_attention(ModelSpec m, F change) {
  for (LayerSpec& layer : m.layers) change(std::get<AttentionSpec>(layer.mixer));
  return m;
}

// ---------------------------------------------------------------- scaled embedding, 1 + w, windows, caps

ModelSpec windowed(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-6f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.window = c.window(i, 2);
    attn.scale = 1 / std::sqrt(c.get<float>("query_pre_attn_scalar"));
    attn.softcap = c.find<float>("attn_logit_softcapping");
    m.layers.push_back({.mixer = attn, .ffn = mlp(c), .residual = Residual::sandwich});
  }
  return m;
}
WeightMap windowed_names(const ModelSpec&) {
  return hf_decoder_names()
      .rename("{layer}.post_attention_layernorm", "{layer}.attn_post_norm")
      .rename("{layer}.pre_feedforward_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm");
}
WeightMap windowed_weights(const ModelSpec& m) { return windowed_names(m).apply("*norm", add(1)); }

// ---------------------------------------------------------------- experts, norms of q and k

ModelSpec experts(const HfConfig& c) {
  ModelSpec m = decoder(c);
  const MoeSpec moe{.experts = c.get<int>("num_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("moe_intermediate_size"),
                    .router = {.renormalize = c.get_or("norm_topk_prob", false)},
                    .act = c.act()};
  const auto dense = c.get_or("mlp_only_layers", std::vector<int>{});
  (void)c.get_or("decoder_sparse_step", 1);
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = c.norm_eps();
    bool is_dense = false;
    for (int d : dense) is_dense = is_dense || d == i;
    m.layers.push_back({.mixer = attn, .ffn = is_dense ? FfnSpec{mlp(c)} : FfnSpec{moe}});
  }
  return m;
}
WeightMap expert_weights(const ModelSpec&) { return hf_decoder_names().append(hf_moe_names()); }
template <class F>
ModelSpec with_router(ModelSpec m, F change) {
  for (LayerSpec& layer : m.layers) {
    if (auto* moe = std::get_if<MoeSpec>(&layer.ffn)) change(moe->router);
  }
  return m;
}

// ---------------------------------------------------------------- side by side, fused q, k and v

ModelSpec parallel(const HfConfig& c) {
  ModelSpec m = decoder(c);
  m.norm = {.kind = NormKind::layer, .eps = c.norm_eps(), .bias = true};
  MlpSpec ffn = mlp(c);
  ffn.gated = false;
  ffn.bias = true;
  const auto residual = c.get_or("use_parallel_residual", true) ? Residual::parallel : Residual::pre_norm;
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i);
    attn.qkv_bias = attn.out_bias = c.get_or("attention_bias", true);
    m.layers.push_back({.mixer = attn, .ffn = ffn, .residual = residual});
  }
  return m;
}
WeightMap fused_names(std::int64_t groups) {
  return WeightMap()
      .strip("gpt_neox.")
      .rename("embed_in", "embed")
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .split("{layer}.attention.query_key_value", {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"},
             {.groups = groups})
      .rename("{layer}.attention.dense", "{layer}.attn.o")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.dense_h_to_4h", "{layer}.ffn.up")
      .rename("{layer}.mlp.dense_4h_to_h", "{layer}.ffn.down")
      .rename("final_layer_norm", "norm")
      .rename("embed_out", "lm_head");
}
WeightMap fused_weights(const ModelSpec& m) {
  return fused_names(std::get<AttentionSpec>(m.layers.front().mixer).heads);
}

ModelEntry entry(const char* architecture, ModelSpec (*describe)(const HfConfig&),
                 WeightMap (*weights)(const ModelSpec&)) {
  return {.architectures = {architecture},
          .describe = describe,
          .weights = weights,
          .ignore = {"pretraining_tp", "use_bidirectional_attention", "cache_implementation",
                     "output_router_logits", "router_aux_loss_coef", "classifier_dropout", "hidden_dropout",
                     "is_decoder"}};
}

// ---------------------------------------------------------------- right

const Family right_plain{"right_plain", entry("RightPlain", plain, plain_weights)};
const Family right_windowed{"right_windowed", entry("RightWindowed", windowed, windowed_weights)};
const Family right_experts{"right_experts", entry("RightExperts", experts, expert_weights)};
const Family right_parallel{"right_parallel", entry("RightParallel", parallel, fused_weights)};

// ---------------------------------------------------------------- wrong

const Family gate_up{"gate_up", entry("GateAndUpExchanged", plain, [](const ModelSpec&) {
                       return hf_decoder_names()
                           .rename("{layer}.mlp.gate_proj", "{layer}.ffn.up")
                           .rename("{layer}.mlp.up_proj", "{layer}.ffn.gate");
                     })};
const Family k_v{"k_v", entry("KeysAndValuesExchanged", plain, [](const ModelSpec&) {
                   return hf_decoder_names()
                       .rename("{layer}.self_attn.k_proj", "{layer}.attn.v")
                       .rename("{layer}.self_attn.v_proj", "{layer}.attn.k");
                 })};
const Family norms{"norms", entry("NormsExchanged", plain, [](const ModelSpec&) {
                     return hf_decoder_names()
                         .rename("{layer}.input_layernorm", "{layer}.ffn_norm")
                         .rename("{layer}.post_attention_layernorm", "{layer}.attn_norm");
                   })};
const Family one_more{"one_more", entry("OneAddedToNorms", plain, [](const ModelSpec&) {
                        return hf_decoder_names().apply("*norm", add(1));
                      })};
const Family transposed{"transposed", entry("TransposedWeight", plain, [](const ModelSpec&) {
                          return hf_decoder_names().transpose("{layer}.self_attn.o_proj");
                        })};
const Family theta{"theta", entry(
                                "WrongTheta",
                                [](const HfConfig& c) {
                                  return with_attention(plain(c),
                                                        [](AttentionSpec& a) { a.rope->theta = 5e5f; });
                                },
                                plain_weights)};
const Family layout{"layout", entry(
                                  "WrongRopeLayout",
                                  [](const HfConfig& c) {
                                    return with_attention(
                                        plain(c), [](AttentionSpec& a) { a.rope->interleaved = true; });
                                  },
                                  plain_weights)};
const Family scale{"scale", entry(
                                "NoAttentionScale",
                                [](const HfConfig& c) {
                                  return with_attention(plain(c), [](AttentionSpec& a) { a.scale = 1.0f; });
                                },
                                plain_weights)};
const Family unread{"unread", entry(
                                  "UnreadKey",
                                  [](const HfConfig& c) {
                                    ModelSpec m = decoder(c);
                                    const AttentionSpec attn{.heads = c.heads(),
                                                             .kv_heads = c.kv_heads(),
                                                             .head_dim = c.head_dim(),
                                                             .qkv_bias = c.get_or("attention_bias", false),
                                                             .rope = RopeSpec{}};
                                    m.layers.assign(static_cast<std::size_t>(c.layers()),
                                                    {.mixer = attn, .ffn = mlp(c)});
                                    return m;
                                  },
                                  plain_weights)};
const Family leftover{"leftover", entry(
                                      "MissingNorms",
                                      [](const HfConfig& c) {
                                        return with_attention(
                                            experts(c), [](AttentionSpec& a) { a.qk_norm = QkNorm::none; });
                                      },
                                      expert_weights)};

const Family no_one{"no_one", entry("NothingAddedToNorms", windowed, windowed_names)};
const Family no_window{"no_window", entry(
                                        "NoWindow",
                                        [](const HfConfig& c) {
                                          return with_attention(windowed(c),
                                                                [](AttentionSpec& a) { a.window.reset(); });
                                        },
                                        windowed_weights)};
const Family window{"window", entry(
                                  "WindowOffByOne",
                                  [](const HfConfig& c) {
                                    return with_attention(windowed(c), [](AttentionSpec& a) {
                                      if (a.window) ++*a.window;
                                    });
                                  },
                                  windowed_weights)};
const Family no_embed_scale{"no_embed_scale", entry(
                                                  "NoEmbeddingScale",
                                                  [](const HfConfig& c) {
                                                    ModelSpec m = windowed(c);
                                                    m.embed_scale = 1;
                                                    return m;
                                                  },
                                                  windowed_weights)};
const Family no_cap{"no_cap", entry(
                                  "NoSoftCap",
                                  [](const HfConfig& c) {
                                    return with_attention(windowed(c),
                                                          [](AttentionSpec& a) { a.softcap.reset(); });
                                  },
                                  windowed_weights)};
const Family no_logit_cap{"no_logit_cap", entry(
                                              "NoSoftCapOfLogits",
                                              [](const HfConfig& c) {
                                                ModelSpec m = windowed(c);
                                                m.logit_softcap.reset();
                                                return m;
                                              },
                                              windowed_weights)};
const Family activation{"activation", entry(
                                          "WrongActivation",
                                          [](const HfConfig& c) {
                                            ModelSpec m = windowed(c);
                                            for (LayerSpec& layer : m.layers)
                                              std::get<MlpSpec>(layer.ffn).act = {UnaryOp::silu};
                                            return m;
                                          },
                                          windowed_weights)};
const Family sum{"sum", entry(
                            "ScoresNotDividedByTheirSum",
                            [](const HfConfig& c) {
                              return with_router(experts(c), [](RouterSpec& r) { r.renormalize = false; });
                            },
                            expert_weights)};
const Family sigmoid{"sigmoid", entry(
                                    "SigmoidRouter",
                                    [](const HfConfig& c) {
                                      return with_router(
                                          experts(c), [](RouterSpec& r) { r.score = RouterScore::sigmoid; });
                                    },
                                    expert_weights)};
const Family late_norm{"late_norm", entry(
                                        "NormOfQueriesAfterRope",
                                        [](const HfConfig& c) {
                                          return with_attention(experts(c), [](AttentionSpec& a) {
                                            a.qk_norm_after_rope = true;
                                          });
                                        },
                                        expert_weights)};
const Family groups{
    "groups", entry("WrongGroupsOfFusedWeight", parallel, [](const ModelSpec&) { return fused_names(1); })};
const Family sequential{"sequential", entry(
                                          "SequentialInsteadOfParallel",
                                          [](const HfConfig& c) {
                                            ModelSpec m = parallel(c);
                                            for (LayerSpec& layer : m.layers)
                                              layer.residual = Residual::pre_norm;
                                            return m;
                                          },
                                          fused_weights)};
const Family whole_head{
    "whole_head", entry(
                      "WholeHeadsRotate",
                      [](const HfConfig& c) {
                        return with_attention(parallel(c), [](AttentionSpec& a) { a.rope->rotary_dim = 0; });
                      },
                      fused_weights)};

}  // namespace

}  // namespace ttt::models
