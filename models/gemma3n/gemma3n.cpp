// Gemma 3n: several streams beside each other, of which a layer computes one and predicts and corrects the
// others (AltUp); a low-rank path beside attention (Laurel); an embedding of its own per layer; late layers
// attend to the keys and values of earlier ones; early MLPs keep only their largest gates.
#include <cmath>

#include "ttt/convert/decoder_spec.h"
#include "ttt/convert/model_entry.h"
#include "ttt/model/build.h"
#include "ttt/modules/embedding.h"
#include "ttt/modules/linear.h"
#include "ttt/modules/mlp.h"
#include "ttt/modules/norm.h"

namespace ttt::models {

// Where the standard normal distribution has the share p below it.
static float normal_quantile(double p) {
  double low = -10, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double z = (low + high) / 2;
    (std::erfc(-z / std::sqrt(2.0)) / 2 < p ? low : high) = z;
  }
  return static_cast<float>(low);
}

static Tensor mean_square(const Tensor& x) {
  return ops::mean(ops::unary(x, {UnaryOp::square}, DataType::f32));
}
// y, as large as x: y |x| / |y| with root mean squares.
static Tensor as_large(const Tensor& x, const Tensor& y) {
  const Tensor ratio = ops::div(mean_square(x), ops::clamp(mean_square(y), 1e-5f, HUGE_VALF));
  return ops::mul(y, ops::unary(ratio, {UnaryOp::sqrt}), {.dtype = y.dtype()});
}

// A gated MLP whose gates are first cut at mean + deviation * cut.
class SparseMlp final : public FeedForward {
 public:
  SparseMlp(const BuildContext& c, const HfConfig& p)
      : gate_(c.linear("gate")),
        up_(c.linear("up")),
        down_(c.linear("down")),
        act_(HfConfig::act(p.get<std::string>("act"))),
        cut_(p.get<float>("cut")) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor gate = gate_.forward(x, step.mode);
    const Tensor centred = ops::subtract(gate, ops::mean(gate), {.dtype = DataType::f32});
    const Tensor deviation = ops::unary(ops::mean(ops::unary(centred, {UnaryOp::square})), {UnaryOp::sqrt});
    const Tensor largest = ops::subtract(centred, ops::mul(deviation, cut_),
                                         {.activation = {UnaryOp::relu}, .dtype = gate.dtype()});
    return down_.forward(gated_product(largest, up_.forward(x, step.mode), act_, {}), step.mode);
  }
  void print(PlanRows& rows) const override {
    for (const Linear* part : {&gate_, &up_, &down_}) ttt::print(part->plan(), rows);
  }

 private:
  Linear gate_, up_, down_;
  Activation act_;
  float cut_;
};

// Streams are [1, tokens, streams, dim] between the blocks; the first makes them of the embedding, the last
// makes one of them.
class AltUpBlock final : public Block {
 public:
  AltUpBlock(const BuildContext& c, const HfConfig& p)
      : streams_(p.get<int>("streams")),
        active_(p.get<int>("active")),
        layer_(c.name.layer),
        layers_(static_cast<std::int64_t>(c.spec.layers.size())),
        first_(layer_ == 0),
        last_(layer_ == layers_ - 1),
        router_norm_(c.rms_norm("altup.router_norm")),
        attn_norm_(c.rms_norm("input_layernorm")),
        attn_post_norm_(c.rms_norm("post_attention_layernorm")),
        ffn_norm_(c.rms_norm("pre_feedforward_layernorm")),
        ffn_post_norm_(c.rms_norm("post_feedforward_layernorm")),
        laurel_norm_(c.rms_norm("laurel.post_laurel_norm")),
        input_norm_(c.rms_norm("post_per_layer_input_norm")),
        router_(c.linear("altup.modality_router", {UnaryOp::tanh})),
        predict_(c.linear("altup.prediction_coefs")),
        correct_(c.linear("altup.correction_coefs")),
        left_(c.linear("laurel.linear_left")),
        right_(c.linear("laurel.linear_right")),
        input_gate_(c.linear("per_layer_input_gate", HfConfig::act(p.get<std::string>("act")))),
        input_o_(c.linear("per_layer_projection")),
        output_scale_(c.vector("altup.correct_output_scale")),
        attention_(c.mixer(parse_mixer(p.json("attention")), "attn")),
        mlp_(c.ffn(parse_ffn(p.json("ffn")), "ffn")) {
    for (int i = 1; i < streams_; ++i) {
      if (first_) enter_.push_back(c.linear("altup_projections." + std::to_string(i - 1)));
      if (last_) leave_.push_back(c.linear("altup_unembed_projections." + std::to_string(i - 1)));
    }
    if (!first_) return;
    inputs_.emplace(Embedding::from_config({.weight = c.weight("embed_tokens_per_layer"),
                                            .name = c.name / "embed_tokens_per_layer",
                                            .scale = std::sqrt(p.get<float>("width"))},
                                           c.target, c.home));
    inputs_projection_.emplace(c.linear("per_layer_model_projection"));
    inputs_norm_.emplace(c.rms_norm("per_layer_projection_norm"));
  }

