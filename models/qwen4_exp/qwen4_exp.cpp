// Qwen 4 (experimental): residual streams with gates of low rank; gated delta nets, and attention to blocks
// of keys that an indexer chooses; some layers add what a table has for the last n tokens.
#include <algorithm>
#include <limits>

#include "streams.h"
#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/selection.h"

namespace ttt::models {

// Attention to the keys of the best blocks and to those since the last whole one. A block's score is the sum
// over heads of relu(q . k), its key the norm of the mean of its tokens' keys, at the position of the first.
class IndexedAttention final : public Mixer {
 public:
  IndexedAttention(const BuildContext& c, const HfConfig& p)
      : name_(c.name),
        heads_(p.get<int>("indexer_n_heads")),
        dim_(p.get<int>("indexer_head_dim")),
        ratio_(p.get<int>("indexer_compress_ratio")),
        top_blocks_(p.get<int>("indexer_budget") / p.get<int>("indexer_compress_ratio")),
        attention_(c.attention(std::get<AttentionSpec>(parse_mixer(p.json("attention"))), "")),
        qk_(c.linear("indexer.qk")),
        q_norm_(c.rms_norm("indexer.q_norm")),
        k_norm_(c.rms_norm("indexer.k_norm")),
        rope_(attention_.plan().rope->spec, static_cast<int>(dim_)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor qk = qk_.forward(x, step.mode);
    const std::int64_t width = heads_ * dim_;
    const Tensor q = rope_.forward(
        q_norm_.forward(ops::nlp_create_qkv_heads(ops::slice(qk, -1, 0, width), heads_, 0, dim_).q), step);
    const Tensor& keys = step.state->cache(name_.layer, step.iteration).indexer;
    fill_cache(keys, ops::slice(qk, -1, width, width + dim_), step);
    return attention_.forward(x, step, [&](const SequenceRows& rows) {
      return mask(q.narrow(2, rows.first, rows.first + rows.count), cached_rows(keys, step, rows), rows);
    });
  }
  void print(PlanRows& rows) const override {
    ttt::print(attention_.plan(), rows), ttt::print(qk_.plan(), rows);
  }

 private:
  Tensor mask(const Tensor& q, const Tensor& keys, const SequenceRows& rows) const {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::int64_t n = keys.dim(2), blocks = n / ratio_;
    std::vector<float> tail(static_cast<std::size_t>(rows.count * n), -infinity);
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t position = rows.context + r;
      for (std::int64_t j = (position + 1) / ratio_ * ratio_; j <= position; ++j)
        tail[static_cast<std::size_t>(r * n + j)] = 0;
    }
    const Tensor open = from_host(q.device(), tail, {1, 1, rows.count, n}, DataType::f32);
    if (blocks == 0) return open;
    Step starts;  // where the blocks stand
    starts.tokens = blocks, starts.device = static_cast<Backend*>(&q.device());
    starts.sequences = {{.count = blocks}};
    for (std::int64_t b = 0; b < blocks; ++b)
      starts.positions.push_back(static_cast<std::int32_t>(b * ratio_));
    const Tensor each = ops::slice(keys, 2, 0, blocks * ratio_).reshape({1, blocks, ratio_, dim_});
    const Tensor mean = ops::typecast(ops::mean(ops::typecast(each, DataType::f32), 2), q.dtype())
                            .reshape({1, 1, blocks, dim_});
    const Tensor k = rope_.forward(k_norm_.forward(mean), starts);
    const Tensor products =
        ops::matmul(ops::typecast(q, DataType::f32), ops::typecast(k, DataType::f32), {.transpose_b = true});
    const Tensor scores = ops::sum(ops::unary(products, {UnaryOp::relu}), 1);
    const Tensor chosen = spread_columns(from_host(q.device(), best_blocks(to_host(scores), rows, blocks),
                                                   {1, 1, rows.count, blocks}, DataType::f32),
                                         ratio_, blocks * ratio_);
    return ops::maximum(ops::pad(chosen, -1, 0, n - blocks * ratio_, -infinity), open);
  }

  // 0 at the best blocks of each row, -infinity elsewhere. Many scores are zero, and of equal ones those
  // count that the reference's selection leaves in front, whose order is that of std::nth_element.
  std::vector<float> best_blocks(const std::vector<float>& scores, const SequenceRows& rows,
                                 std::int64_t blocks) const {
    std::vector<float> mask(scores.size(), -std::numeric_limits<float>::infinity());
    std::vector<std::pair<float, std::int64_t>> order;
    for (std::int64_t r = 0; r < rows.count; ++r) {
      order.clear();
      const std::int64_t whole = (rows.context + r + 1) / ratio_, k = std::min(top_blocks_, whole);
      for (std::int64_t b = 0; b < whole; ++b)
        order.emplace_back(scores[static_cast<std::size_t>(r * blocks + b)], b);
      const auto larger = [](const auto& a, const auto& b) { return a.first > b.first; };
      if (k > 0 && k * 64 <= whole) std::partial_sort(order.begin(), order.begin() + k, order.end(), larger);
      if (k > 0 && k * 64 > whole)
        std::nth_element(order.begin(), order.begin() + k - 1, order.end(), larger);
      for (std::int64_t i = 0; i < k; ++i)
        mask[static_cast<std::size_t>(r * blocks + order[static_cast<std::size_t>(i)].second)] = 0;
    }
    return mask;
  }

