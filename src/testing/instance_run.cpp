#include "ttt/testing/instance_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "ops/composed.h"
#include "testing/driver.h"
#include "testing/measure.h"
#include "ttt/base/error.h"
#include "ttt/convert/custom_modules.h"
#include "ttt/debug/capture.h"
#include "ttt/debug/tap.h"
#include "ttt/modules/moe.h"
#include "ttt/modules/norm.h"
#include "ttt/modules/rope.h"
#include "ttt/testing/reference.h"

namespace ttt::inline v2::testing {

namespace {

// ---------------------------------------------------------------- made-up weights

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}
std::uint64_t hash(std::string_view text) {
  std::uint64_t h = 0xCBF29CE484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h;
}
// In [-1, 1).
float uniform(std::uint64_t seed, std::uint64_t i) {
  return static_cast<float>(mix(seed + (i + 1) * 0x9E3779B97F4A7C15u) >> 40) / 8388608.0f - 1.0f;
}

// What keeps a module's numbers in a sensible range: matrices of unit gain, scales around one, rates of decay
// of one sign.
struct Distribution {
  float centre = 0, width = 1;
};
Distribution distribution(const WeightSlot& slot) {
  const std::string part = slot.name.substr(slot.name.rfind('.') + 1);
  if (slot.role != WeightRole::vector)
    return {0, slot.role == WeightRole::embedding ? 1.0f : std::sqrt(3.0f / static_cast<float>(slot.cols))};
  if (part == "a" || part == "log_a") return {-1, 0.3f};
  if (part == "rate" || part.ends_with("norm") || part.ends_with("scale")) return {1, 0.3f};
  return {0, 0.3f};
}

class MadeUp final : public WeightSource {
 public:
  explicit MadeUp(const WeightSlot& slot)
      : slot_(slot), values_(distribution(slot)), seed_(hash(slot.name)) {}
  std::int64_t rows() const override { return slot_.rows; }
  std::int64_t cols() const override { return slot_.cols; }
  void read(std::int64_t begin, std::int64_t count, float* out) const override {
    check_rows(*this, begin, count);
    const auto first = static_cast<std::uint64_t>(begin * slot_.cols);
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(count * slot_.cols); ++i)
      out[i] = values_.centre + values_.width * uniform(seed_, first + i);
  }
  std::uint64_t fingerprint() const override { return seed_; }
  std::string describe() const override { return slot_.name + ", made up"; }

 private:
  WeightSlot slot_;
  Distribution values_;
  std::uint64_t seed_;
};

// ---------------------------------------------------------------- a network around one module

// What a module does in a step; the result is what is compared.
using Run = std::function<Tensor(const Step&)>;
// Builds it where its context stands.
using Make = std::function<Run(const BuildContext&)>;

// Listens to the module while its network runs.
struct Listener {
  std::function<void(const std::function<Tensor()>&)> run;
};

class ProbeBlock final : public Block {
 public:
  ProbeBlock(Run run, std::shared_ptr<Listener> listener)
      : run_(std::move(run)), listener_(std::move(listener)) {}
  Tensor forward(const Tensor& x, const Step& step) const override {
    if (listener_->run) listener_->run([&] { return run_(step); });
    return x;
  }
  void print(PlanRows&) const override {}

 private:
  Run run_;
  std::shared_ptr<Listener> listener_;
};

class Identity final : public Mixer {
 public:
  Tensor forward(const Tensor& x, const Step&) const override { return x; }
  void print(PlanRows&) const override {}
};
class IdentityFeedForward final : public FeedForward {
 public:
  Tensor forward(const Tensor& x, const Step&) const override { return x; }
  void print(PlanRows&) const override {}
};

// Values that bf16 has, so that every format starts from the same.
Tensor input(const Step& step, const Shape& shape, DataType dtype) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  const std::uint64_t seed = hash("input") + static_cast<std::uint64_t>(step.positions.front());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::round(uniform(seed, i) * 128) / 128 * 1.75f;
  return from_host(*step.device, values, shape, dtype);
}

// The instance's network: layers that it needs, and itself as the last.
struct Probe {
  ModelSpec spec;
  CustomModules modules;
  std::shared_ptr<Listener> listener = std::make_shared<Listener>();
  std::string path;     // of the instance in `spec`
  std::string tap;      // where the result shows; empty: at the listener
  bool logits = false;  // the result is the network's
};

