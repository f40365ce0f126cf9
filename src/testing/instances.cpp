#include "ttt/testing/instances.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "model/blocks.h"

namespace ttt::inline v2::testing {

namespace {

using Json = nlohmann::ordered_json;

// Numbers that enter an operation and decide nothing about it.
constexpr std::array values{"eps",           "norm_eps",  "theta",  "renormalize_eps",
                            "max_positions", "entries",   "offset", "layer",
                            "layer_index",   "up_offset", "length"};
// Sizes that every module of its kind has; any other integer is a knob too.
constexpr std::array sizes{"heads",   "kv_heads",  "head_dim",     "hidden",      "experts",
                           "top_k",   "inner",     "state",        "kernel",      "dt_rank",
                           "key_dim", "value_dim", "key_heads",    "conv_kernel", "dim",
                           "vocab",   "width",     "kv_lora_rank", "nope_dim",    "rope_dim"};

// The matrix that a backend multiplies by where several weights stand side by side (each module's resolve()).
struct Fused {
  const char *mixer, *weight, *matrix;
};
constexpr Fused fused[] = {
    {"attention", "q", "qkv"},
    {"attention", "k", "qkv"},
    {"attention", "v", "qkv"},
    {"short_conv", "b", "in"},
    {"short_conv", "c", "in"},
    {"short_conv", "x", "in"},
    {"selective_ssm", "x", "in"},
    {"selective_ssm", "z", "in"},
    {"selective_ssm", "dt_in", "ssm"},
    {"selective_ssm", "b", "ssm"},
    {"selective_ssm", "c", "ssm"},
    {"ssd", "z", "in"},
    {"ssd", "x", "in"},
    {"ssd", "b", "in"},
    {"ssd", "c", "in"},
    {"ssd", "dt", "in"},
    {"gated_delta_net", "q", "qkvz"},
    {"gated_delta_net", "k", "qkvz"},
    {"gated_delta_net", "v", "qkvz"},
    {"gated_delta_net", "z", "qkvz"},
    {"gated_delta_net", "b", "ba"},
    {"gated_delta_net", "a", "ba"},
};

template <class List>
bool contains(const List& list, std::string_view name) {
  return std::ranges::find(list, name) != std::end(list);
}

// Collects knobs and sizes of one module from its spec as JSON, where fields at their default are left out.
struct Parts {
  std::vector<std::string> knobs{};
  std::map<std::string, std::int64_t> shape{};

  void add(const Json& fields, const std::string& prefix = {}) {
    for (const auto& [name, value] : fields.items()) {
      if (contains(values, name)) continue;
      const std::string full = prefix + name;
      if (value.is_number_integer()) {
        if (!name.ends_with("_of_layer")) shape[full] = value.get<std::int64_t>();
        if (!contains(sizes, name)) knobs.push_back(full);
      } else if (value.is_string()) {
        knobs.push_back(full + "=" + value.get<std::string>());
      } else if (value.is_boolean()) {
        knobs.push_back(value.get<bool>() ? full : "no_" + full);
      } else if (value.is_object()) {
        if (value.contains("op") && value.at("op").is_string()) {
          knobs.push_back(full + "=" + value.at("op").get<std::string>());
        } else if (value.contains("kind")) {
          knobs.push_back(full + "=" + value.at("kind").get<std::string>());
        } else {
          knobs.push_back(full);
          add(value, full + ".");
        }
      } else if (value.is_number_float()) {
        knobs.push_back(full);
      }
    }
  }
};

class Network {
 public:
  Network(const ModelSpec& spec, const Target& target)
      : spec_(spec),
        target_(target),
        json_(Json::parse(to_json(spec, -1))),
        sku_(std::string(target.sku.name) +
             (target.mesh == target.sku.mesh ? "" : ":" + to_string(target.mesh))) {
    target_.layers = static_cast<int>(spec.layers.size());
    for (WeightSlot& slot : weight_slots(spec)) {
      if (slot.role != WeightRole::vector) matrices_.push_back(std::move(slot));
    }
  }

  // In prefill.
  const std::vector<ModuleInstance>& instances() {
    embedding();
    const Json none = Json::object();
    for (int i = 0; i < static_cast<int>(spec_.layers.size()); ++i) {
      const Json& layer = json_.at("layers").at(static_cast<std::size_t>(i));
      add_layer(i, layer);
    }
    if (spec_.final_norm) norm("norm", -1, json_.value("norm", none), spec_.dim);
    head();
    return found_;
  }
  // Each module's path, and its place in instances().
  const std::map<std::string, std::size_t>& paths() const { return paths_; }

