// What decoders share: layers, heads, activations, windows, rotary embeddings.
#include <algorithm>
#include <cmath>
#include <utility>

#include "convert/hf_config_impl.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

using detail::Found;
using detail::Json;
using detail::last_part;
using detail::look_up;
using detail::wrong_type;

std::string HfConfig::architecture() const {
  const auto names = find<std::vector<std::string>>("architectures");
  return names && !names->empty() ? names->front() : "";
}

int HfConfig::layers() const {
  if (const auto count = find<int>("num_hidden_layers")) return *count;
  // Hybrids may say it by their list of layers alone.
  if (const auto types = find<std::vector<std::string>>("layer_types"))
    return static_cast<int>(types->size());
  return get<int>("num_hidden_layers");
}
int HfConfig::heads() const { return get<int>("num_attention_heads"); }

int HfConfig::kv_heads() const {
  if (get_or("multi_query", false) && !has("num_key_value_heads")) return 1;
  return get_or("num_key_value_heads", heads());
}

int HfConfig::head_dim() const {
  if (const auto explicit_dim = find<int>("head_dim")) return *explicit_dim;
  const int size = get<int>("hidden_size"), count = heads();
  if (count <= 0 || size < count)
    throw Error("hidden_size " + std::to_string(size) + " for num_attention_heads " + std::to_string(count),
                state_->source, "head_dim must say how wide a head is");
  return size / count;  // rounded down, as references do; the shapes of the weights tell whether it is so
}

float HfConfig::norm_eps(float fallback) const { return get_or("rms_norm_eps", fallback); }

Activation HfConfig::act(std::string_view name) {
  static constexpr std::pair<std::string_view, UnaryOp> known[] = {
      {"silu", UnaryOp::silu},
      {"swish", UnaryOp::silu},
      {"gelu", UnaryOp::gelu},
      {"gelu_python", UnaryOp::gelu},
      {"gelu_new", UnaryOp::gelu_tanh},
      {"gelu_fast", UnaryOp::gelu_tanh},
      {"gelu_accurate", UnaryOp::gelu_tanh},
      {"gelu_pytorch_tanh", UnaryOp::gelu_tanh},
      {"gelu_python_tanh", UnaryOp::gelu_tanh},
      {"gelu_tanh", UnaryOp::gelu_tanh},
      {"quick_gelu", UnaryOp::quick_gelu},
      {"relu", UnaryOp::relu},
      {"relu2", UnaryOp::relu2},
      {"relu_squared", UnaryOp::relu2},
      {"tanh", UnaryOp::tanh},
      {"sigmoid", UnaryOp::sigmoid},
      {"softplus", UnaryOp::softplus},
      {"elu", UnaryOp::elu},
      {"hardswish", UnaryOp::hardswish},
      {"xielu", UnaryOp::xielu},
      {"linear", UnaryOp::identity},
      {"identity", UnaryOp::identity},
  };
  std::string list;
  std::vector<std::string_view> names;
  for (const auto& [spelling, op] : known) {
    if (spelling == name) return {op};
    names.push_back(spelling);
    list += (list.empty() ? "" : ", ") + std::string(spelling);
  }
  throw Error("unknown activation " + printable(name), {}, "known are " + list);
}

Activation HfConfig::act() const {
  const std::string name = get_or("hidden_act", std::string("silu"));
  try {
    return act(name);
  } catch (const Error& e) { throw Error(e.problem(), state_->source, e.fix()); }
}

std::string HfConfig::layer_type(int layer) const {
  const auto types = find<std::vector<std::string>>("layer_types");
  if (!types) return "";
  if (layer < 0 || static_cast<std::size_t>(layer) >= types->size())
    throw Error("layer_types has " + std::to_string(types->size()) + " entries, layer " +
                    std::to_string(layer) + " is asked for",
                state_->source);
  return (*types)[static_cast<std::size_t>(layer)];
}

bool HfConfig::slides(int layer, int default_pattern) const {
  const std::optional<bool> used = find<bool>("use_sliding_window");
  const std::optional<int> first = find<int>("max_window_layers");
  const auto look_at = [&](std::string_view key) {
    const Found found = look_up(*node_->json, node_->path, key);
    const std::lock_guard lock(state_->mutex);
    if (found.value) state_->read.insert(found.path);
    return found;
  };
  const Found pattern = look_at("sliding_window_pattern");
  if (const std::string type = layer_type(layer); !type.empty()) {
    look_at("sliding_window");  // the types say which layers it is for, be it none
    return type.find("sliding") != std::string::npos || type == "local" || type == "local_attention";
  }
  if (used) return *used && find<int>("sliding_window") && layer >= first.value_or(0);
  if (!find<int>("sliding_window")) return false;
  int period = default_pattern;
  if (pattern.value) {
    const std::string where = pattern.path + " of " + state_->source;
    if (pattern.value->is_string()) {
      const auto& letters = pattern.value->get_ref<const std::string&>();
      if (letters.empty()) throw Error("is empty", where);
      return letters[static_cast<std::size_t>(layer) % letters.size()] == 'L';
    }
    period = *find<int>("sliding_window_pattern");
  }
  return period <= 0 || (layer + 1) % period != 0;
}