// The module of a layer that "layers.3.ffn.shared" names: "ffn.shared".
std::string within_layer(const std::string& path) {
  if (!path.starts_with("layers.")) return path;
  const std::size_t dot = path.find('.', 7);
  return dot == std::string::npos ? std::string() : path.substr(dot + 1);
}

class ProbeMaker {
 public:
  explicit ProbeMaker(const SelectedInstance& selected)
      : instance_(selected.instance), whole_(selected.network->description.spec) {
    probe_.spec = {
        .vocab = 64, .dim = whole_.dim, .max_positions = whole_.max_positions, .norm = whole_.norm};
    probe_.spec.final_norm = false;
    probe_.spec.tied_embeddings = true;
    probe_.modules = custom_modules(selected.network->description);
  }

  Probe make(bool alone) {
    const std::string part = within_layer(instance_.path);
    if (instance_.layer < 0) {
      outside();
    } else if (!alone || layer().block) {
      whole_layer();
    } else if (part.empty()) {
      arrangement();
    } else if (instance_.kind.module == "norm") {
      norm(part);
    } else if (instance_.kind.module == "rope") {
      rope();
    } else if (instance_.kind.module == "router") {
      router(part);
    } else if (part.starts_with("attn")) {
      donors();
      const MixerSpec mixer = mixer_with_donors();
      std::vector<WeightSlot> weights = weight_slots(mixer, whole_.dim, part);
      CustomSpec custom{.name = {}, .weights = std::move(weights), .state = state_slots(mixer, whole_.dim)};
      custom.caches = kv_caches(LayerSpec{.mixer = mixer, .ffn = Absent{}});
      add(std::move(custom), [mixer, part](const BuildContext& context) -> Run {
        return token_mixer(context.mixer(mixer, part), context);
      });
    } else {
      const FfnSpec ffn = part == "ffn" ? layer().ffn : FfnSpec(*std::get<MoeSpec>(layer().ffn).shared);
      add({.name = {}, .weights = weight_slots(ffn, whole_.dim, part)},
          [ffn, part](const BuildContext& context) -> Run {
            return token_mixer(context.ffn(ffn, part), context);
          });
    }
    return std::move(probe_);
  }

 private:
  const LayerSpec& layer() const { return whole_.layers.at(static_cast<std::size_t>(instance_.layer)); }

  template <class Part>
  static Run token_mixer(std::unique_ptr<Part> part, const BuildContext& context) {
    return [part = std::shared_ptr<Part>(std::move(part)), dim = context.spec.dim,
            dtype = context.target.activation_dtype()](const Step& step) {
      return part->forward(input(step, {1, 1, step.tokens, dim}, dtype), step);
    };
  }

  // The probed module as a block of its own.
  void add(CustomSpec custom, Make make) {
    custom.name = "probe";
    probe_.modules.blocks["probe"] = [make = std::move(make), listener = probe_.listener](
                                         const BuildContext& context, std::string_view) {
      return std::make_unique<ProbeBlock>(make(context), listener);
    };
    probe_.path = "layers." + std::to_string(probe_.spec.layers.size()) + "." + within_layer(instance_.path);
    probe_.spec.layers.push_back({.mixer = {}, .ffn = {}, .block = std::move(custom)});
  }

  // Earlier layers whose cache or choice of keys an attention uses.
  void donors() {
    std::optional<int> from;
    if (const auto* a = std::get_if<AttentionSpec>(&layer().mixer)) from = a->kv_of_layer;
    if (const auto* a = std::get_if<LatentAttentionSpec>(&layer().mixer)) from = a->selection_of_layer;
    if (!from) return;
    LayerSpec donor = whole_.layers.at(static_cast<std::size_t>(*from));
    donor.ffn = Absent{};
    probe_.spec.layers.push_back(std::move(donor));
  }
  MixerSpec mixer_with_donors() const {
    MixerSpec mixer = layer().mixer;
    if (auto* a = std::get_if<AttentionSpec>(&mixer); a != nullptr && a->kv_of_layer) a->kv_of_layer = 0;
    if (auto* a = std::get_if<LatentAttentionSpec>(&mixer); a != nullptr && a->selection_of_layer)
      a->selection_of_layer = 0;
    return mixer;
  }