 private:
  void embedding() {
    Parts parts{.shape = {{"vocab", spec_.vocab}, {"dim", spec_.embed_width()}}};
    if (spec_.embed_scale != 1) parts.knobs.push_back("scale");
    if (spec_.positions)
      parts.knobs.push_back("positions=" + json_.at("positions").value("kind", std::string("learned")));
    push("embedding", "embed", -1, std::move(parts), {{"weights", target_.weight_dtype("embed")}});
    if (spec_.embed_dim > 0) linear("embed_in", spec_.embed_dim, spec_.dim);
    if (spec_.embed_norm) norm("embed_norm", -1, json_.at("embed_norm"), spec_.dim);
  }

  void head() {
    if (spec_.embed_dim > 0) linear("embed_out", spec_.dim, spec_.embed_dim);
    Parts parts{.shape = {{"vocab", spec_.vocab}, {"dim", spec_.embed_width()}}};
    if (spec_.lm_head_bias) parts.knobs.push_back("bias");
    if (spec_.logit_scale != 1) parts.knobs.push_back("scale");
    if (spec_.logit_softcap) parts.knobs.push_back("softcap");
    push("lm_head", "lm_head", -1, std::move(parts), {{"weights", target_.weight_dtype("lm_head")}});
  }

  void linear(const char* path, std::int64_t in, std::int64_t out) {
    push("linear", path, -1, {.shape = {{"in", in}, {"out", out}}},
         {{"weights", target_.weight_dtype(path)}});
  }

  void add_layer(int i, const Json& layer) {
    const std::string path = "layers." + std::to_string(i);
    if (layer.contains("block")) return custom(path, i, layer.at("block"));
    // The arrangement of the parts around the residual stream is a kind, too.
    const std::string residual = layer.value("residual", std::string("pre_norm"));
    const std::string mixer = layer.at("mixer").begin().key(), ffn = layer.at("ffn").begin().key();
    Parts block{.knobs = {residual}, .shape = {{"dim", spec_.dim}}};
    if (mixer == "absent") block.knobs.push_back("no_mixer");
    if (ffn == "absent") block.knobs.push_back("no_ffn");
    if (layer.contains("residual_scale")) block.knobs.push_back("scale");
    push("block", path, i, std::move(block), {});
    const BlockNorms norms = block_norms(spec_.layers[static_cast<std::size_t>(i)]);
    for (const auto& [there, name] : {std::pair{norms.attn_norm, ".attn_norm"},
                                      {norms.attn_post_norm, ".attn_post_norm"},
                                      {norms.ffn_norm, ".ffn_norm"},
                                      {norms.ffn_post_norm, ".ffn_post_norm"}}) {
      if (there) norm(path + name, i, json_.value("norm", Json::object()), spec_.dim);
    }
    module(path + ".attn", i, mixer, layer.at("mixer").begin().value());
    module(path + ".ffn", i, ffn, layer.at("ffn").begin().value());
  }

  void module(const std::string& path, int layer, const std::string& kind, Json fields) {
    if (kind == "absent") return;
    if (kind == "custom") return custom(path, layer, fields);
    const std::int64_t head_dim = fields.value("head_dim", fields.value("rope_dim", 0));
    // Modules inside: kinds of their own.
    const auto split_norm = [&](const char* name, std::int64_t width) {
      if (!fields.contains(name)) return;
      norm(path + "." + name, layer, fields.at(name), width);
      if (fields.at(name).is_object()) fields[name] = true;
    };
    if (const auto rope = fields.find("rope"); rope != fields.end()) {
      Parts parts{.shape = {{"head_dim", head_dim}}};
      parts.add(*rope);
      push("rope", path + ".rope", layer, std::move(parts), {});
      *rope = true;
    }
    if (fields.contains("qk_norm")) {
      const std::string where = fields.at("qk_norm").get<std::string>();
      norm(path + ".q_norm", layer, fields.value("qk_norm_spec", Json::object()),
           where == "full_width" ? head_dim * fields.value("heads", 1) : head_dim);
      fields.erase("qk_norm_spec");
    }
    split_norm("v_norm", head_dim);
    split_norm("ssm_norm", fields.value("state", SelectiveSsmSpec{}.state));
    if (const auto router = fields.find("router"); router != fields.end() || kind == "moe") {
      Parts parts{.shape = {{"dim", spec_.dim},
                            {"experts", fields.value("experts", 0)},
                            {"top_k", fields.value("top_k", 0)}}};
      if (router != fields.end()) parts.add(*router);
      push("router", path + ".router", layer, std::move(parts), matrices(path + ".router", kind));
      fields.erase("router");
    }
    if (const auto shared = fields.find("shared"); shared != fields.end()) {
      module(path + ".shared", layer, "mlp", *shared);
      *shared = true;
    }
    Parts parts{.shape = {{"dim", spec_.dim}}};
    parts.add(fields);
    auto dtypes = matrices(path, kind);
    if (kind.find("attention") != std::string::npos) dtypes.emplace_back("kv", target_.kv_dtype(path));
    push(kind, path, layer, std::move(parts), std::move(dtypes));
  }