std::optional<int> HfConfig::window(int layer, int default_pattern) const {
  if (!slides(layer, default_pattern)) return std::nullopt;
  const auto width = find<int>("sliding_window");
  if (!width)
    throw Error("layer " + std::to_string(layer) + " slides, but there is no sliding_window", state_->source);
  return width;
}

// --- rotary embeddings ---

namespace {

bool by_layer_type(const Json& parameters) {
  // Flat dictionaries hold numbers and texts; nested ones hold dictionaries, or null for a type without
  // rotation.
  return parameters.is_object() && !parameters.empty() && !parameters.contains("rope_type") &&
         !parameters.contains("type") && !parameters.contains("rope_theta") &&
         std::ranges::any_of(parameters, [](const Json& v) { return v.is_object() || v.is_null(); });
}

}  // namespace

HfConfig HfConfig::rope_parameters(int layer) const {
  for (std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const Found found = look_up(*node_->json, node_->path, key);
    if (!found.value) continue;
    if (!found.value->is_object()) wrong_type(*found.value, found.path + " of " + state_->source, "object");
    if (!by_layer_type(*found.value)) return {state_, Node{found.value, found.path + "."}};
    const std::string type = layer_type(layer);
    const auto it = found.value->find(type);
    if (it == found.value->end())
      throw Error("no entry for layer type " + printable(type), found.path + " of " + state_->source,
                  "ask for an entry by its name");
    static const Json none = Json::object();
    return {state_, Node{it->is_object() ? &*it : &none, found.path + "." + type + "."}};
  }
  return HfConfig();
}

std::optional<RopeSpec> HfConfig::rope_named(std::string_view entry, float default_theta) const {
  const HfConfig all = child("rope_parameters");
  if (!all.has(entry)) {
    const std::vector<std::string> names = all.keys();
    if (std::ranges::find(names, entry) != names.end()) return std::nullopt;  // null
    throw Error("no entry " + std::string(entry), all.node_->path + " of " + state_->source);
  }
  const HfConfig parameters = all.child(entry);
  return rope_from(parameters, default_theta);
}

std::optional<RopeSpec> HfConfig::rope(int layer, float default_theta) const {
  // 0 marks a layer without rotation.
  const auto interval = find<int>("no_rope_layer_interval");
  if (const auto rotates = find<std::vector<bool>>("no_rope_layers"); rotates && !rotates->empty()) {
    if (layer < 0 || static_cast<std::size_t>(layer) >= rotates->size())
      throw Error("no_rope_layers has " + std::to_string(rotates->size()) + " entries", state_->source);
    if (!(*rotates)[static_cast<std::size_t>(layer)]) return std::nullopt;
  } else if (interval && *interval > 0 && (layer + 1) % *interval == 0) {
    return std::nullopt;
  }

  for (std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const Found found = look_up(*node_->json, node_->path, key);
    if (!found.value || !by_layer_type(*found.value)) continue;
    const auto entry = found.value->find(layer_type(layer));
    if (entry != found.value->end() && entry->is_null()) return std::nullopt;
    break;
  }
  const HfConfig parameters = rope_parameters(layer);
  const bool flat =
      parameters.node_->path.empty() ||
      last_part(parameters.node_->path.substr(0, parameters.node_->path.size() - 1)).starts_with("rope_");
  // Transformers 4: sliding layers have a base frequency of their own and no scaling.
  const auto local = find<float>("rope_local_base_freq");
  const auto other_local = local ? local : find<float>("local_rope_theta");
  if (flat && other_local && slides(layer)) {
    RopeSpec spec;
    spec.theta = *other_local;
    return spec;
  }
  return rope_from(parameters, default_theta);
}

// An odd share of a head, as the references rotate it: one dimension more, at frequencies that count one
// less.
static void rotate_odd(RopeSpec& spec) {
  const auto odd = static_cast<double>(spec.rotary_dim++);
  RopeScaling& s = spec.scaling;
  s.kind = RopeScalingKind::longrope;
  s.original_max_positions = 1;
  s.attention_factor = 1.0f;
  for (int i = 0; i < spec.rotary_dim; i += 2)
    s.short_factor.push_back(static_cast<float>(std::pow(spec.theta, i / odd - i / (odd + 1))));
  s.long_factor = s.short_factor;
}

