// build(): a ModelSpec becomes embedding, blocks, norm and head; DecoderLM runs them.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>

#include "model/blocks.h"
#include "model/recurrent.h"
#include "model/step_builder.h"
#include "model/step_traces.h"
#include "ops/composed.h"
#include "ttt/debug/check.h"
#include "ttt/model/bound_weights.h"
#include "ttt/modules/attention.h"
#include "ttt/modules/embedding.h"
#include "ttt/modules/latent_attention.h"
#include "ttt/modules/lm_head.h"
#include "ttt/modules/mlp.h"
#include "ttt/modules/moe.h"
#include "ttt/modules/shown.h"
#include "ttt/ops/trace.h"
#include "ttt/perf/zone.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2 {

CausalLM::CausalLM() = default;
CausalLM::~CausalLM() = default;
BoundWeights::~BoundWeights() = default;

std::span<const LazyWeight> bound_weights(const CausalLM& model) {
  const auto* bound = dynamic_cast<const BoundWeights*>(&model);
  return bound == nullptr ? std::span<const LazyWeight>() : bound->weights();
}

std::size_t KvLayerSpec::bytes_per_position() const {
  const auto elements = static_cast<std::size_t>(kv_heads * (head_dim + v_head_dim) + indexer_dim);
  if (dtype == DataType::bfp8_b) return elements + elements / face_size;
  return elements * element_size(dtype);
}

namespace {

template <class Module>
class AttentionMixer final : public Mixer {
 public:
  explicit AttentionMixer(Module module) : module_(std::move(module)) {}
  Tensor forward(const Tensor& x, const Step& s) const override { return module_.forward(x, s); }
  void print(PlanRows& rows) const override { ttt::print(module_.plan(), rows); }

 private:
  Module module_;
};

template <class Module>
class TokenWise final : public FeedForward {
 public:
  explicit TokenWise(Module module) : module_(std::move(module)) {}
  Tensor forward(const Tensor& x, const Step& s) const override { return module_.forward(x, s.mode); }
  void print(PlanRows& rows) const override { ttt::print(module_.plan(), rows); }

 private:
  Module module_;
};

// A part under its name: to whoever measures time, hunts NaNs or listens to taps. So every mixer and every
// feed-forward is seen alike, those of a model's own too.
template <class Part>
class Named final : public Part {
 public:
  Named(std::unique_ptr<Part> part, ModuleName name) : part_(std::move(part)), name_(std::move(name)) {}
  Tensor forward(const Tensor& x, const Step& s) const override {
    const ModuleScope scope(name_);
    if (!debug::tapping()) [[likely]]
      return part_->forward(x, s);
    return shown(x, name_, [&](const Tensor& in) { return part_->forward(in, s); });
  }
  void print(PlanRows& rows) const override { part_->print(rows); }

 private:
  std::unique_ptr<Part> part_;
  ModuleName name_;
};
template <class Part>
std::unique_ptr<Part> named(std::unique_ptr<Part> part, const ModuleName& name) {
  if (!part) return nullptr;
  return std::make_unique<Named<Part>>(std::move(part), name);
}

// A part that does not divide on the mesh: every device runs all of it, on all of the stream.
template <class Part>
class Whole final : public Part {
 public:
  explicit Whole(std::unique_ptr<Part> part) : part_(std::move(part)) {}
  Tensor forward(const Tensor& x, const Step& s) const override {
    return ops::mesh_partition(part_->forward(ops::all_gather(x, -1, stream_axis), s), -1, stream_axis);
  }
  void print(PlanRows& rows) const override { part_->print(rows); }