  void custom(const std::string& path, int layer, const Json& spec) {
    Parts parts{.shape = {{"dim", spec_.dim}}};
    parts.add(Json::parse(spec.value("parameters", std::string("{}")), nullptr, false));
    auto dtypes = matrices(path, "custom");
    if (spec.contains("caches")) {
      parts.knobs.push_back("cache");
      dtypes.emplace_back("kv", target_.kv_dtype(path));
    }
    for (const WeightSlot& slot : matrices_) {
      if (slot.name.starts_with(path + ".")) parts.shape["weights"] += slot.rows * slot.cols;
    }
    push("custom." + spec.at("name").get<std::string>(), path, layer, std::move(parts), std::move(dtypes));
  }

  void norm(const std::string& path, int layer, const Json& fields, std::int64_t width) {
    Parts parts{.shape = {{"width", width}}};
    if (fields.is_object()) parts.add(fields);
    push("norm", path, layer, std::move(parts), {});
  }

  // The formats of the matrices that stand right under a module.
  std::vector<std::pair<std::string, DataType>> matrices(const std::string& path, std::string_view kind) {
    std::map<std::string, DataType> formats;
    for (const WeightSlot& slot : matrices_) {
      if (!slot.name.starts_with(path) || (slot.name.size() > path.size() && slot.name[path.size()] != '.'))
        continue;
      std::string part = slot.name.size() > path.size() ? slot.name.substr(path.size() + 1) : "weights";
      if (part.starts_with("shared.") || part == "router") continue;  // modules of their own
      for (const Fused& f : fused) {
        if (kind == f.mixer && part == f.weight) {
          part = f.matrix;
          break;
        }
      }
      formats[part] = target_.weight_dtype(part == "weights" ? path : path + "." + part);
    }
    return {formats.begin(), formats.end()};
  }

  void push(std::string module, const std::string& path, int layer, Parts parts,
            std::vector<std::pair<std::string, DataType>> dtypes) {
    std::ranges::sort(parts.knobs);
    dtypes.emplace_back("activations", target_.activation_dtype());
    std::ranges::sort(dtypes);
    ModuleInstance instance{.kind = {std::move(module), std::move(parts.knobs)},
                            .shape = {parts.shape.begin(), parts.shape.end()},
                            .dtypes = std::move(dtypes),
                            .mode = Mode::prefill,
                            .sku = sku_,
                            .path = path,
                            .layer = layer};
    const auto [at, added] = index_.try_emplace(instance.key(), found_.size());
    if (added) found_.push_back(std::move(instance));
    ++found_[at->second].count;
    paths_.emplace(path, at->second);
  }

  const ModelSpec& spec_;
  Target target_;
  Json json_;
  std::string sku_;
  std::vector<WeightSlot> matrices_;
  std::vector<ModuleInstance> found_;
  std::map<std::string, std::size_t> index_, paths_;
};

}  // namespace

std::string ModuleKind::key() const {
  std::string text = module;
  for (const std::string& knob : knobs) text += (&knob == &knobs.front() ? "[" : ",") + knob;
  return knobs.empty() ? text : text + "]";
}

std::string ModuleInstance::key() const {
  std::string text = kind.key();
  const auto list = [&](const auto& pairs, auto show) {
    text += "/";
    for (const auto& pair : pairs)
      text += (&pair == &pairs.front() ? "" : ",") + pair.first + "=" + show(pair.second);
  };
  list(shape, [](std::int64_t size) { return std::to_string(size); });
  list(dtypes, [](DataType dtype) { return std::string(name(dtype)); });
  return text + (mode == Mode::prefill ? "/prefill/" : "/decode/") + sku;
}

std::vector<ModuleInstance> module_instances(const ModelSpec& spec, const Target& target) {
  std::vector<ModuleInstance> all = Network(spec, target).instances();
  const std::size_t distinct = all.size();
  for (std::size_t i = 0; i < distinct; ++i) {
    all.push_back(all[i]);
    all.back().mode = Mode::decode;
  }
  return all;
}

std::map<std::string, ModuleInstance, std::less<>> instances_by_path(const ModelSpec& spec,
                                                                     const Target& target) {
  Network network(spec, target);
  const std::vector<ModuleInstance>& instances = network.instances();
  std::map<std::string, ModuleInstance, std::less<>> by_path;
  for (const auto& [path, index] : network.paths()) by_path.emplace(path, instances[index]);
  return by_path;
}

}  // namespace ttt::inline v2::testing
