// MiniMax M3: some layers attend to whole blocks of keys that an indexer chooses, for every group of heads
// its own; norms multiply by 1 + w, gated units are bounded as in gpt-oss, experts chosen by sigmoid.
#include <limits>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/selection.h"

namespace ttt::models {

struct BlockIndexerSpec {
  int heads = 0, head_dim = 0, block_size = 0, top_blocks = 0, local_blocks = 0;
  explicit BlockIndexerSpec(const HfConfig& c)
      : heads(c.get<int>("index_n_heads")),
        head_dim(c.get<int>("index_head_dim")),
        block_size(c.get<int>("index_block_size")),
        top_blocks(c.get<int>("index_topk_blocks")),
        local_blocks(c.get<int>("index_local_blocks")) {}
  std::string json() const {
    const auto field = [](const char* key, int value) {
      return std::string("\"") + key + "\": " + std::to_string(value);
    };
    return field("index_n_heads", heads) + ", " + field("index_head_dim", head_dim) + ", " +
           field("index_block_size", block_size) + ", " + field("index_topk_blocks", top_blocks) + ", " +
           field("index_local_blocks", local_blocks);
  }
};

// Attention to the keys of the blocks that score best: a block's score is its largest q . k, with queries and
// keys of the indexer's own; a row's own block and those right before it are always in.
class BlockSparseAttention final : public Mixer {
 public:
  BlockSparseAttention(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        spec_(p),
        heads_(std::get<AttentionSpec>(parse_mixer(p.json("attention"))).heads),
        attention_(c.attention(std::get<AttentionSpec>(parse_mixer(p.json("attention"))), "")),
        qk_(Linear::from_config({.weight = LazyWeight::concat({c.weight("indexer.q"), c.weight("indexer.k")}),
                                 .name = name_ / "indexer"},
                                c.target, c.home)),
        q_norm_(c.rms_norm("indexer.q_norm")),
        k_norm_(c.rms_norm("indexer.k_norm")),
        rope_(attention_.plan().rope->spec, spec_.head_dim) {}

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor qk = qk_.forward(x, step.mode);
    const std::int64_t width = std::int64_t{spec_.heads} * spec_.head_dim;
    const auto heads = [&](std::int64_t begin, std::int64_t end, const RmsNorm& norm) {
      const Tensor part = ops::slice(qk, -1, begin, end)
                              .reshape({1, step.tokens, (end - begin) / spec_.head_dim, spec_.head_dim});
      return rope_.forward(norm.forward(ops::to_contiguous(part.swap_axes(1, 2))), step);
    };
    const Tensor q = heads(0, width, q_norm_), k = heads(width, width + spec_.head_dim, k_norm_);
    const Tensor& keys = step.state->cache(name_.layer, step.iteration).indexer;
    fill_cache(keys, k, step);
    return attention_.forward(x, step, [&](const SequenceRows& rows) {
      return mask(q.narrow(2, rows.first, rows.first + rows.count), cached_rows(keys, step, rows), rows);
    });
  }
  void print(PlanRows& rows) const override {
    ttt::print(attention_.plan(), rows), ttt::print(qk_.plan(), rows);
  }

 private:
  // q [1, indexer heads, rows, head_dim], keys [1, 1, n, head_dim] -> [1, heads, rows, n].
  Tensor mask(const Tensor& q, const Tensor& keys, const SequenceRows& rows) const {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::int64_t n = keys.dim(2), size = spec_.block_size, blocks = (n + size - 1) / size;
    Tensor scores = ops::matmul(ops::typecast(q, DataType::f32), ops::typecast(keys, DataType::f32),
                                {.transpose_b = true});
    scores = ops::pad(ops::add(std::move(scores), causal_mask(q.device(), rows)), -1, 0, blocks * size - n,
                      -infinity);
    scores = ops::reduce(scores.reshape({spec_.heads, rows.count, blocks, size}), ReduceOp::max)
                 .reshape({1, spec_.heads, rows.count, blocks});
    std::vector<float> local(static_cast<std::size_t>(rows.count * blocks));
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t own = (rows.context + r) / size;
      for (std::int64_t b = std::max<std::int64_t>(0, own - spec_.local_blocks + 1); b <= own; ++b)
        local[static_cast<std::size_t>(r * blocks + b)] = infinity;
    }
    scores =
        ops::add(std::move(scores), from_host(q.device(), local, {1, 1, rows.count, blocks}, DataType::f32));
    const Tensor each = spread_columns(top_k_mask(scores, spec_.top_blocks), size, n);
    return ops::repeat(each.reshape({spec_.heads, 1, rows.count, n}), 1, heads_ / spec_.heads)
        .reshape({1, heads_, rows.count, n});
  }

