// What both generations of Inkling have.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "ttt/convert/decoder_spec.h"
#include "ttt/model/build.h"
#include "ttt/modules/causal_conv1d.h"
#include "ttt/modules/relative_bias.h"

namespace ttt::models {

// y = scale (x + conv(x)); `part` is the name of its weight and of its state.
class ResidualConv {
 public:
  ResidualConv(const BuildContext& c, const std::string& part, float scale = 1)
      : conv_(CausalConv1d::from_config(
            {.weight = c.weight(part), .name = c.name / part, .act = Activation{}, .state = part}, c.target,
            c.home)),
        scale_(scale) {}
  Tensor forward(const Tensor& x, const Step& step) const {
    return ops::add(x, conv_.forward(x, step), {.activation = {UnaryOp::mul_scalar, scale_}});
  }

 private:
  CausalConv1d conv_;
  float scale_;
};

// x [1, 1, tokens, heads * width] -> [1, heads, tokens, width]
inline Tensor by_head(const Tensor& x, std::int64_t heads) {
  return ops::to_contiguous(x.reshape({1, x.dim(2), heads, x.dim(3) / heads}).swap_axes(1, 2));
}

// 1 + alpha log(position / floor) from `floor` positions on, [1, 1, tokens, 1]: what sharpens attention that
// has no window. floor 0: ones.
inline Tensor temperatures(const Step& step, float alpha, float floor) {
  return step.input({1, 1, step.tokens, 1}, DataType::f32, [=](const Step& s, std::span<float> t) {
    for (std::size_t i = 0; i < t.size(); ++i)
      t[i] = floor > 0 ? 1 + alpha * std::log(std::max(1.0f, static_cast<float>(s.positions[i] + 1) / floor))
                       : 1;
  });
}

inline AttentionSpec layer_attention(const HfConfig& c, int layer) {
  const bool slides = c.layer_type(layer) == "hybrid_sliding";
  const auto value = [&](const char* key) { return c.get<int>((slides ? "swa_" : "") + std::string(key)); };
  AttentionSpec attn{.heads = value("num_attention_heads"),
                     .kv_heads = value("num_key_value_heads"),
                     .head_dim = value("head_dim")};
  if (slides) attn.window = c.get<int>("sliding_window_size");
  return attn;
}

// Weights and states that layers of both have; windowed ones have a profile for each distance in it.
inline CustomSpec layer_block(const HfConfig& c, const AttentionSpec& attn, std::string name,
                              std::int64_t dim) {
  const std::int64_t q = std::int64_t{attn.heads} * attn.head_dim,
                     kv = std::int64_t{attn.kv_heads} * attn.head_dim,
                     kernel = c.get<int>("conv_kernel_size"), relative = c.get<int>("d_rel");
  CustomSpec s{.name = std::move(name), .caches = {kv_cache(attn)}};
  s.weights = {vector_slot("ffn_norm", dim),
               matrix_slot("attn.q", q, dim),
               matrix_slot("attn.k", kv, dim),
               matrix_slot("attn.v", kv, dim),
               matrix_slot("attn.r", attn.heads * relative, dim),
               matrix_slot("attn.o", dim, q),
               table_slot("attn.profiles", relative, attn.window ? *attn.window : c.get<int>("rel_extent"))};
  for (const char* part : {"attn_conv", "ffn_conv"}) {
    s.weights.push_back(table_slot(part, dim, kernel));
    s.state.push_back({part, (kernel - 1) * dim});
  }
  return s;
}

}  // namespace ttt::models