  void norm(const std::string& part) {
    NormSpec spec = whole_.norm;
    if (part.ends_with("q_norm")) spec = std::get<AttentionSpec>(layer().mixer).qk_norm_spec;
    if (part.ends_with("v_norm")) spec = *std::get<AttentionSpec>(layer().mixer).v_norm;
    if (part.ends_with("ssm_norm")) spec = *std::get<SelectiveSsmSpec>(layer().mixer).ssm_norm;
    norm(spec, part);
  }
  void norm(const NormSpec& spec, const std::string& part) {
    const std::int64_t width = size("width");
    CustomSpec custom;
    if (spec.weight) custom.weights.push_back(vector_slot(part, width));
    if (spec.bias) custom.weights.push_back(vector_slot(part + ".bias", width));
    add(std::move(custom), [spec, part, width](const BuildContext& context) -> Run {
      const Norm norm = Norm::from_config({.spec = spec,
                                           .weight = context.weight(part),
                                           .bias = context.weight(part + ".bias"),
                                           .name = context.name / part},
                                          context.target, context.home);
      return [norm, width, dtype = context.target.activation_dtype()](const Step& step) {
        return norm.forward(input(step, {1, 1, step.tokens, width}, dtype));
      };
    });
  }

  void rope() {
    RopeSpec spec;
    if (const auto* a = std::get_if<AttentionSpec>(&layer().mixer)) spec = *a->rope;
    if (const auto* a = std::get_if<LatentAttentionSpec>(&layer().mixer)) spec = *a->rope;
    const std::int64_t width = size("head_dim");
    add({}, [spec, width](const BuildContext& context) -> Run {
      const Rope rope =
          Rope::from_config({.spec = spec, .head_dim = static_cast<int>(width), .name = context.name},
                            context.target, context.home);
      return [rope, width, dtype = context.target.activation_dtype()](const Step& step) {
        return rope.forward(input(step, {1, 4, step.tokens, width}, dtype), step);
      };
    });
  }

  void router(const std::string& part) {
    const MoeSpec spec = std::get<MoeSpec>(layer().ffn);
    CustomSpec custom;
    for (WeightSlot& slot : weight_slots(FfnSpec(spec), whole_.dim, "ffn")) {
      if (slot.name.starts_with(part)) custom.weights.push_back(std::move(slot));
    }
    add(std::move(custom), [spec, part](const BuildContext& context) -> Run {
      const Router router = Router::from_config({.spec = spec.router,
                                                 .experts = spec.experts,
                                                 .top_k = spec.top_k,
                                                 .weight = context.weight(part),
                                                 .bias = context.weight(part + ".bias"),
                                                 .correction_bias = context.weight(part + ".correction_bias"),
                                                 .name = context.name / part},
                                                context.target, context.home);
      return [router, spec, dim = context.spec.dim,
              dtype = context.target.activation_dtype()](const Step& step) {
        const Router::Choice choice = router.forward(input(step, {1, 1, step.tokens, dim}, dtype), step.mode);
        // In the order of the experts, so that the order of equal ones does not matter.
        const Shape shape{1, 1, step.tokens, spec.experts};
        const std::vector<float> zeros(static_cast<std::size_t>(shape.elements()));
        return ops::scatter(from_host(*step.device, zeros, shape, DataType::f32), -1, choice.experts,
                            choice.weights);
      };
    });
  }

  // Norms and additions around parts that pass their input on.
  void arrangement() {
    probe_.modules.mixers["identity"] = [](const BuildContext&, std::string_view) {
      return std::make_unique<Identity>();
    };
    probe_.modules.feed_forwards["identity"] = [](const BuildContext&, std::string_view) {
      return std::make_unique<IdentityFeedForward>();
    };
    LayerSpec plain = layer();
    if (!std::holds_alternative<Absent>(plain.mixer)) plain.mixer = CustomSpec{.name = "identity"};
    if (!std::holds_alternative<Absent>(plain.ffn)) plain.ffn = CustomSpec{.name = "identity"};
    probe_.spec.layers.push_back(std::move(plain));
    probe_.path = probe_.tap = "layers.0";
  }

  // The layer as it is; a block of the model's own counts on the layers around it.
  void whole_layer() {
    if (layer().block) {
      probe_.spec.vocab = whole_.vocab;
      probe_.spec.layers = whole_.layers;
      probe_.path = probe_.tap = "layers." + std::to_string(instance_.layer);
      return;
    }
    donors();
    LayerSpec plain = layer();
    plain.mixer = mixer_with_donors();
    probe_.tap = "layers." + std::to_string(probe_.spec.layers.size());
    probe_.path =
        probe_.tap + instance_.path.substr(std::min(instance_.path.find('.', 7), instance_.path.size()));
    probe_.spec.layers.push_back(std::move(plain));
  }