  ModuleName name_;
  BlockIndexerSpec spec_;
  std::int64_t heads_;
  Attention attention_;
  Linear qk_;
  RmsNorm q_norm_, k_norm_;
  Rope rope_;
};

static CustomSpec sparse(const HfConfig& c, const AttentionSpec& attn, int dim) {
  const BlockIndexerSpec indexer(c);
  if (indexer.heads <= 0 || attn.heads % indexer.heads != 0)
    throw Error(std::to_string(indexer.heads) + " heads of the indexer for " + std::to_string(attn.heads),
                c.source(), "they must divide the attention's heads");
  KvCacheSpec cache = kv_cache(attn);
  cache.indexer_dim = indexer.head_dim;
  CustomSpec s{.name = "block_sparse_attention",
               .parameters = "{\"attention\": " + to_json(MixerSpec{attn}) + ", " + indexer.json() + "}",
               .weights = weight_slots(MixerSpec{attn}, dim, ""),
               .caches = {cache}};
  s.weights.insert(
      s.weights.end(),
      {matrix_slot("indexer.q", std::int64_t{indexer.heads} * indexer.head_dim, dim),
       matrix_slot("indexer.k", indexer.head_dim, dim), vector_slot("indexer.q_norm", indexer.head_dim),
       vector_slot("indexer.k_norm", indexer.head_dim)});
  return s;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  if (const float alpha = c.get_or("swiglu_alpha", 1.702f); alpha != 1.702f)
    throw Error("swiglu_alpha " + std::to_string(alpha), c.source(), "only 1.702 is known");
  ModelSpec m = decoder(c);
  const auto kinds = c.get<std::vector<std::string>>("mlp_layer_types");
  const GluLimit limit{.limit = c.get<float>("swiglu_limit"), .up_offset = 1};
  const auto units = [&](const char* hidden) {
    return MlpSpec{.hidden = c.get<int>(hidden), .act = {UnaryOp::quick_gelu}, .limit = limit};
  };
  const MoeSpec moe{.experts = c.get<int>("num_local_experts"),
                    .top_k = c.get<int>("num_experts_per_tok"),
                    .hidden = c.get<int>("intermediate_size"),
                    .router = {.score = RouterScore::sigmoid,
                               .renormalize = true,
                               .scale = c.get_or("routed_scaling_factor", 1.0f),
                               .correction_bias = true},
                    .act = {UnaryOp::quick_gelu},  // x sigmoid(1.702 x)
                    .limit = limit,
                    .shared = units("shared_intermediate_size")};
  for (int i = 0; i < c.layers(); ++i) {
    AttentionSpec attn = attention(c, i, QkNorm::per_head);
    LayerSpec layer{.mixer = attn, .ffn = moe};
    if (c.layer_type(i) == "minimax_m3_sparse") layer.mixer = sparse(c, attn, m.dim);
    if (kinds.at(static_cast<std::size_t>(i)) == "dense") layer.ffn = units("dense_intermediate_size");
    m.layers.push_back(layer);
  }
  return m;
}

static WeightMap weights(const ModelSpec&) {
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  map.strip("language_model.")
      .split_gate_up("{layer}.mlp.gate_up_proj")
      .split_gate_up("{layer}.mlp.experts.gate_up_proj", "{layer}.ffn.experts")
      .rename("{layer}.mlp.experts.down_proj", "{layer}.ffn.experts.down")
      .split_gate_up("{layer}.mlp.shared_experts.gate_up_proj", "{layer}.ffn.shared")
      .apply("*_norm", add(1))
      .apply("norm", add(1))
      .ignore("vision_tower.*")
      .ignore("multi_modal_projector.*");
  for (const std::string part : {"q", "k"}) {
    map.rename("{layer}.self_attn.indexer." + part + "_proj", "{layer}.attn.indexer." + part)
        .rename("{layer}.self_attn.indexer." + part + "_norm", "{layer}.attn.indexer." + part + "_norm");
  }
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["block_sparse_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<BlockSparseAttention>(c, HfConfig::parse(p));
  };
}

static const Family minimax_m3{
    "minimax_m3_vl_text",
    {.architectures = {"MiniMaxM3VLForCausalLM", "MiniMaxM3SparseForConditionalGeneration"},
     .describe = describe,
     .weights = weights,
     .ignore = {"rotary_dim", "hidden_act", "dense_intermediate_size", "index_*"},
     .modules = modules}};

}  // namespace ttt::models