  Tensor forward(const Tensor& x, const Step& step) const override {
    const Tensor streams = first_ ? enter(x, step) : x;
    const std::int64_t tokens = step.tokens, n = streams_, dim = streams.dim(3);
    const auto column = [&](const Tensor& t) { return t.reshape({1, tokens, 1, dim}); };

    const Tensor mixing = predict_.forward(modalities(stream(streams, active_), step), step.mode);
    const Tensor predicted = ops::add(streams, ops::matmul(mixing.reshape({1, tokens, n, n}), streams));

    const Tensor active = stream(predicted, active_), normed = attn_norm_.forward(active);
    const Tensor low_rank = right_.forward(left_.forward(normed, step.mode), step.mode);
    const Tensor laurel = ops::add(normed, laurel_norm_.forward(low_rank));
    const Tensor attended = ops::add(active, attn_post_norm_.forward(attention_->forward(normed, step)));
    const Tensor h = ops::mul(ops::add(attended, laurel), std::sqrt(0.5f));
    const Tensor activated = ops::add(h, ffn_post_norm_.forward(mlp_->forward(ffn_norm_.forward(h), step)));

    const Tensor factors =
        ops::add(correct_.forward(modalities(activated, step), step.mode).reshape({1, tokens, n, 1}), 1.0f);
    const Tensor corrected = ops::add(predicted, ops::mul(column(ops::subtract(activated, active)), factors));

    const Tensor scaled =
        ops::mul(stream(corrected, active_), output_scale_.get(), {.dtype = corrected.dtype()});
    const Tensor& inputs = step.slots.at("inputs");
    const std::int64_t width = inputs.dim(3) / layers_;
    const Tensor input = ops::slice(inputs, 3, layer_ * width, (layer_ + 1) * width);
    const Tensor added = input_norm_.forward(
        input_o_.forward(ops::mul(input_gate_.forward(scaled, step.mode), input), step.mode));
    const Tensor parts[] = {ops::slice(corrected, 2, 0, 1),
                            ops::add(ops::slice(corrected, 2, 1, n), column(added))};
    const Tensor y = ops::concat(parts, 2);
    return last_ ? leave(y, step) : y;
  }
  void print(PlanRows& rows) const override { attention_->print(rows), mlp_->print(rows); }

