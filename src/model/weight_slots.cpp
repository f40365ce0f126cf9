#include "model/blocks.h"
#include "model/recurrent.h"
#include "ttt/model/spec.h"

namespace ttt::inline v2 {

namespace {

constexpr int replicated = -1, by_rows = 0, by_cols = 1;

class Slots {
 public:
  explicit Slots(const ModelSpec& spec) : spec_(spec) {}

  template <class Spec>
  std::vector<WeightSlot> part(const std::string& name, const Spec& spec) {
    std::visit([&](const auto& s) { add_module(name, s); }, spec);
    if (name.empty()) {
      for (WeightSlot& slot : slots_) slot.name.erase(0, 1);  // the dot behind the prefix
    }
    return std::move(slots_);
  }

  std::vector<WeightSlot> collect() {
    const std::int64_t dim = spec_.dim, width = spec_.embed_width();
    add("embed", WeightRole::embedding, spec_.vocab, width, by_rows);
    if (width != dim) add("embed_in", WeightRole::linear, dim, width, replicated);
    if (spec_.positions && spec_.positions->kind == PositionKind::learned)
      add("position_embed", WeightRole::embedding, spec_.positions->entries, dim, replicated);
    if (spec_.embed_norm) norm("embed_norm", *spec_.embed_norm, dim);
    for (std::size_t i = 0; i < spec_.layers.size(); ++i)
      layer("layers." + std::to_string(i), spec_.layers[i]);
    if (spec_.final_norm) norm("norm", spec_.norm, dim);
    if (width != dim) add("embed_out", WeightRole::linear, width, dim, replicated);
    if (!spec_.tied_embeddings) add("lm_head", WeightRole::linear, spec_.vocab, width, by_rows);
    if (spec_.lm_head_bias) vector("lm_head.bias", spec_.vocab, by_cols);
    return std::move(slots_);
  }

 private:
  void add(std::string name, WeightRole role, std::int64_t rows, std::int64_t cols, int axis,
           std::int64_t experts = 1) {
    slots_.push_back({.name = std::move(name),
                      .role = role,
                      .rows = rows,
                      .cols = cols,
                      .experts = experts,
                      .shard_axis = axis});
  }
  void vector(std::string name, std::int64_t n, int axis = replicated) {
    add(std::move(name), WeightRole::vector, 1, n, axis);
  }
  void norm(const std::string& name, const NormSpec& spec, std::int64_t n) {
    if (spec.weight) vector(name, n);
    if (spec.bias) vector(name + ".bias", n);
  }

  void layer(const std::string& name, const LayerSpec& layer) {
    if (layer.block) return add_module(name, *layer.block);
    const BlockNorms norms = block_norms(layer);
    if (norms.attn_norm) norm(name + ".attn_norm", spec_.norm, spec_.dim);
    std::visit([&](const auto& mixer) { add_module(name + ".attn", mixer); }, layer.mixer);
    if (norms.attn_post_norm) norm(name + ".attn_post_norm", spec_.norm, spec_.dim);
    if (norms.ffn_norm) norm(name + ".ffn_norm", spec_.norm, spec_.dim);
    std::visit([&](const auto& ffn) { add_module(name + ".ffn", ffn); }, layer.ffn);
    if (norms.ffn_post_norm) norm(name + ".ffn_post_norm", spec_.norm, spec_.dim);
  }

  void add_module(const std::string& name, const AttentionSpec& s) {
    const std::int64_t v_dim = s.v_head_dim > 0 ? s.v_head_dim : s.head_dim, dim = spec_.dim;
    const std::int64_t q = std::int64_t{s.heads} * s.head_dim, k = std::int64_t{s.kv_heads} * s.head_dim;
    const std::int64_t v = s.kv_heads * v_dim, context = s.heads * v_dim;
    const bool own_kv = !s.kv_of_layer;
    for (const auto& [part, rows] : {std::pair{".q", q}, {".k", k}, {".v", v}}) {
      if (part[1] != 'q' && !own_kv) continue;
      add(name + part, WeightRole::linear, rows, dim, by_rows);
      if (s.qkv_bias) vector(name + part + ".bias", rows, by_cols);
    }
    if (s.qk_norm == QkNorm::per_head_weights) {
      add(name + ".q_norm", WeightRole::vector, s.heads, s.head_dim, by_rows);
      if (own_kv) add(name + ".k_norm", WeightRole::vector, s.kv_heads, s.head_dim, by_rows);
    } else if (s.qk_norm != QkNorm::none) {
      const bool full = s.qk_norm == QkNorm::full_width;
      norm(name + ".q_norm", s.qk_norm_spec, full ? q : s.head_dim);
      if (own_kv) norm(name + ".k_norm", s.qk_norm_spec, full ? k : s.head_dim);
    }
    if (s.sinks) vector(name + ".sinks", s.heads, by_cols);
    if (s.gate) gate(name, *s.gate, s.heads, context);
    add(name + ".o", WeightRole::linear, dim, context, by_cols);
    if (s.out_bias) vector(name + ".o.bias", dim);
  }

