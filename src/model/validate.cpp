#include <cmath>

#include "model/recurrent.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2 {

namespace {

void require(bool condition, const std::string& what, const std::string& where,
             const char* fix = "check the config") {
  if (!condition) throw Error(what, where, fix);
}

void positive(std::int64_t value, const char* field, const std::string& where,
              std::int64_t most = std::int64_t{1} << 31) {
  require(value > 0 && value <= most, std::string(field) + " is " + std::to_string(value), where,
          "it must be positive and of a sensible size");
}

void finite(float value, const char* field, const std::string& where) {
  require(std::isfinite(value), std::string(field) + " is not a finite number", where);
}

void check(const NormSpec& s, const std::string& where) {
  require(std::isfinite(s.eps) && s.eps >= 0, "norm eps is negative or not finite", where);
}

void check(const RopeSpec& s, int width, const std::string& where) {
  require(s.theta > 0 && std::isfinite(s.theta), "rope theta is not positive", where);
  require(s.rotary_dim >= 0 && s.rotary_dim <= width && s.rotary_dim % 2 == 0,
          "rotary_dim " + std::to_string(s.rotary_dim) + " of a head of " + std::to_string(width), where,
          "it must be even and at most head_dim");
  require(s.scaling.factor > 0 || (s.scaling.factor < 0 && s.scaling.kind == RopeScalingKind::linear),
          "rope scaling factor " + std::to_string(s.scaling.factor), where);
}

void check(const AttentionSpec& s, const std::string& where) {
  positive(s.heads, "heads", where, 1 << 16);
  positive(s.kv_heads, "kv_heads", where, 1 << 16);
  positive(s.head_dim, "head_dim", where, 1 << 16);
  require(s.heads % s.kv_heads == 0,
          std::to_string(s.heads) + " heads over " + std::to_string(s.kv_heads) + " kv heads", where,
          "heads must be a multiple of kv_heads");
  if (s.window) positive(*s.window, "window", where);
  if (s.chunk) positive(*s.chunk, "chunk", where);
  if (s.scale) finite(*s.scale, "scale", where);
  if (s.softcap) require(*s.softcap > 0, "softcap is not positive", where, "leave it out for no soft cap");
  if (s.clip_qkv) require(*s.clip_qkv > 0, "clip_qkv is not positive", where, "leave it out for no clipping");
  require(s.v_head_dim >= 0, "v_head_dim is negative", where, "leave it out for head_dim");
  if (s.qk_norm != QkNorm::none) check(s.qk_norm_spec, where);
  if (s.v_norm) require(!s.v_norm->weight && !s.v_norm->bias, "v_norm with a weight", where, "it has none");
  if (s.temperature) require(s.temperature->length > 0, "temperature length is not positive", where);
  if (s.rope) check(*s.rope, s.head_dim, where);
  finite(s.alibi, "alibi", where);
  require(!(s.rope && s.alibi != 0), "both rotary embeddings and ALiBi", where, "choose one");
}

void check(const LatentAttentionSpec& s, const std::string& where) {
  positive(s.heads, "heads", where, 1 << 16);
  positive(s.kv_lora_rank, "kv_lora_rank", where, 1 << 16);
  positive(s.nope_dim, "nope_dim", where, 1 << 16);
  positive(s.rope_dim, "rope_dim", where, 1 << 16);
  positive(s.v_head_dim, "v_head_dim", where, 1 << 16);
  require(s.q_lora_rank >= 0 && s.q_lora_rank <= 1 << 16, "q_lora_rank is " + std::to_string(s.q_lora_rank),
          where, "leave it out for queries straight from the input");
  require(std::isfinite(s.norm_eps) && s.norm_eps >= 0, "norm eps is negative or not finite", where);
  if (s.rope) check(*s.rope, s.rope_dim, where);
  if (s.window) positive(*s.window, "window", where);
  if (s.scale) finite(*s.scale, "scale", where);
  require(!s.indexer || !s.selection_of_layer, "both an indexer and the selection of another layer", where,
          "choose one");
  require(!s.window || (!s.indexer && !s.selection_of_layer), "a window beside an indexer", where,
          "choose one");
  if (!s.indexer) return;
  require(s.q_lora_rank > 0, "an indexer without a query latent", where, "set q_lora_rank");
  positive(s.indexer->heads, "indexer heads", where, 1 << 16);
  positive(s.indexer->head_dim, "indexer head_dim", where, 1 << 16);
  positive(s.indexer->top_k, "indexer top_k", where, 1 << 24);
  require(std::isfinite(s.indexer->norm_eps) && s.indexer->norm_eps >= 0,
          "norm eps is negative or not finite", where + ".indexer");
  if (s.indexer->rope) check(*s.indexer->rope, s.indexer->head_dim, where + ".indexer");
}

void check(const MlpSpec& s, const std::string& where) { positive(s.hidden, "hidden", where); }

void check(const MoeSpec& s, const std::string& where) {
  positive(s.experts, "experts", where, 1 << 16);
  positive(s.hidden, "hidden", where);
  require(s.top_k > 0 && s.top_k <= s.experts,
          "top_k " + std::to_string(s.top_k) + " of " + std::to_string(s.experts) + " experts", where);
  const RouterSpec& r = s.router;
  require(r.groups > 0 && s.experts % r.groups == 0,
          std::to_string(r.groups) + " groups of " + std::to_string(s.experts) + " experts", where);
  require(r.top_groups > 0 && r.top_groups <= r.groups, "top_groups " + std::to_string(r.top_groups), where);
  require(r.group_score_top > 0 && (r.groups == 1 || r.group_score_top <= s.experts / r.groups),
          "group_score_top out of range", where);
  require(r.groups == 1 || s.top_k <= s.experts / r.groups * r.top_groups,
          "the chosen groups have fewer than top_k experts", where);
  require(r.order == RouterOrder::score_then_top_k || (!r.correction_bias && r.groups == 1),
          "correction bias or groups with top_k_then_score", where, "use score_then_top_k");
  if (s.shared) check(*s.shared, where + ".shared");
  require(!s.shared_gate || s.shared, "shared_gate without shared experts", where);
}

void check(const CustomSpec& s, const std::string& where) {
  require(!s.name.empty(), "a custom module without a name", where);
  for (const KvCacheSpec& cache : s.caches) {
    positive(cache.kv_heads, "kv_heads of a cache", where, 1 << 16);
    positive(cache.head_dim, "head_dim of a cache", where, 1 << 16);
    require(cache.v_head_dim >= 0 && cache.v_head_dim <= 1 << 16 && cache.indexer_dim >= 0 &&
                cache.indexer_dim <= 1 << 16,
            "v_head_dim or indexer_dim of a cache out of range", where);
  }
  for (const StateSlot& state : s.state) positive(state.elements, "state elements", where + "." + state.name);
}

void check(const Absent&, const std::string&) {}

template <RecurrentSpec Spec>
void check(const Spec& s, const std::string& where) {
  check_recurrent(s, where);
}

}  // namespace