 private:
  std::unique_ptr<Part> part_;
};

// Whether a module of the core divides its work among the columns of a mesh.
bool divides(const MixerSpec& spec, const Mesh& mesh) {
  if (const auto* attention = std::get_if<AttentionSpec>(&spec)) return divides(*attention, mesh);
  if (const auto* latent = std::get_if<LatentAttentionSpec>(&spec)) return latent->heads % mesh.cols == 0;
  return std::holds_alternative<Absent>(spec);
}
bool divides(const FfnSpec& spec, const Mesh& mesh) {
  if (const auto* mlp = std::get_if<MlpSpec>(&spec)) return mlp->hidden % mesh.cols == 0;
  if (const auto* moe = std::get_if<MoeSpec>(&spec))
    return (moe->experts % mesh.cols == 0 || moe->hidden % mesh.cols == 0) &&
           (!moe->shared || moe->shared->hidden % mesh.cols == 0);
  return std::holds_alternative<Absent>(spec);
}

class Builder {
 public:
  Builder(const ModelSpec& spec, const WeightProvider& provide, const Target& target, const Home& home,
          const CustomModules& custom)
      : spec_(spec), target_(target), home_(home), custom_(custom) {
    whole_.mesh = {};
    for (const WeightSlot& slot : weight_slots(spec)) {
      LazyWeight weight = provide(slot);
      if (!weight && !slot.optional)
        throw Error("no weight for " + slot.name, "build", "check the weight map");
      if (weight && (weight.rows() != slot.rows || weight.cols() != slot.cols)) {
        throw Error("weight of shape [" + std::to_string(weight.rows()) + ", " +
                        std::to_string(weight.cols()) + "], expected [" + std::to_string(slot.rows) + ", " +
                        std::to_string(slot.cols) + "]",
                    slot.name, "check the config against the checkpoint");
      }
      weights_.emplace(slot.name, std::move(weight));
    }
  }

  LazyWeight weight(const std::string& name) const {
    const auto found = weights_.find(name);
    return found == weights_.end() ? LazyWeight{} : found->second;
  }

  BlockNorm norm(const NormSpec& spec, const ModuleName& name) const {
    return {{.spec = spec,
             .weight = weight(name.path),
             .bias = weight(name.path + ".bias"),
             .name = name,
             .mesh_axis = stream_axis},
            target_,
            home_};
  }

  std::unique_ptr<Block> block(int layer) const {
    const LayerSpec& spec = spec_.layers[static_cast<std::size_t>(layer)];
    const ModuleName name{"layers." + std::to_string(layer), layer};
    if (spec.block) return placed(custom(*spec.block, name, custom_.blocks), false);
    const BlockNorms norms = block_norms(spec);
    BlockParts parts{.name = name,
                     .mixer = placed(spec.mixer, name / "attn"),
                     .ffn = placed(spec.ffn, name / "ffn"),
                     .residual_scale = spec.residual_scale};
    if (norms.attn_norm) parts.attn_norm = norm(spec_.norm, name / "attn_norm");
    if (norms.attn_post_norm) parts.attn_post_norm = norm(spec_.norm, name / "attn_post_norm");
    if (norms.ffn_norm) parts.ffn_norm = norm(spec_.norm, name / "ffn_norm");
    if (norms.ffn_post_norm) parts.ffn_post_norm = norm(spec_.norm, name / "ffn_post_norm");
    return make_block(spec.residual, std::move(parts));
  }

 private:
  // Parts that divide are built for the mesh, others for one device.
  template <class Part>
  std::unique_ptr<Part> placed(std::unique_ptr<Part> part, bool divided) const {
    if (!part || divided || target_.mesh == Mesh{}) return part;
    return std::make_unique<Whole<Part>>(std::move(part));
  }
  std::unique_ptr<Mixer> placed(const MixerSpec& spec, const ModuleName& name) const {
    const bool divided = divides(spec, target_.mesh);
    return placed(mixer(spec, name, divided ? target_ : whole_), divided);
  }
  std::unique_ptr<FeedForward> placed(const FfnSpec& spec, const ModuleName& name) const {
    const bool divided = divides(spec, target_.mesh);
    return placed(ffn(spec, name, divided ? target_ : whole_), divided);
  }

