#include "ttt/convert/load.h"

#include <algorithm>

#include "convert/described.h"
#include "ttt/base/error.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/custom_modules.h"
#include "ttt/convert/replicas.h"
#include "ttt/ops/submesh.h"
#include "ttt/tensor/shape_source.h"

namespace ttt::inline v2 {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace detail {

namespace {

// `gguf`: the file whose family it is; null: a folder's.
FoundFamily find_family(const std::string& architecture, const Checkpoint* gguf, const std::string& where,
                        const std::vector<fs::path>& given) {
  std::vector<std::string> known;
  FoundFamily any;
  for (const auto& library : model_libraries(given)) {
    for (const auto& family : library->families()) {
      if (gguf != nullptr) {
        for (const auto& part : family.gguf) {
          known.push_back(part.architecture);
          if (part.architecture != architecture) continue;
          const FoundFamily found{library, &family, &part};
          if (part.key.empty() && any.family == nullptr) any = found;
          const GgufKey wanted[] = {{"key", part.key}};
          if (!part.key.empty() && gguf->config(wanted).has("key")) return found;
        }
      } else {
        if (std::ranges::find(family.architectures, architecture) != family.architectures.end())
          return {library, &family, nullptr};
        known.insert(known.end(), family.architectures.begin(), family.architectures.end());
      }
    }
  }
  if (any.family != nullptr) return any;
  if (known.empty())
    throw Error("no model libraries", "",
                "install the standard models, or name yours by --models or TTT_MODELS");
  if (architecture.empty()) throw Error("no architecture", where, "config.json must have \"architectures\"");
  const std::string near = nearest(architecture, known);
  throw Error("unknown architecture '" + printable(architecture) + "'", where,
              (near.empty() ? "" : "the nearest known one is " + near + "; ") +
                  std::string("see ttt models, or docs/add_a_model.md to add it"));
}

}  // namespace

Described describe(const FoundFamily& found, Json config, const std::string& source,
                   const std::string& gguf) {
  Described d{.found = found, .config = std::move(config), .spec = {}, .weights = {}};
  const Json answer = found.library->ask({{"request", "describe"},
                                          {"family", found.family->name},
                                          {"config", d.config},
                                          {"source", source},
                                          {"gguf", gguf}});
  try {
    d.spec = parse_spec(answer.at("spec").dump());
    d.weights = WeightMap::from_json(answer.at("weight_map").dump());
    for (const Json& row : answer.at("overrides")) {
      d.overrides.push_back({.module = row.at("module").get<std::string>(),
                             .field = row.at("field").get<std::string>(),
                             .value = row.at("value").get<std::string>(),
                             .origin = "model"});
    }
    // Metadata of GGUF files is not written by hand: what the family does not read there is no hint of a
    // wrong port.
    if (gguf.empty()) {
      const HfConfig record = HfConfig::parse(d.config.dump(), source);
      record.merge_record(answer.at("record").dump());
      (void)record.architecture();
      d.unread = record.unread();
    }
  } catch (const Json::exception&) {
    throw Error("answers in a form that this release does not know", found.library->path().string(),
                "update the core or rebuild the library");
  }
  validate(d.spec);
  return d;
}

Described describe(const Checkpoint& checkpoint, const LoadOptions& options) {
  const FoundFamily found = find_family(checkpoint.architecture(),
                                        checkpoint.format() == CheckpointFormat::gguf ? &checkpoint : nullptr,
                                        checkpoint.path().string(), options.model_libraries);
  std::vector<GgufKey> keys;
  if (found.gguf != nullptr) {
    for (const auto& [hf, gguf] : found.gguf->config) keys.push_back({hf, gguf});
  }
  Json config = Json::parse(checkpoint.config_json(keys), nullptr, false);
  if (config.is_discarded()) throw Error("config is not JSON", checkpoint.path().string());
  if (found.gguf != nullptr) config.update(found.gguf->constants);
  if (!options.config.empty()) {
    const Json over = Json::parse(options.config, nullptr, false);
    if (!over.is_object())
      throw Error("no JSON object", "LoadOptions::config", "give one of keys and values");
    config.update(over);
  }
  return describe(found, std::move(config), checkpoint.config(keys).source(),
                  found.gguf != nullptr ? found.gguf->architecture : "");
}

static Target make_target(std::string_view precision, const Described& d, const LoadOptions& options) {
  const std::string sku = !options.sku.empty() ? options.sku : options.backend == "ttnn" ? "n150" : "cpu";
  Target target = ttt::make_target(hw::find(sku), options.precision.empty() ? precision : options.precision,
                                   options.mesh);
  target.rows.insert(target.rows.end(), d.overrides.begin(), d.overrides.end());
  target.layers = static_cast<int>(d.spec.layers.size());
  if (!options.overrides.empty()) add_overrides(target, options.overrides);
  return target;
}

Target make_target(const Checkpoint& checkpoint, const Described& d, const LoadOptions& options) {
  const std::string own = checkpoint.precision();
  return make_target(!own.empty() ? own : checkpoint.quantised() ? "bfp8_b" : "accuracy", d, options);
}

}  // namespace detail

namespace {

Description description(detail::Described d, std::string architecture, Target target) {
  return {.spec = std::move(d.spec),
          .architecture = std::move(architecture),
          .family = d.found.family->name,
          .library = d.found.library->path(),
          .weight_map_json = d.weights.to_json(),
          .unread_keys = std::move(d.unread),
          .target = std::move(target)};
}

Description describe(const Checkpoint& checkpoint, const LoadOptions& options) {
  detail::Described d = detail::describe(checkpoint, options);
  Target target = detail::make_target(checkpoint, d, options);
  return description(std::move(d), checkpoint.architecture(), std::move(target));
}

// The family that a description names; one of the caller's own names none.
detail::FoundFamily find_family(const Description& d, const std::vector<fs::path>& given) {
  for (const auto& library : model_libraries(given)) {
    if (library->path() != d.library) continue;
    for (const auto& family : library->families()) {
      if (family.name == d.family) return {library, &family, nullptr};
    }
  }
  return {};
}

std::shared_ptr<Backend> open(const LoadOptions& options) {
  return open_device(options.backend, {.threads = options.threads,
                                       .deterministic = options.deterministic,
                                       .isa = options.isa,
                                       .mesh = options.mesh,
                                       .sku = options.sku});
}

// On `device`, or where there is none on what the options open. What the network is called is for the caller
// to fill in.
LoadedModel load(const Checkpoint& checkpoint, ModelSpec spec, const WeightMap& weights, const Target& target,
                 const CustomModules& modules, const LoadOptions& options,
                 std::shared_ptr<Backend> device = {}) {
  const std::vector<NamedShape> shapes = checkpoint.shapes();
  std::optional<Binding> binding;
  if (!shapes.empty()) binding = ttt::bind_weights(weights, shapes, weight_slots(spec));
  if (options.layers > 0 && static_cast<std::size_t>(options.layers) < spec.layers.size())
    spec.layers.resize(static_cast<std::size_t>(options.layers));

  LoadedModel loaded;
  loaded.device = device ? std::move(device) : open(options);
  if (!binding && loaded.device->computes())
    throw Error("no weights", checkpoint.path().string(),
                "a config.json alone can only be inspected, or run with --backend null");
  const fs::path cache = options.cache.value_or(WeightCache::default_folder());
  if (!cache.empty()) loaded.weight_cache = WeightCache(cache);
  const Home home{.device = loaded.device, .cache = loaded.weight_cache, .bound = {}};
  const WeightProvider provide = [&](const WeightSlot& slot) -> LazyWeight {
    WeightSourcePtr source =
        binding ? binding->source(slot.name, checkpoint) : make_shape(slot.rows, slot.cols);
    return source ? LazyWeight(std::move(source), slot.role, slot.name) : LazyWeight{};
  };
  loaded.model = build(spec, provide, target, home, modules);
  if (checkpoint.has_tokenizer()) loaded.tokenizer = checkpoint.tokenizer();
  if (const auto text = checkpoint.chat_template())
    loaded.chat_template.emplace(*text, checkpoint.special_tokens());
  loaded.generation = checkpoint.generation();
  return loaded;
}

LoadedModel load(const Checkpoint& checkpoint, const LoadOptions& options,
                 std::shared_ptr<Backend> device = {}) {
  const detail::Described d = detail::describe(checkpoint, options);
  LoadedModel loaded = load(checkpoint, d.spec, d.weights, detail::make_target(checkpoint, d, options),
                            d.found.modules(), options, std::move(device));
  loaded.architecture = checkpoint.architecture();
  loaded.family = d.found.family->name;
  loaded.library = d.found.library->path();
  loaded.unread_keys = d.unread;
  return loaded;
}

}  // namespace

CustomModules custom_modules(const Description& d) {
  return d.library.empty() ? CustomModules{} : find_family(d, {d.library}).modules();
}

LoadedModel load(const fs::path& path, const LoadOptions& options) {
  return load(Checkpoint::open(path), options);
}

std::vector<LoadedModel> load_replicas(const fs::path& path, const LoadOptions& options, const Mesh& part) {
  // A replica holds its part and, behind it, the whole.
  struct Held {
    std::shared_ptr<Backend> whole, part;
  };
  const std::shared_ptr<Backend> whole = open(options);
  const Checkpoint checkpoint = Checkpoint::open(path);
  LoadOptions own = options;
  own.mesh = part;
  std::vector<LoadedModel> replicas;
  for (std::shared_ptr<Backend>& device : create_submeshes(*whole, part)) {
    const auto held = std::make_shared<Held>(Held{whole, std::move(device)});
    replicas.push_back(load(checkpoint, own, std::shared_ptr<Backend>(held, held->part.get())));
  }
  return replicas;
}

LoadedModel load(const fs::path& path, const Description& d, const LoadOptions& options) {
  LoadedModel loaded = load(Checkpoint::open(path), d.spec, WeightMap::from_json(d.weight_map_json), d.target,
                            find_family(d, options.model_libraries).modules(), options);
  loaded.architecture = d.architecture;
  loaded.family = d.family;
  loaded.library = d.library;
  loaded.unread_keys = d.unread_keys;
  return loaded;
}

LoadedModel load(const fs::path& path, const ModelSpec& spec, const WeightMap& weights,
                 const LoadOptions& options) {
  validate(spec);
  const Checkpoint checkpoint = Checkpoint::open(path);
  const detail::Described d{.found = {}, .config = {}, .spec = spec, .weights = weights};
  LoadedModel loaded =
      load(checkpoint, spec, weights, detail::make_target(checkpoint, d, options), {}, options);
  loaded.architecture = checkpoint.architecture();
  return loaded;
}

std::vector<std::int32_t> end_ids(const LoadedModel& loaded) {
  std::vector<std::int32_t> ids = loaded.generation.eos_ids;
  if (loaded.tokenizer) {
    for (const std::int32_t id : loaded.tokenizer->end_ids()) {
      if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
    }
  }
  return ids;
}

Description describe(const fs::path& path, const LoadOptions& options) {
  return describe(Checkpoint::open(path), options);
}

Description describe_config(std::string_view json, const LoadOptions& options) {
  const HfConfig record = HfConfig::parse(json);
  const std::string architecture = record.architecture();
  const auto found = detail::find_family(architecture, nullptr, record.source(), options.model_libraries);
  detail::Described d =
      detail::describe(found, Json::parse(record.json(), nullptr, false), record.source(), "");
  Target target = detail::make_target("accuracy", d, options);
  return description(std::move(d), architecture, std::move(target));
}

std::vector<FamilyInfo> families(const std::vector<fs::path>& given) {
  std::vector<FamilyInfo> all;
  for (const auto& library : model_libraries(given)) {
    for (const auto& family : library->families()) {
      FamilyInfo info{.name = family.name,
                      .architectures = family.architectures,
                      .gguf = {},
                      .modules = family.modules,
                      .library = library->path()};
      for (const auto& part : family.gguf) info.gguf.push_back(part.architecture);
      all.push_back(std::move(info));
    }
  }
  return all;
}

}  // namespace ttt::inline v2