  ModuleName name_;
  std::int64_t heads_, dim_, ratio_, top_blocks_;
  Attention attention_;
  Linear qk_;
  RmsNorm q_norm_, k_norm_;
  Rope rope_;
};

class StreamBlock final : public Block {
 public:
  StreamBlock(const BuildContext& c, const HfConfig& p)
      : streams_(p.get<int>("hc_count")),
        first_(c.name.layer == 0),
        attn_streams_(c, "attn_streams", streams_),
        ffn_streams_(c, "ffn_streams", streams_),
        mixer_(c.mixer(parse_mixer(p.json("mixer")), "attn")),
        ffn_(c.ffn(parse_ffn(p.json("ffn")), "ffn")) {
    if (c.weight("ple.table")) ngrams_.emplace(c, p, streams_);
    if (c.weight("head.norm")) head_.emplace(c, "head", streams_);
  }
  Tensor forward(const Tensor& x, const Step& step) const override {
    Tensor s = first_ ? ops::repeat(x, 3, streams_) : x;
    if (ngrams_) s = ops::add(s, ngrams_->forward(s, step));
    const GatedStreams::Read a = attn_streams_.read(s, step.mode);
    s = attn_streams_.write(mixer_->forward(a.x, step), a, s);
    const GatedStreams::Read f = ffn_streams_.read(s, step.mode);
    s = ffn_streams_.write(ffn_->forward(f.x, step), f, s);
    return head_ ? head_->read(s, step.mode).x : s;
  }
  void print(PlanRows& rows) const override { mixer_->print(rows), ffn_->print(rows); }

 private:
  int streams_;
  bool first_;
  GatedStreams attn_streams_, ffn_streams_;
  std::unique_ptr<Mixer> mixer_;
  std::unique_ptr<FeedForward> ffn_;
  std::optional<NgramFeatures> ngrams_;
  std::optional<GatedStreams> head_;
};

static std::string picked(const HfConfig& c, std::initializer_list<const char*> keys) {
  std::string json;
  for (const char* key : keys) json += ", \"" + std::string(key) + "\": " + c.json(key);
  return json;
}

static MixerSpec indexed_attention(const HfConfig& c, int layer, int dim) {
  AttentionSpec attn = attention(c, layer, QkNorm::per_head);
  attn.gate = AttentionGateSpec{};
  c.require("indexer_kv_heads", 1);
  const int width = c.get<int>("indexer_head_dim");
  KvCacheSpec cache = kv_cache(attn);
  cache.indexer_dim = width;
  CustomSpec s{.name = "indexed_attention",
               .parameters = "{\"attention\": " + to_json(MixerSpec{attn}) +
                             picked(c, {"indexer_n_heads", "indexer_head_dim", "indexer_compress_ratio",
                                        "indexer_budget"}) +
                             "}",
               .weights = weight_slots(MixerSpec{attn}, dim, ""),
               .caches = {cache}};
  s.weights.insert(s.weights.end(),
                   {matrix_slot("indexer.qk", std::int64_t{c.get<int>("indexer_n_heads") + 1} * width, dim),
                    vector_slot("indexer.q_norm", width), vector_slot("indexer.k_norm", width)});
  return s;
}