void validate(const ModelSpec& spec) {
  positive(spec.vocab, "vocab", "spec", 1 << 26);
  positive(spec.dim, "dim", "spec", 1 << 24);
  require(spec.embed_dim >= 0 && spec.embed_dim <= 1 << 24, "embed_dim out of range", "spec");
  positive(spec.max_positions, "max_positions", "spec");
  check(spec.norm, "spec.norm");
  if (spec.embed_norm) check(*spec.embed_norm, "spec.embed_norm");
  if (spec.positions) positive(spec.positions->entries, "entries", "spec.positions");
  finite(spec.embed_scale, "embed_scale", "spec");
  finite(spec.logit_scale, "logit_scale", "spec");
  if (spec.logit_softcap)
    require(*spec.logit_softcap > 0, "logit_softcap is not positive", "spec", "leave it out for no soft cap");
  require(!spec.layers.empty() && spec.layers.size() <= 4096, std::to_string(spec.layers.size()) + " layers",
          "spec", "it must have 1 to 4096");
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string where = "layers." + std::to_string(i);
    if (spec.layers[i].block) {
      check(*spec.layers[i].block, where);
      continue;
    }
    const bool no_mixer = std::holds_alternative<Absent>(spec.layers[i].mixer),
               no_ffn = std::holds_alternative<Absent>(spec.layers[i].ffn);
    require(!no_mixer || !no_ffn, "neither mixer nor feed-forward", where);
    require((!no_mixer && !no_ffn) || spec.layers[i].residual == Residual::pre_norm,
            "half a layer with another residual than pre_norm", where, "use pre_norm");
    std::visit([&](const auto& mixer) { check(mixer, where + ".attn"); }, spec.layers[i].mixer);
    std::visit([&](const auto& ffn) { check(ffn, where + ".ffn"); }, spec.layers[i].ffn);
    if (const auto* a = std::get_if<AttentionSpec>(&spec.layers[i].mixer); a != nullptr && a->kv_of_layer) {
      const int of = *a->kv_of_layer;
      const auto* source = of >= 0 && of < static_cast<int>(i)
                               ? std::get_if<AttentionSpec>(&spec.layers[static_cast<std::size_t>(of)].mixer)
                               : nullptr;
      require(source != nullptr && !source->kv_of_layer && source->kv_heads == a->kv_heads &&
                  source->head_dim == a->head_dim,
              "kv_of_layer " + std::to_string(of), where,
              "it must name an earlier attention of the same heads with a cache of its own");
    }
    if (const auto* a = std::get_if<LatentAttentionSpec>(&spec.layers[i].mixer);
        a != nullptr && a->selection_of_layer) {
      const int of = *a->selection_of_layer;
      const auto* source =
          of >= 0 && of < static_cast<int>(i)
              ? std::get_if<LatentAttentionSpec>(&spec.layers[static_cast<std::size_t>(of)].mixer)
              : nullptr;
      require(source != nullptr && source->indexer, "selection_of_layer " + std::to_string(of), where,
              "it must name an earlier latent attention with an indexer");
    }
    finite(spec.layers[i].residual_scale, "residual_scale", where);
  }
}

}  // namespace ttt::inline v2