  void outside() {
    ModelSpec& spec = probe_.spec;
    const std::string& module = instance_.kind.module;
    probe_.path = probe_.tap = instance_.path;
    if (module == "norm") {
      norm(instance_.path == "embed_norm" ? *whole_.embed_norm : whole_.norm, instance_.path);
      return;
    }
    spec.vocab = whole_.vocab;
    spec.layers.push_back({.mixer = CustomSpec{.name = "identity"}, .ffn = Absent{}});
    probe_.modules.mixers["identity"] = [](const BuildContext&, std::string_view) {
      return std::make_unique<Identity>();
    };
    if (module == "embedding") {
      spec.positions = whole_.positions;
      spec.embed_scale = whole_.embed_scale;
    } else {
      probe_.logits = true;
      spec.tied_embeddings = false;
      spec.lm_head_bias = whole_.lm_head_bias;
      spec.logit_scale = whole_.logit_scale;
      spec.logit_softcap = whole_.logit_softcap;
    }
  }

  std::int64_t size(std::string_view name) const {
    for (const auto& [key, value] : instance_.shape) {
      if (key == name) return value;
    }
    throw Error("no size " + std::string(name), instance_.key());
  }

  const ModuleInstance& instance_;
  const ModelSpec& whole_;
  Probe probe_;
};

// ---------------------------------------------------------------- running

std::shared_ptr<Backend> device_of(const InstanceOptions& options, const Target& target) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<Backend>> open;
  const std::string sku = options.backend == "cpu" ? "" : std::string(target.sku.name);
  const std::lock_guard lock(mutex);
  auto& device = open[options.backend + "/" + sku + "/" + to_string(target.mesh) + "/" +
                      std::to_string(options.threads)];
  if (!device)
    device = open_device(options.backend,
                         {.threads = options.threads, .isa = {}, .mesh = target.mesh, .sku = sku});
  return device;
}

// The number formats of the instance, wherever its module stands in the probe.
Target formats(const SelectedInstance& selected, const Probe& probe) {
  Target target = selected.target;
  for (const auto& [name, dtype] : selected.instance.dtypes) {
    const std::string value(ttt::name(dtype));
    if (name == "activations") {
      target.rows.push_back({.module = "*", .field = "activations", .value = value, .origin = "instance"});
    } else {
      const bool kv = name == "kv";
      target.rows.push_back({.module = kv || name == "weights" ? probe.path : probe.path + "." + name,
                             .field = kv ? "kv" : "weights",
                             .value = value,
                             .origin = "instance"});
    }
  }
  return target;
}

class Runner {
 public:
  Runner(const SelectedInstance& selected, const InstanceOptions& options)
      : selected_(selected),
        options_(options),
        decode_(selected.instance.mode == Mode::decode),
        rows_(options.rows > 0  ? options.rows
              : selected.golden ? 21
                                : 128) {}

  InstanceResult run() {
    InstanceResult result;
    result.required_pcc = default_pcc(selected_.instance);
    const std::shared_ptr<Backend> device = device_of(options_, selected_.target);
    const bool numbers = device->computes() && selected_.target.mesh == Mesh{};
    Probe probe = ProbeMaker(selected_).make(numbers);
    std::size_t bytes = 0;
    for (const WeightSlot& slot : weight_slots(probe.spec))
      bytes += static_cast<std::size_t>(slot.rows * slot.cols) * sizeof(float);
    if (device->computes() && bytes > options_.memory) {
      result.outcome = Outcome::skipped;
      result.detail = std::to_string(bytes >> 20) + " MiB of weights are more than the limit of " +
                      std::to_string(options_.memory >> 20);
      return result;
    }
    const std::vector<float> got = once(probe, formats(selected_, probe), device, &result);
    if (!numbers) return result;
    const std::vector<float> oracle = once(probe, make_target(hw::cpu(), "f32"), device, nullptr);
    compare(got, oracle, result);
    return result;
  }