static CustomSpec block(const HfConfig& c, int layer, int dim) {
  GatedDeltaNetSpec delta = gated_delta_net(c);
  delta.gate_act =
      HfConfig::act(c.get_or<std::string>("output_gate_type", c.get<std::string>("hidden_act"))).op;
  MixerSpec mixer = delta;
  if (c.layer_type(layer) != "linear_attention") mixer = indexed_attention(c, layer, dim);
  MoeSpec moe = softmax_moe(c, true);
  moe.shared_gate = true;
  const FfnSpec ffn = moe;
  const auto ple_layers = c.get_or("ple_layer_ids", std::vector<int>{});  // counted from one
  const auto found = std::ranges::find(ple_layers, layer + 1);
  const bool ple = found != ple_layers.end();
  const std::int64_t count = c.get<int>("hc_count"), rank = c.get<int>("hc_lowrank"), width = count * dim;
  CustomSpec s{
      .name = "stream_block",
      .parameters = "{\"mixer\": " + to_json(mixer) + ", \"ffn\": " + to_json(ffn) + picked(c, {"hc_count"}),
      .state = state_slots(mixer, dim)};
  if (const auto* attention = std::get_if<CustomSpec>(&mixer)) s.caches = attention->caches;
  for (const std::string part : {"attn_streams", "ffn_streams", "head"}) {
    if (part == "head" && layer + 1 != c.layers()) continue;
    s.weights.insert(s.weights.end(),
                     {vector_slot(part + ".norm", width), matrix_slot(part + ".down", rank, width),
                      matrix_slot(part + ".up", width, rank)});
    if (part != "head") s.weights.push_back(matrix_slot(part + ".inject", count, width));
  }
  for (WeightSlot& slot : weight_slots(mixer, dim, "attn")) s.weights.push_back(slot);
  for (WeightSlot& slot : weight_slots(ffn, dim, "ffn")) s.weights.push_back(slot);
  if (ple) {
    const int index = static_cast<int>(found - ple_layers.begin()), n = c.get<int>("ngram_size"),
              divisor = c.get<int>("make_ngram_vocab_size_divisible_by");
    const std::int64_t embed = c.get<int>("ple_embed_dim"), kernel = c.get<int>("ple_conv_kernel_size");
    s.parameters += picked(c, {"ngram_size", "heads_per_ngram", "ngram_vocab_size_base", "vocab_size", "seed",
                               "eos_token_id", "split_ngram_parts"}) +
                    ", \"ple\": " + std::to_string(index);
    const std::int64_t entries = (ngram_hash(c, index).entries() + divisor - 1) / divisor * divisor;
    s.weights.push_back({.name = "ple.table",
                         .role = WeightRole::embedding,
                         .rows = entries,
                         .cols = embed / ((n - 1) * c.get<int>("heads_per_ngram"))});
    s.weights.insert(s.weights.end(),
                     {vector_slot("ple.norm_key", width), vector_slot("ple.norm_query", width),
                      vector_slot("ple.norm_conv", width), matrix_slot("ple.key", width, embed),
                      matrix_slot("ple.value", dim, embed), table_slot("ple.conv", width, kernel)});
    s.state.push_back({"ple.conv", (kernel - 1) * n * width});
    for (int i = 1; i < n; ++i) s.state.push_back({"ple.token." + std::to_string(i), 1});
  }
  s.parameters += "}";
  return s;
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  m.final_norm = false;
  for (int i = 0; i < c.layers(); ++i) m.layers.push_back({.block = block(c, i, m.dim)});
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  int heads = 1;
  for (const LayerSpec& layer : m.layers)
    if (const HfConfig mixer = HfConfig::parse(layer.block->parameters).child("mixer"); mixer.has("custom"))
      heads =
          HfConfig::parse(mixer.get<std::string>("custom.parameters")).get<int>("attention.attention.heads");
  WeightMap map = hf_decoder_names().append(hf_moe_names());
  const std::string attn = "{layer}.attn.", ple = "{layer}.ple.",
                    last = "layers." + std::to_string(m.layers.size() - 1) + ".head";
  map.strip("language_model.")
      .split("{layer}.self_attn.q_proj", {attn + "q", attn + "gate"}, {.groups = heads})
      .append(hf_fused_delta_net_names())
      .rename(ple + "ple_embedding.ngram_embedding", ple + "table")
      .ignore("*.ple_embedding.layer_multipliers")  // they follow from the config
      .ignore("*.ple_embedding.ngram_heads_*")
      .ignore("mtp.*")
      .ignore("visual.*");
  for (std::size_t i = 0; i < m.layers.size(); ++i) {
    const HfConfig p = HfConfig::parse(m.layers[i].block->parameters);
    const std::string layer = "layers." + std::to_string(i) + ".ple.";
    std::vector<std::string> shards;
    for (int part = 0; part < p.get_or("split_ngram_parts", 0); ++part)
      shards.push_back(layer + "ple_embedding.ngram_embedding.shard_" + std::to_string(part));
    if (!shards.empty()) map.concat(shards, layer + "table");
  }
  map.rename(ple, ple,
             {{"key_proj", "key"},
              {"value_proj", "value"},
              {"conv1d", "conv"},
              {"norm_key", "norm_key"},
              {"norm_query", "norm_query"},
              {"norm_conv", "norm_conv"}})
      .rename("{layer}.self_attn.indexer.", attn + "indexer.",
              {{"index_qk_proj", "qk"}, {"q_layernorm", "q_norm"}, {"k_layernorm", "k_norm"}});
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"{layer}.attn_hyper_connection", "{layer}.attn_streams"},
        {"{layer}.mlp_hyper_connection", "{layer}.ffn_streams"},
        {"hyper_connection_mixer", last}})
    map.rename(from + ".", to + ".",
               {{"hc_norm", "norm"},
                {"input_mix_weight_down", "down"},
                {"input_mix_weight_up", "up"},
                {"block_inject_weight", "inject"}});
  for (const char* norm :
       {"*.q_norm", "*.k_norm", "*_streams.norm", "*.head.norm", "*.norm_key", "*.norm_query", "*.norm_conv"})
    map.apply(norm, add(1));
  return map;
}

static void modules(CustomModules& m) {
  m.mixers["indexed_attention"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<IndexedAttention>(c, HfConfig::parse(p));
  };
  m.blocks["stream_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<StreamBlock>(c, HfConfig::parse(p));
  };
}

static const Family qwen4_exp{"qwen4_exp_text",
                              {.architectures = {"Qwen4ExpForCausalLM", "Qwen4ExpForConditionalGeneration"},
                               .describe = describe,
                               .weights = weights,
                               .ignore = {"number_of_conv_states", "ple_*", "*ngram*", "seed"},
                               .modules = modules}};

}  // namespace ttt::models