  std::unique_ptr<Mixer> mixer(const MixerSpec& spec, const ModuleName& name, const Target& target) const {
    return named(std::visit([&](const auto& s) { return mixer(s, name, target); }, spec), name);
  }
  std::unique_ptr<FeedForward> ffn(const FfnSpec& spec, const ModuleName& name, const Target& target) const {
    return named(std::visit([&](const auto& s) { return ffn(s, name, target); }, spec), name);
  }
  Attention attention(const AttentionSpec& spec, const ModuleName& name, const Target& target) const {
    const auto w = [&](const char* part) { return weight((name / part).path); };
    return Attention::from_config({.spec = spec,
                                   .q = w("q"),
                                   .k = w("k"),
                                   .v = w("v"),
                                   .o = w("o"),
                                   .q_bias = w("q.bias"),
                                   .k_bias = w("k.bias"),
                                   .v_bias = w("v.bias"),
                                   .o_bias = w("o.bias"),
                                   .q_norm = w("q_norm"),
                                   .k_norm = w("k_norm"),
                                   .q_norm_bias = w("q_norm.bias"),
                                   .k_norm_bias = w("k_norm.bias"),
                                   .gate = w("gate"),
                                   .gate_bias = w("gate.bias"),
                                   .sinks = w("sinks"),
                                   .name = name},
                                  target, home_);
  }
  std::unique_ptr<Mixer> mixer(const AttentionSpec& spec, const ModuleName& name,
                               const Target& target) const {
    return std::make_unique<AttentionMixer<Attention>>(attention(spec, name, target));
  }
  std::unique_ptr<Mixer> mixer(const LatentAttentionSpec& spec, const ModuleName& name,
                               const Target& target) const {
    const auto w = [&](std::string_view part) { return weight((name / part).path); };
    return std::make_unique<AttentionMixer<LatentAttention>>(
        LatentAttention::from_config(latent_attention_config(spec, name, w), target, home_));
  }
  std::unique_ptr<Mixer> mixer(const CustomSpec& spec, const ModuleName& name, const Target&) const {
    return custom(spec, name, custom_.mixers);
  }
  template <RecurrentSpec Spec>
  std::unique_ptr<Mixer> mixer(const Spec& spec, const ModuleName& name, const Target& target) const {
    return recurrent_mixer(
        spec, name, [&](const char* part) { return weight((name / part).path); }, target, home_);
  }
  std::unique_ptr<Mixer> mixer(const Absent&, const ModuleName&, const Target&) const { return nullptr; }

  MlpConfig mlp_config(const MlpSpec& spec, const ModuleName& name) const {
    const auto w = [&](const char* part) { return weight((name / part).path); };
    return {.gate = w("gate"),
            .up = w("up"),
            .down = w("down"),
            .gate_bias = w("gate.bias"),
            .up_bias = w("up.bias"),
            .down_bias = w("down.bias"),
            .name = name,
            .act = spec.act,
            .limit = spec.limit};
  }
  std::unique_ptr<FeedForward> ffn(const MlpSpec& spec, const ModuleName& name, const Target& target) const {
    return std::make_unique<TokenWise<Mlp>>(Mlp::from_config(mlp_config(spec, name), target, home_));
  }
  std::unique_ptr<FeedForward> ffn(const MoeSpec& spec, const ModuleName& name, const Target& target) const {
    const auto w = [&](const char* part) { return weight((name / part).path); };
    MoeConfig config{.spec = spec,
                     .router = {.spec = spec.router,
                                .experts = spec.experts,
                                .top_k = spec.top_k,
                                .weight = w("router"),
                                .bias = w("router.bias"),
                                .correction_bias = w("router.correction_bias"),
                                .name = name / "router"},
                     .gate = w("experts.gate"),
                     .up = w("experts.up"),
                     .down = w("experts.down"),
                     .gate_bias = w("experts.gate.bias"),
                     .up_bias = w("experts.up.bias"),
                     .down_bias = w("experts.down.bias"),
                     .shared_gate = w("shared_gate"),
                     .name = name};
    if (spec.shared) config.shared = mlp_config(*spec.shared, name / "shared");
    return std::make_unique<TokenWise<Moe>>(Moe::from_config(config, target, home_));
  }
  std::unique_ptr<FeedForward> ffn(const CustomSpec& spec, const ModuleName& name, const Target&) const {
    return custom(spec, name, custom_.feed_forwards);
  }
  std::unique_ptr<FeedForward> ffn(const Absent&, const ModuleName&, const Target&) const { return nullptr; }