std::optional<RopeSpec> HfConfig::rope_from(const HfConfig& p, float default_theta) const {
  RopeSpec spec;
  const auto outer_theta = find<float>("rope_theta");
  const auto old_theta = outer_theta ? outer_theta : find<float>("rotary_emb_base");
  const auto theta = p.find<float>("rope_theta");
  spec.theta = theta ? *theta : old_theta.value_or(default_theta);
  if (!(spec.theta > 0))
    throw Error("a rope_theta of " + std::to_string(spec.theta), p.node_->path + " of " + state_->source);

  const auto outer_share = find<float>("partial_rotary_factor");
  const auto old_share = find<float>("rotary_pct");
  const auto share = p.find<float>("partial_rotary_factor");
  const auto dims = find<int>("rotary_dim");
  if (const auto factor = share ? share : outer_share ? outer_share : old_share; factor && *factor != 1) {
    if (!(*factor > 0) || *factor > 1)
      throw Error("a partial_rotary_factor of " + std::to_string(*factor), state_->source);
    // As Python multiplies: in double.
    const double exact = share ? *p.find<double>("partial_rotary_factor")
                               : *find<double>(outer_share ? "partial_rotary_factor" : "rotary_pct");
    spec.rotary_dim = static_cast<int>(head_dim() * exact);
  } else if (dims && *dims != head_dim()) {
    spec.rotary_dim = *dims;
  }

  const auto new_kind = p.find<std::string>("rope_type");
  const auto old_kind = p.find<std::string>("type");
  const std::string kind = new_kind ? *new_kind : old_kind.value_or("default");
  const std::string where =
      (p.node_->path.empty() ? "" : p.node_->path.substr(0, p.node_->path.size() - 1) + " of ") +
      state_->source;
  const auto max_positions = find<int>("max_position_embeddings");
  const auto outer_original = find<int>("original_max_position_embeddings");
  const auto own_original = p.find<int>("original_max_position_embeddings");
  // Of the two, the outer one counts, as in the reference.
  const auto original = outer_original ? outer_original : own_original;
  RopeScaling& s = spec.scaling;
  const auto factor = p.find<float>("factor");
  const auto need_factor = [&] {
    if (!factor || !(*factor > 0)) throw Error("a rope of kind " + kind + " needs a factor above 0", where);
    return *factor;
  };
  const auto need_original = [&] {
    if (const auto n = original ? original : max_positions; n && *n > 0) return *n;
    throw Error("a rope of kind " + kind + " needs original_max_position_embeddings", where);
  };

  if (kind == "default" || kind == "mrope") {
    // mrope: with text alone all its position ids are equal.
    if (spec.rotary_dim % 2 != 0) rotate_odd(spec);
  } else if (kind == "linear") {
    s.kind = RopeScalingKind::linear;
    s.factor = need_factor();
  } else if (kind == "dynamic") {
    s.kind = RopeScalingKind::dynamic;
    s.factor = need_factor();
    spec.max_positions = own_original ? *own_original : get<int>("max_position_embeddings");
  } else if (kind == "llama3") {
    s.kind = RopeScalingKind::llama3;
    s.factor = need_factor();
    s.low_freq_factor = p.get<float>("low_freq_factor");
    s.high_freq_factor = p.get<float>("high_freq_factor");
    s.original_max_positions = need_original();
  } else if (kind == "yarn") {
    s.kind = RopeScalingKind::yarn;
    s.original_max_positions = need_original();
    if (factor) {
      s.factor = need_factor();
    } else {
      s.factor = static_cast<float>(get<double>("max_position_embeddings") / s.original_max_positions);
    }
    s.beta_fast = p.get_or("beta_fast", s.beta_fast);
    s.beta_slow = p.get_or("beta_slow", s.beta_slow);
    s.truncate = p.get_or("truncate", true);
    s.attention_factor = p.find<float>("attention_factor");
    s.mscale = p.get_or("mscale", 0.0f);
    s.mscale_all_dim = p.get_or("mscale_all_dim", 0.0f);
  } else if (kind == "longrope" || kind == "su") {
    s.kind = RopeScalingKind::longrope;
    s.original_max_positions = need_original();
    s.short_factor = p.get<std::vector<float>>("short_factor");
    s.long_factor = p.get<std::vector<float>>("long_factor");
    const std::size_t rotary = static_cast<std::size_t>(spec.rotary_dim ? spec.rotary_dim : head_dim());
    for (const std::vector<float>* list : {&s.short_factor, &s.long_factor}) {
      if (list->size() != rotary / 2)
        throw Error("short_factor and long_factor need " + std::to_string(rotary / 2) + " entries, one has " +
                        std::to_string(list->size()),
                    where);
    }
    s.factor = factor ? need_factor()
                      : static_cast<float>(get<double>("max_position_embeddings") / s.original_max_positions);
    s.attention_factor = p.find<float>("attention_factor");
  } else {
    throw Error("unknown kind of rope " + printable(kind), where,
                "known are default, linear, dynamic, llama3, yarn and longrope");
  }
  return spec;
}

}  // namespace ttt::inline v2