 private:
  // One run at the formats of `target`; as the oracle where no result is filled in.
  std::vector<float> once(Probe& probe, const Target& target, const std::shared_ptr<Backend>& device,
                          InstanceResult* result) {
    const Home home{.device = device, .cache = {}, .bound = {}};
    const auto provide = [](const WeightSlot& slot) {
      return slot.optional ? LazyWeight() : LazyWeight(std::make_shared<MadeUp>(slot), slot.role, slot.name);
    };
    const std::unique_ptr<CausalLM> model = build(probe.spec, provide, target, home, probe.modules);
    std::vector<float> values;
    std::optional<ops::composed::OracleScope> oracle;
    if (result == nullptr) oracle.emplace();
    const bool computes = device->computes();
    bool wanted = !decode_;
    probe.listener->run = [&](const std::function<Tensor()>& run) {
      const Tensor y = run();
      if (wanted && computes) values = to_host(y);
      if (wanted && result != nullptr && options_.repeats > 0) measure([&] { (void)run(); }, *result);
    };
    std::optional<debug::TapScope> tap;
    if (!probe.tap.empty() && computes) {
      tap.emplace([&](const Tensor& x, std::string_view name, int layer) {
        if (wanted && debug::full_name(name, layer) == probe.tap) values = to_host(x);
      });
    }
    const std::vector<std::int32_t> ids = tokens(probe.spec.vocab);
    Driver driver(*model, 1, ids.size());
    const Want want = probe.logits ? Want::last_rows : Want::nothing;
    const auto take = [&](std::span<const std::int32_t> part) {
      const StepOutput output = driver.feed(part, want);
      if (probe.logits && wanted) values = output.logits;
    };
    const std::span<const std::int32_t> prompt = std::span(ids).first(ids.size() - 1),
                                        last = std::span(ids).last(1);
    take(prompt);
    wanted = true;
    if (decode_) take(last);
    tap.reset();
    if (result != nullptr && options_.repeats > 0 && !probe.tap.empty()) {
      wanted = false;
      measure(
          [&] {
            const std::span<const std::int32_t> part = decode_ ? last : prompt;
            driver.forget(part.size());
            (void)driver.feed(part, want);
          },
          *result);
    }
    probe.listener->run = {};
    return values;
  }

  // Ids of `rows_` tokens and one more.
  std::vector<std::int32_t> tokens(int vocab) const {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(rows_) + 1);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<std::int32_t>(i * 29 + 7) % std::min(vocab, 64);
    return ids;
  }

  void measure(const std::function<void()>& run, InstanceResult& result) const {
    const Work work = work_of(run);
    result.bytes = work.bytes;
    result.flops = work.flops;
    result.seconds = sample(run, options_.repeats, options_.sample_seconds);
  }

  static void compare(const std::vector<float>& got, const std::vector<float>& oracle,
                      InstanceResult& result) {
    const auto fail = [&](std::string why) {
      result.outcome = Outcome::failed;
      result.detail = std::move(why);
    };
    if (got.empty() || got.size() != oracle.size())
      return fail(std::to_string(got.size()) + " values, the oracle has " + std::to_string(oracle.size()));
    double squares = 0;
    for (const float v : oracle) squares += static_cast<double>(v) * v;
    const double rms = std::sqrt(squares / static_cast<double>(oracle.size()));
    result.pcc = pcc(got, oracle);
    result.error = max_abs_error(got, oracle) / (rms > 0 ? rms : 1);
    if (!std::isfinite(rms)) return fail("the oracle is not finite");
    if (!(result.pcc >= result.required_pcc))
      fail("PCC " + std::to_string(result.pcc) + " with the oracle, required " +
           std::to_string(result.required_pcc));
  }

  const SelectedInstance& selected_;
  const InstanceOptions& options_;
  bool decode_;
  int rows_;
};

}  // namespace

double default_pcc(const ModuleInstance& instance) {
  double required = 1;
  for (const auto& [name, dtype] : instance.dtypes)
    required = std::min(required, dtype == DataType::f32      ? 0.999999
                                  : dtype == DataType::bf16   ? 0.999
                                  : dtype == DataType::bfp8_b ? 0.995
                                                              : 0.95);
  // Rounding may choose another expert where two are nearly as good, which moves a whole weight.
  return instance.kind.module == "router" && required < 0.999999 ? 0.85 : required;
}

InstanceResult run_instance(const SelectedInstance& selected, const InstanceOptions& options) {
  try {
    return Runner(selected, options).run();
  } catch (const Error& error) {
    InstanceResult result;
    result.outcome = Outcome::failed;
    result.detail = error.what();
    return result;
  }
}

}  // namespace ttt::inline v2::testing