  template <class Factories>
  typename Factories::mapped_type::result_type custom(const CustomSpec& spec, const ModuleName& name,
                                                      const Factories& factories) const {
    const auto found = factories.find(spec.name);
    if (found == factories.end())
      throw Error("no module named '" + printable(spec.name) + "'", name.path,
                  "it must come from the model's own library");
    const auto at = [&](std::string_view part) { return part.empty() ? name : name / part; };
    const BuildContext context{
        spec_,
        name,
        whole_,
        home_,
        [&](std::string_view part) { return weight((name / part).path); },
        [&](const MixerSpec& s, std::string_view part) { return mixer(s, at(part), whole_); },
        [&](const FfnSpec& s, std::string_view part) { return ffn(s, at(part), whole_); },
        [&](const AttentionSpec& s, std::string_view part) { return attention(s, at(part), whole_); }};
    return found->second(context, spec.parameters);
  }

  const ModelSpec& spec_;
  const Target& target_;
  Target whole_ = target_;  // of parts that do not divide
  const Home& home_;
  const CustomModules& custom_;
  std::map<std::string, LazyWeight, std::less<>> weights_;
};

// A row of values for each position.
void fill_sinusoids(const PositionSpec& spec, std::span<const std::int32_t> positions,
                    std::span<float> values) {
  const std::size_t dim = values.size() / positions.size(), half = dim / 2;
  const auto n = static_cast<double>(spec.kind == PositionKind::sinusoidal ? half : half - 1);
  for (std::size_t r = 0; r < positions.size(); ++r) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = (positions[r] + spec.offset) * std::pow(10000.0, -static_cast<double>(i) / n);
      float* row = &values[r * dim];
      row[i] = static_cast<float>(std::sin(angle));
      row[half + i] = static_cast<float>(std::cos(angle));
    }
  }
}

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