 private:
  // Stream i as [1, 1, tokens, dim].
  Tensor stream(const Tensor& streams, std::int64_t i) const {
    return ops::slice(streams, 2, i, i + 1).reshape({1, 1, streams.dim(1), streams.dim(3)});
  }
  Tensor modalities(const Tensor& x, const Step& step) const {
    return router_.forward(router_norm_.forward(x), step.mode);
  }
  Tensor enter(const Tensor& x, const Step& step) const {
    std::vector<Tensor> parts{x};
    for (const Linear& projection : enter_) parts.push_back(as_large(x, projection.forward(x, step.mode)));
    for (Tensor& part : parts) part = part.reshape({1, step.tokens, 1, x.dim(3)});
    const Tensor projected = inputs_projection_->forward(x, step.mode);
    const Shape flat = projected.shape(), by_layer{1, step.tokens, layers_, projected.dim(3) / layers_};
    const Tensor normed = inputs_norm_->forward(projected.reshape(by_layer)).reshape(flat);
    step.slots["inputs"] = ops::mul(ops::add(normed, (*inputs_)(step.ids)), std::sqrt(0.5f));
    return ops::concat(parts, 2);
  }
  Tensor leave(const Tensor& streams, const Step& step) const {
    const Tensor first = stream(streams, 0);
    Tensor sum = first;
    for (std::size_t i = 0; i < leave_.size(); ++i) {
      const Tensor own = stream(streams, static_cast<std::int64_t>(i) + 1);
      sum = ops::add(sum, as_large(first, leave_[i].forward(own, step.mode)));
    }
    return ops::mul(sum, 1 / static_cast<float>(streams_));
  }

  std::int64_t streams_, active_, layer_, layers_;
  bool first_, last_;
  RmsNorm router_norm_, attn_norm_, attn_post_norm_, ffn_norm_, ffn_post_norm_, laurel_norm_, input_norm_;
  Linear router_, predict_, correct_, left_, right_, input_gate_, input_o_;
  LazyWeight output_scale_;
  std::unique_ptr<Mixer> attention_;
  std::unique_ptr<FeedForward> mlp_;
  std::vector<Linear> enter_, leave_;
  std::optional<Embedding> inputs_;
  std::optional<Linear> inputs_projection_;
  std::optional<RmsNorm> inputs_norm_;
};

// The layer whose keys and values a layer attends to, where it has none of its own: the last one of the same
// kind before the sharing begins.
static std::optional<int> shared_from(const HfConfig& c, int layer) {
  const int first_shared = c.layers() - c.get_or("num_kv_shared_layers", 0);
  if (layer < first_shared) return std::nullopt;
  for (int i = first_shared - 1; i >= 0; --i) {
    if (c.slides(i, 5) == c.slides(layer, 5)) return i;
  }
  throw Error("layer " + std::to_string(layer) + " has no earlier layer of its kind to share with",
              "num_kv_shared_layers of " + c.source());
}

static FfnSpec feed_forward(const HfConfig& c, int layer, int dim) {
  const auto at = static_cast<std::size_t>(layer);
  const MlpSpec mlp{.hidden = c.get<std::vector<int>>("intermediate_size").at(at), .act = c.act()};
  const auto shares = c.find<std::vector<float>>("activation_sparsity_pattern");
  const float share = shares ? shares->at(at) : (c.layers() > 10 && layer < 10 ? 0.95f : 0.0f);
  if (share <= 0) return mlp;
  return CustomSpec{.name = "sparse_mlp",
                    .parameters = "{\"act\": \"" + c.get<std::string>("hidden_activation") +
                                  "\", \"cut\": " + std::to_string(normal_quantile(share)) + "}",
                    .weights = weight_slots(mlp, dim, "")};
}

