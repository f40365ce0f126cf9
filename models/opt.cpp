// OPT: learned positions that start at 2, ReLU; the 350M normalises after the addition and has narrower
// embeddings.
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"

namespace ttt::models {

static ModelSpec describe(const HfConfig& c) {
  ModelSpec m = decoder(c, true);
  if (const int width = c.get_or("word_embed_proj_dim", m.dim); width != m.dim) m.embed_dim = width;
  const bool bias = c.get_or("enable_bias", true), before = c.get_or("do_layer_norm_before", true);
  const bool affine = c.get_or("layer_norm_elementwise_affine", true);
  m.norm = {.kind = NormKind::layer, .eps = 1e-5f, .weight = affine, .bias = affine};
  m.final_norm = before && !c.get_or("_remove_final_layer_norm", false);
  m.positions = PositionSpec{.entries = m.max_positions + 2, .offset = 2};
  m.layers.assign(static_cast<std::size_t>(c.layers()),
                  {.mixer = plain_attention(c, bias),
                   .ffn = plain_mlp(c, bias),
                   .residual = before ? Residual::pre_norm : Residual::norm_after_add});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  return hf_fairseq_names(m.layers.front().residual == Residual::pre_norm ? "_norm" : "_post_norm")
      .rename("project_in", "embed_in")
      .rename("project_out", "embed_out")
      .rename("final_layer_norm", "norm");
}

static const Family opt("opt", {"OPTForCausalLM"}, describe, weights);

}  // namespace ttt::models