class DecoderLM final : public CausalLM, public BoundWeights {
 public:
  DecoderLM(const ModelSpec& spec, const WeightProvider& provide, Target target, Home home,
            const CustomModules& custom)
      : spec_(spec), target_(std::move(target)), device_(home.device ? home.device : default_device()) {
    home.device = device_;
    if (!home.bound) home.bound = std::make_shared<std::vector<LazyWeight>>();
    const auto first_bound = static_cast<std::ptrdiff_t>(home.bound->size());
    target_.layers = static_cast<int>(spec_.layers.size());
    const Builder builder(spec_, provide, target_, home, custom);
    embed_ = std::make_unique<Embedding>(Embedding::from_config(
        {.weight = builder.weight("embed"), .name = {"embed"}, .scale = spec_.embed_scale}, target_, home));
    if (spec_.embed_width() != spec_.dim) {
      const auto between = [&](const char* name) {
        return Linear::from_config(
            {.weight = builder.weight(name), .name = {name}, .parallel = Parallel::stream}, target_, home);
      };
      embed_in_.emplace(between("embed_in")), embed_out_.emplace(between("embed_out"));
    }
    if (spec_.positions && spec_.positions->kind == PositionKind::learned)
      position_embed_ = std::make_unique<Embedding>(Embedding::from_config(
          {.weight = builder.weight("position_embed"), .name = {"position_embed"}, .divide_entries = false},
          target_, home));
    if (spec_.embed_norm) embed_norm_.emplace(builder.norm(*spec_.embed_norm, {"embed_norm"}));
    for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) {
      blocks_.push_back(builder.block(i));
      names_.push_back({"layers." + std::to_string(i), i});
    }
    if (spec_.final_norm) norm_.emplace(builder.norm(spec_.norm, {"norm"}));
    const LazyWeight head = spec_.tied_embeddings
                                ? LazyWeight(builder.weight("embed").source(), WeightRole::linear, "lm_head")
                                : builder.weight("lm_head");
    head_ = std::make_unique<LmHead>(LmHead::from_config({.weight = head,
                                                          .bias = builder.weight("lm_head.bias"),
                                                          .name = {"lm_head"},
                                                          .scale = spec_.logit_scale,
                                                          .softcap = spec_.logit_softcap},
                                                         target_, home));
    weights_.assign(home.bound->begin() + first_bound, home.bound->end());
    limits_.vocab = spec_.vocab;
    limits_.max_positions = spec_.positions && spec_.positions->kind == PositionKind::learned
                                ? spec_.positions->entries - spec_.positions->offset
                                : 0;
    limits_.paged =
        std::ranges::any_of(spec_.layers, [](const LayerSpec& l) { return !kv_caches(l).empty(); });
    limits_.recurrent = std::ranges::any_of(
        spec_.layers, [&](const LayerSpec& l) { return !state_slots(l, spec_.dim).empty(); });
    limits_.rounded_tables = can_trace(*device_);
    if (limits_.rounded_tables) most_traced_rows_ = dynamic_cast<const Tracer&>(*device_).most_traced_rows();
  }

  const ModelSpec& spec() const override { return spec_; }
  const Target& target() const override { return target_; }
  Backend& device() const override { return *device_; }

  Capabilities capabilities() const override {
    return {.prefix_reuse = !limits_.recurrent, .speculation = !limits_.recurrent};
  }

  std::vector<KvLayerSpec> kv_layers() const override {
    std::vector<KvLayerSpec> layers;
    for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) {
      const std::vector<KvCacheSpec> caches = kv_caches(spec_.layers[static_cast<std::size_t>(i)]);
      for (int iteration = 0; iteration < static_cast<int>(caches.size()); ++iteration) {
        const KvCacheSpec& c = caches[static_cast<std::size_t>(iteration)];
        layers.push_back({.layer = i,
                          .iteration = iteration,
                          .kv_heads = kv_heads_on_device(i, c),
                          .head_dim = c.head_dim,
                          .v_head_dim = c.v_head_dim,
                          .indexer_dim = c.indexer_dim,
                          .window = c.window,
                          .dtype = target_.kv_dtype(names_[static_cast<std::size_t>(i)].path + ".attn")});
      }
    }
    return layers;
  }

  std::unique_ptr<State> allocate(const KvGeometry& geometry) const override {
    if (geometry.blocks < 0 || geometry.block_size <= 0 || geometry.slots <= 0)
      throw Error("a state of " + std::to_string(geometry.blocks) + " blocks of " +
                      std::to_string(geometry.block_size),
                  "CausalLM::allocate", "give positive numbers");
    auto state = std::make_unique<State>();
    state->blocks = geometry.blocks;
    state->block_size = geometry.block_size;
    state->slots = geometry.slots;
    for (const KvLayerSpec& layer : kv_layers()) {
      const auto cache = [&](std::int64_t heads, std::int64_t width) {
        return width == 0 ? Tensor()
                          : device_->allocate({.shape = {geometry.blocks, heads, geometry.block_size, width},
                                               .dtype = layer.dtype});
      };
      state->kv[{layer.layer, layer.iteration}] = {cache(layer.kv_heads, layer.head_dim),
                                                   cache(layer.kv_heads, layer.v_head_dim),
                                                   cache(1, layer.indexer_dim)};
    }
    for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) {
      for (const StateSlot& slot : state_slots(spec_.layers[static_cast<std::size_t>(i)], spec_.dim)) {
        const std::vector<float> zeros(static_cast<std::size_t>(geometry.slots * slot.elements));
        state->recurrent[{i, 0}][slot.name] =
            from_host(*device_, zeros, {geometry.slots, slot.elements}, DataType::f32);
      }
    }
    return state;
  }

  StepOutput step(const Batch& batch, State& state) const override {
    const perf::Zone whole("step", perf::ZoneKind::step);
    StepOutput output{
        .rows = static_cast<std::int64_t>(batch.logit_rows.size()), .vocab = spec_.vocab, .logits = {}};
    if (Tensor wanted = is_traced(batch) ? traced_logits(batch, state) : logits(batch, state))
      output.logits = HostValues(std::move(wanted));
    return output;
  }

  void load_weights(const std::function<void(std::size_t, std::size_t)>& progress) const override {
    std::size_t done = 0;
    const std::size_t total = weight_bytes();
    for (const LazyWeight& weight : weights_) {
      weight.get();
      done += weight.bytes();
      if (progress) progress(done, total);
    }
  }

  std::span<const LazyWeight> weights() const override { return weights_; }

  std::size_t weight_bytes() const override {
    std::size_t bytes = 0;
    for (const LazyWeight& weight : weights_) bytes += weight.bytes();
    return bytes;
  }

  std::string plan_json() const override {
    PlanRows rows;
    print(embed_->plan(), rows);
    if (embed_in_) print(embed_in_->plan(), rows);
    if (position_embed_) print(position_embed_->plan(), rows);
    if (embed_norm_) embed_norm_->print(rows);
    for (const auto& block : blocks_) block->print(rows);
    if (norm_) norm_->print(rows);
    if (embed_out_) print(embed_out_->plan(), rows);
    print(head_->plan(), rows);
    nlohmann::ordered_json modules = nlohmann::ordered_json::array();
    for (const PlanRow& row : rows) {
      if (modules.empty() || modules.back()["module"] != row.module)
        modules.push_back({{"module", row.module}});
      modules.back()[row.field] = row.value;
    }
    nlohmann::ordered_json overrides = nlohmann::ordered_json::array();
    for (const Override& o : target_.rows)
      overrides.push_back(
          {{"module", o.module}, {"field", o.field}, {"value", o.value}, {"origin", o.origin}});
    return nlohmann::ordered_json{{"sku", target_.sku.name},        {"mesh", to_string(target_.mesh)},
                                  {"precision", target_.precision}, {"device", device_->description()},
                                  {"rows", std::move(overrides)},   {"modules", std::move(modules)}}
        .dump(2);
  }

 private:
  std::int64_t kv_heads_on_device(int layer, const KvCacheSpec& cache) const {
    const LayerSpec& spec = spec_.layers[static_cast<std::size_t>(layer)];
    const auto* attention = std::get_if<AttentionSpec>(&spec.mixer);
    const bool divided = !spec.block && attention != nullptr && divides(*attention, target_.mesh);
    return divided ? on_device(*attention, target_.mesh).kv_heads : cache.kv_heads;
  }

  // Decode steps of a device that can record them; whoever looks into a step sees it run.
  bool is_traced(const Batch& batch) const {
    return static_cast<std::int64_t>(batch.tokens.size()) <= most_traced_rows_ &&
           batch.tokens.size() == batch.sequences() && batch.logit_rows.size() == batch.tokens.size() &&
           !debug::tapping() && !debug::checking() && !perf::recording() && !ops::composed::forced();
  }

  // The first step of a key runs plainly, so that weights are there and programs built, the second is
  // recorded, later ones are replayed: without modules, checks or allocations.
  Tensor traced_logits(const Batch& batch, State& state) const {
    TracedStep& known =
        StepTraces::of(state).find({.model = number_,
                                    .rows = batch.tokens.size(),
                                    .page_columns = page_columns(batch.table_width, limits_)});
    if (known.is_of(state)) {
      build_step(batch, state, *device_, limits_, known.built);
      for (StepInput& input : known.inputs) input.write(known.built.step);
      return known.trace->replay();
    }
    known.forget();
    if (++known.runs == 1 || known.refused) return logits(batch, state);
    try {
      return recorded_logits(batch, state, known);
    } catch (const TraceRefused&) {
      known.forget();
      known.refused = true;
      return logits(batch, state);
    }
  }

  Tensor recorded_logits(const Batch& batch, State& state, TracedStep& traced) const {
    Recording recording(*device_);
    build_step(batch, state, *device_, limits_, traced.built);
    Step& step = traced.built.step;
    step.inputs = &traced.inputs;
    const std::uint64_t looks = looks_at_rows();
    Tensor result = logits(batch, traced.built);
    const bool depends_on_rows = looks_at_rows() != looks;
    step.embedding = {}, step.slots.clear(), step.rope_rows.clear(), step.row_places_ = {};
    std::vector<Tensor> inputs{step.ids};
    for (const Tensor& t : {step.page_table, step.segments, step.decode_positions}) {
      if (t) inputs.push_back(t);
    }
    for (const StepInput& input : traced.inputs) inputs.push_back(input.tensor);
    if (depends_on_rows) inputs.clear();  // the calls follow from more than these
    traced.trace = recording.end(inputs, result);
    if (traced.trace) {
      traced.memory = memory_of(state);
    } else {
      traced.forget();
      traced.refused = true;
    }
    return result;
  }

  Tensor logits(const Batch& batch, State& state) const {
    BuiltStep built;
    build_step(batch, state, *device_, limits_, built);
    return logits(batch, built);
  }

  // The logits of the rows that want them [1, 1, rows, vocab]; undefined where none does.
  Tensor logits(const Batch& batch, BuiltStep& built) const {
    Step& step = built.step;
    const ModuleName top{};
    Tensor x = embed(step);
    tap(x, top, "embed");
    step.embedding = ops::all_gather(x, -1, stream_axis);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const perf::Zone zone("layer", perf::ZoneKind::layer, static_cast<int>(i));
      x = blocks_[i]->forward(x, step);
      tap(x, names_[i]);
    }
    // The norm of all rows is wanted only by whoever listens.
    if (debug::tapping() && norm_ && batch.logit_rows.size() < batch.tokens.size()) (*norm_)(x);
    if (batch.logit_rows.empty()) return {};
    x = wanted_rows(x, batch, built);
    if (norm_) x = (*norm_)(x);
    if (embed_out_) x = between(*embed_out_, x, step.mode);
    Tensor logits = (*head_)(x, step.mode);
    tap(logits, top, "logits");
    return logits;
  }

  // The stream at another width.
  static Tensor between(const Linear& linear, const Tensor& x, Mode mode) {
    return ops::mesh_partition(linear.forward(x, mode), -1, stream_axis);
  }

  Tensor embed(const Step& step) const {
    Tensor x = (*embed_)(step.ids);
    if (embed_in_) x = between(*embed_in_, x, step.mode);
    if (spec_.positions) {
      if (position_embed_) {
        const auto entries = [this](const Step& s, std::span<std::int32_t> ids) {
          for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = s.positions[i] + spec_.positions->offset;
        };
        x = ops::add(std::move(x), (*position_embed_)(step.input({1, 1, 1, step.tokens}, entries)));
      } else {
        const auto rows = [this](const Step& s, std::span<float> values) {
          fill_sinusoids(*spec_.positions, s.positions, values);
        };
        const Tensor table = step.input({1, 1, step.tokens, spec_.dim}, x.dtype(), rows);
        x = ops::add(std::move(x), ops::mesh_partition(table, -1, stream_axis));
      }
    }
    return embed_norm_ ? (*embed_norm_)(x) : x;
  }

  // The rows of x [1, 1, tokens, dim] whose logits the batch asks for, in its order.
  Tensor wanted_rows(const Tensor& x, const Batch& batch, const BuiltStep& built) const {
    std::vector<std::int32_t> rows;
    rows.reserve(batch.logit_rows.size());
    for (std::int32_t token : batch.logit_rows)
      rows.push_back(built.row_of_token[static_cast<std::size_t>(token)]);
    bool consecutive = true;
    for (std::size_t i = 1; i < rows.size(); ++i) consecutive = consecutive && rows[i] == rows[i - 1] + 1;
    if (consecutive && static_cast<std::int64_t>(rows.size()) == x.dim(2)) return x;
    if (consecutive) return ops::slice(x, 2, rows.front(), rows.back() + 1);
    return ops::embedding(from_host(*device_, rows, {1, 1, 1, static_cast<std::int64_t>(rows.size())}), x);
  }

  ModelSpec spec_;
  Target target_;
  std::shared_ptr<Backend> device_;
  StepLimits limits_;
  std::int64_t most_traced_rows_ = 0;
  const std::uint64_t number_ = next_number();  // of all models of the process
  std::unique_ptr<Embedding> embed_, position_embed_;
  std::optional<Linear> embed_in_, embed_out_;
  std::optional<BlockNorm> embed_norm_, norm_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<ModuleName> names_;
  std::unique_ptr<LmHead> head_;
  std::vector<LazyWeight> weights_;
};

}  // namespace

std::unique_ptr<CausalLM> build(const ModelSpec& spec, const WeightProvider& provide, Target target,
                                const Home& home, const CustomModules& custom) {
  validate(spec);
  for (const int width : {spec.dim, spec.embed_width()}) {
    if (width % target.mesh.rows != 0)
      throw Error("a width of " + std::to_string(width) + " does not divide among " +
                      std::to_string(target.mesh.rows) + " rows of devices",
                  "the mesh " + to_string(target.mesh), "choose a mesh that divides the network");
  }
  return std::make_unique<DecoderLM>(spec, provide, std::move(target), home, custom);
}

}  // namespace ttt::inline v2