  void add_module(const std::string& name, const LatentAttentionSpec& s) {
    const std::int64_t heads = s.heads, q_in = s.q_lora_rank > 0 ? s.q_lora_rank : spec_.dim;
    const auto into_latent = [&](const char* part, std::int64_t rows) {
      add(name + part, WeightRole::linear, rows, spec_.dim, replicated);
      if (s.bias) vector(name + part + ".bias", rows);
    };
    if (s.q_lora_rank > 0) {
      into_latent(".q_a", s.q_lora_rank);
      vector(name + ".q_a_norm", s.q_lora_rank);
    }
    add(name + ".q", WeightRole::linear, heads * (s.nope_dim + s.rope_dim), q_in, by_rows);
    into_latent(".kv_a", s.kv_lora_rank + s.rope_dim);
    vector(name + ".kv_a_norm", s.kv_lora_rank);
    add(name + ".k_b", WeightRole::linear, heads * s.nope_dim, s.kv_lora_rank, by_rows);
    add(name + ".v_b", WeightRole::linear, heads * s.v_head_dim, s.kv_lora_rank, by_rows);
    if (s.indexer) {
      add(name + ".indexer.q", WeightRole::linear, std::int64_t{s.indexer->heads} * s.indexer->head_dim, q_in,
          replicated);
      add(name + ".indexer.k", WeightRole::linear, s.indexer->head_dim, spec_.dim, replicated);
      add(name + ".indexer.weights", WeightRole::linear, s.indexer->heads, spec_.dim, replicated);
      vector(name + ".indexer.k_norm", s.indexer->head_dim);
      vector(name + ".indexer.k_norm.bias", s.indexer->head_dim);
    }
    if (s.sinks) vector(name + ".sinks", heads, by_cols);
    if (s.gate) gate(name, *s.gate, heads, heads * s.v_head_dim);
    add(name + ".o", WeightRole::linear, spec_.dim, heads * s.v_head_dim, by_cols);
    if (s.bias) vector(name + ".o.bias", spec_.dim);
  }

  void gate(const std::string& name, const AttentionGateSpec& s, std::int64_t heads, std::int64_t context) {
    const std::int64_t rows = s.per_head ? heads : context;
    add(name + ".gate", WeightRole::linear, rows, spec_.dim, by_rows);
    if (s.bias) vector(name + ".gate.bias", rows, by_cols);
  }

  void add_module(const std::string& name, const MlpSpec& s) {
    for (const char* part : {".gate", ".up"}) {
      if (!s.gated && part[1] == 'g') continue;
      add(name + part, WeightRole::linear, s.hidden, spec_.dim, by_rows);
      if (s.bias) vector(name + part + ".bias", s.hidden, by_cols);
    }
    add(name + ".down", WeightRole::linear, spec_.dim, s.hidden, by_cols);
    if (s.bias) vector(name + ".down.bias", spec_.dim);
  }

  void add_module(const std::string& name, const MoeSpec& s) {
    add(name + ".router", WeightRole::linear, s.experts, spec_.dim, replicated);
    if (s.router.bias) vector(name + ".router.bias", s.experts);
    if (s.router.correction_bias) vector(name + ".router.correction_bias", s.experts);
    const auto experts = [&](const char* part, std::int64_t rows, std::int64_t cols) {
      add(name + ".experts." + part, WeightRole::experts, s.experts * rows, cols, by_rows, s.experts);
      if (s.bias) add(name + ".experts." + part + ".bias", WeightRole::vector, s.experts, rows, by_rows);
    };
    if (s.gated) experts("gate", s.hidden, spec_.dim);
    experts("up", s.hidden, spec_.dim);
    experts("down", spec_.dim, s.hidden);
    if (s.shared) add_module(name + ".shared", *s.shared);
    if (s.shared_gate) add(name + ".shared_gate", WeightRole::linear, 1, spec_.dim, replicated);
  }

  void add_module(const std::string&, const Absent&) {}

  template <RecurrentSpec Spec>
  void add_module(const std::string& name, const Spec& s) {
    for (WeightSlot& slot : recurrent_slots(s, spec_.dim)) {
      slot.name = name + "." + slot.name;
      slots_.push_back(std::move(slot));
    }
  }

  void add_module(const std::string& name, const CustomSpec& s) {
    for (WeightSlot slot : s.weights) {
      slot.name = name + "." + slot.name;
      slots_.push_back(std::move(slot));
    }
  }

  const ModelSpec& spec_;
  std::vector<WeightSlot> slots_;
};

}  // namespace

std::vector<WeightSlot> weight_slots(const ModelSpec& spec) { return Slots(spec).collect(); }

std::vector<WeightSlot> weight_slots(const MixerSpec& spec, int dim, std::string_view prefix) {
  const ModelSpec network{.dim = dim};
  return Slots(network).part(std::string(prefix), spec);
}
std::vector<WeightSlot> weight_slots(const FfnSpec& spec, int dim, std::string_view prefix) {
  const ModelSpec network{.dim = dim};
  return Slots(network).part(std::string(prefix), spec);
}

}  // namespace ttt::inline v2