static ModelSpec describe(const HfConfig& root) {
  const HfConfig c = root.text();
  ModelSpec m = decoder(c);
  m.norm.eps = c.norm_eps(1e-6f);
  m.tied_embeddings = c.get_or("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(static_cast<float>(m.dim));
  m.logit_softcap = c.find<float>("final_logit_softcapping");
  const int n = c.get<int>("altup_num_inputs"), width = c.get<int>("hidden_size_per_layer_input"),
            rank = c.get<int>("laurel_rank"), layers = c.layers();
  c.require("altup_correct_scale", true);
  for (int i = 0; i < layers; ++i) {
    AttentionSpec attn = attention(c, i);
    attn.window = c.window(i, 5);
    attn.scale = 1;
    attn.qk_norm = QkNorm::per_head;
    attn.qk_norm_spec.eps = m.norm.eps;
    attn.v_norm = NormSpec{.eps = m.norm.eps, .weight = false};
    attn.kv_of_layer = shared_from(c, i);
    const FfnSpec ffn = feed_forward(c, i, m.dim);
    CustomSpec block{.name = "altup_block",
                     .parameters = "{\"streams\": " + std::to_string(n) +
                                   ", \"active\": " + std::to_string(c.get_or("altup_active_idx", 0)) +
                                   ", \"width\": " + std::to_string(width) + ", \"act\": \"" +
                                   c.get<std::string>("hidden_activation") + "\", \"attention\": " +
                                   to_json(MixerSpec{attn}) + ", \"ffn\": " + to_json(ffn) + "}"};
    if (!attn.kv_of_layer) block.caches = {kv_cache(attn)};
    const auto slot = [&](const std::string& name, std::int64_t rows, std::int64_t cols,
                          WeightRole role = WeightRole::linear) {
      block.weights.push_back({.name = name, .role = role, .rows = rows, .cols = cols});
    };
    for (const char* name :
         {"altup.router_norm", "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
          "post_feedforward_layernorm", "laurel.post_laurel_norm", "post_per_layer_input_norm",
          "altup.correct_output_scale"})
      slot(name, 1, m.dim, WeightRole::vector);
    slot("altup.modality_router", n, m.dim);
    slot("altup.prediction_coefs", n * n, n), slot("altup.correction_coefs", n, n);
    slot("laurel.linear_left", rank, m.dim), slot("laurel.linear_right", m.dim, rank);
    slot("per_layer_input_gate", width, m.dim), slot("per_layer_projection", m.dim, width);
    for (int k = 0; k < n - 1; ++k) {
      if (i == 0) slot("altup_projections." + std::to_string(k), m.dim, m.dim);
      if (i == layers - 1) slot("altup_unembed_projections." + std::to_string(k), m.dim, m.dim);
    }
    if (i == 0) {
      slot("embed_tokens_per_layer", c.get<int>("vocab_size_per_layer_input"), layers * width,
           WeightRole::embedding);
      slot("per_layer_model_projection", layers * width, m.dim);
      slot("per_layer_projection_norm", 1, width, WeightRole::vector);
    }
    for (WeightSlot& part : weight_slots(attn, m.dim, "attn")) block.weights.push_back(part);
    for (WeightSlot& part : weight_slots(ffn, m.dim, "ffn")) block.weights.push_back(part);
    m.layers.push_back({.block = block});
  }
  return m;
}

static WeightMap weights(const ModelSpec& m) {
  const float dim = static_cast<float>(m.dim);
  const std::string last = "layers." + std::to_string(m.layers.size() - 1);
  WeightMap map = hf_decoder_names().strip("language_model.");
  for (const WeightSlot& slot : m.layers.front().block->weights)  // named as in the checkpoint
    map.rename("{layer}." + slot.name, "{layer}." + slot.name);
  for (const std::string name : {"embed_tokens_per_layer", "per_layer_model_projection",
                                 "per_layer_projection_norm", "altup_projections.{k}"})
    map.rename(name, "layers.0." + name);
  map.rename("altup_unembed_projections.{k}", last + ".altup_unembed_projections.{k}")
      .apply("{layer}.altup.modality_router", multiply(1 / dim))
      .apply("layers.0.per_layer_model_projection", multiply(1 / std::sqrt(dim)));
  for (const char* part : {"k", "v", "k_norm"})  // checkpoints may keep those of layers that share
    map.surplus(std::string("{layer}.attn.") + part);
  for (const char* tower : {"vision_tower.*", "audio_tower.*", "embed_vision.*", "embed_audio.*"})
    map.ignore(tower);
  return map;
}

static void modules(CustomModules& m) {
  m.feed_forwards["sparse_mlp"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<SparseMlp>(c, HfConfig::parse(p));
  };
  m.blocks["altup_block"] = [](const BuildContext& c, std::string_view p) {
    return std::make_unique<AltUpBlock>(c, HfConfig::parse(p));
  };
}

static const Family gemma3n{"gemma3n",
                            {.architectures = {"Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"},
                             .describe = describe,
                             .weights = weights,
                             .ignore = {"altup_coef_clip", "altup_lr_multiplier"},
                             .modules = modules}};

}  // namespace ttt::models
