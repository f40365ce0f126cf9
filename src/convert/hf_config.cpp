#include "ttt/convert/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <limits>
#include <mutex>
#include <set>
#include <span>

#include "convert/json.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

using detail::Json;

namespace {

// Older spellings of the keys that decoders share. The first column is transformers' own name of today.
struct Spelling {
  std::string_view key;
  std::array<std::string_view, 6> others;
};
constexpr Spelling spelling_table[] = {
    {"hidden_size", {"n_embd", "d_model", "embedding_dim", "dim", "model_dim"}},
    {"num_hidden_layers", {"n_layer", "n_layers", "num_layers", "num_blocks"}},
    {"num_attention_heads", {"n_head", "n_heads", "num_heads", "attention_heads"}},
    {"num_key_value_heads",
     {"num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num", "num_query_groups"}},
    {"head_dim", {"kv_channels", "attention_head_dim", "d_kv"}},
    {"max_position_embeddings",
     {"n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length", "context_length"}},
    {"intermediate_size", {"n_inner", "ffn_dim", "ffn_hidden_size", "d_ff", "dff", "inner_hidden_size"}},
    {"vocab_size", {"padded_vocab_size"}},
    {"hidden_act",
     {"hidden_activation", "activation_function", "mlp_hidden_act", "activation", "hidden_act_func"}},
    {"rms_norm_eps",
     {"layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "layernorm_epsilon"}},
    {"layer_norm_eps",
     {"layer_norm_epsilon", "norm_eps", "norm_epsilon", "layernorm_epsilon", "rms_norm_eps"}},
    {"sliding_window", {"attention_window_size", "window_size", "sliding_window_size"}},
    {"sliding_window_pattern", {"_sliding_window_pattern"}},
    {"layer_types", {"layers_block_type", "attention_layers"}},
    {"num_experts", {"num_local_experts", "n_routed_experts", "moe_num_experts"}},
    {"num_local_experts", {"num_experts", "n_routed_experts", "moe_num_experts"}},
    {"n_routed_experts", {"num_experts", "num_local_experts", "moe_num_experts"}},
    {"num_experts_per_tok", {"num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts"}},
    {"tie_word_embeddings", {"tie_embeddings"}},
};

// What says nothing about the mathematics of inference: training, bookkeeping, generation, tokens, other
// heads.
constexpr std::string_view ignored_keys[] = {
    "_*",
    "architectures",
    "model_type",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "auto_map",
    "transformers.js_config",
    "use_cache",
    "initializer_*",
    "init_std",
    "init_method*",
    "init_device",
    "*initializer_range",
    "*dropout*",
    "*_pdrop",
    "layerdrop",
    "*_token_id",
    "*_token_ids",
    "*_token_index",
    "*token_id_list",
    "pruned_heads",
    "id2label",
    "label2id",
    "problem_type",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "gradient_checkpointing",
    "use_return_dict",
    "chunk_size_feed_forward",
    "is_decoder",
    "finetuning_task",
    "task_specific_params",
    "summary_*",
    "classifier_*",
    "router_aux_loss_coef",
    "aux_loss_alpha",
    "*aux_loss_coef",
    "router_jitter_noise",
    "input_jitter_noise",
    "router_z_loss*",
    "seq_aux",
    "num_logits_to_keep",
    "model_max_length",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_return_sequences",
    "length_penalty",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "bad_words_ids",
    "forced_*",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "prefix",
    "tokenizer_class",
    "diversity_penalty",
    "num_beam_groups",
    "encoder_no_repeat_ngram_size",
    "cross_attention_hidden_size",
    "return_dict_in_generate",
    "output_scores",
    "quantization_config",
    "unsloth_*",
    "use_flash_attn*",
    "use_mem_efficient*",
    "attn_implementation",
    "mrope_section",
    "ep_size",
    "moe_layer_freq_comment",
    "use_mambapy",
    "use_mamba_kernels",
    "use_associative_scan",
    "mamba_ssm_cache_dtype",
    "bos_token",
    "eos_token",
    "pad_token",
    "rescale_prenorm_residual",
};

// Known switches whose usual value changes nothing; any other value is reported.
struct Harmless {
  std::string_view key, value;  // JSON
};
constexpr Harmless harmless_table[] = {
    {"pretraining_tp", "1"},
    {"is_encoder_decoder", "false"},
    {"add_cross_attention", "false"},
    {"tie_encoder_decoder", "false"},
    {"use_bidirectional_attention", "false"},
    {"use_parallel_embedding", "false"},
    {"slow_but_exact", "false"},
    {"scale_attn_weights", "true"},
    {"reorder_and_upcast_attn", "false"},
    {"scale_attention_softmax_in_fp32", "true"},
    {"attention_softmax_in_fp32", "true"},
    {"rope_scaling", "null"},
};

constexpr std::string_view text_parts[] = {"text_config", "llm_config", "language_config",
                                           "text_model_config", "thinker_config"};
constexpr std::string_view other_parts[] = {"vision_config", "audio_config", "vit_config", "vision_tower*",
                                            "talker_config", "projector_*",  "mm_*",       "image_*",
                                            "video_*",       "audio_*",      "vision_*",   "visual*"};

// '*' stands for any text.
bool matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::string_view last_part(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

std::string shown(const Json& value) { return printable(detail::dump_json(value), 60); }

}  // namespace

struct HfConfig::State {
  Json root = Json::object();
  std::string source = "config.json";
  std::mutex mutex;
  std::set<std::string, std::less<>> read;     // dotted paths
  std::set<std::string, std::less<>> ignored;  // patterns over dotted paths or their last part
};

struct HfConfig::Node {
  const Json* json = nullptr;
  std::string path;  // "" or "text_config."
};

HfConfig::HfConfig() : state_(std::make_shared<State>()) {
  node_ = std::make_shared<Node>(Node{&state_->root, ""});
}

HfConfig::HfConfig(std::shared_ptr<State> state, const Node& node)
    : state_(std::move(state)), node_(std::make_shared<Node>(node)) {}

HfConfig HfConfig::parse(std::string_view json, std::string source) {
  HfConfig config;
  config.state_->source = std::move(source);
  config.state_->root = detail::parse_json(json, config.state_->source);
  if (!config.state_->root.is_object()) throw Error("is no JSON object", config.state_->source);
  return config;
}

const std::string& HfConfig::source() const { return state_->source; }

std::vector<std::string_view> HfConfig::spellings(std::string_view key) {
  std::vector<std::string_view> all{key};
  for (const Spelling& s : spelling_table) {
    if (s.key != key) continue;
    for (std::string_view other : s.others) {
      if (!other.empty()) all.push_back(other);
    }
  }
  return all;
}

namespace {

struct Found {
  const Json* value = nullptr;  // null: absent
  std::string path;
};

// The value under a key, under its other spellings, or along a dotted path. null counts as absent.
Found look_up(const Json& object, const std::string& prefix, std::string_view key) {
  if (!object.is_object()) return {};
  for (std::string_view spelling : HfConfig::spellings(key)) {
    const auto it = object.find(spelling);
    if (it != object.end() && !it->is_null()) return {&*it, prefix + std::string(spelling)};
  }
  if (const auto dot = key.find('.'); dot != std::string_view::npos) {
    const auto it = object.find(key.substr(0, dot));
    if (it != object.end() && it->is_object())
      return look_up(*it, prefix + std::string(key.substr(0, dot)) + ".", key.substr(dot + 1));
  }
  return {};
}

[[noreturn]] void wrong_type(const Json& value, const std::string& where, const char* wanted) {
  throw Error(shown(value) + " is no " + wanted, where);
}

double number(const Json& value, const std::string& where) {
  if (value.is_number()) return value.get<double>();
  if (value.is_object() && value.size() == 1 && value.contains("__float__") &&
      value["__float__"].is_string()) {
    const auto& word = value["__float__"].get_ref<const std::string&>();
    if (word == "Infinity") return std::numeric_limits<double>::infinity();
    if (word == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
  }
  wrong_type(value, where, "number");
}

template <class T>
T convert(const Json& value, const std::string& where);

template <>
bool convert<bool>(const Json& value, const std::string& where) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer() && (value == 0 || value == 1)) return value == 1;
  wrong_type(value, where, "flag");
}

template <class T>
T whole(const Json& value, const std::string& where) {
  if (value.is_number_unsigned()) {
    const auto n = value.get<std::uint64_t>();
    if (n <= static_cast<std::uint64_t>(std::numeric_limits<T>::max())) return static_cast<T>(n);
  } else if (value.is_number_integer()) {
    const auto n = value.get<std::int64_t>();
    if (n >= std::numeric_limits<T>::min() && n <= std::numeric_limits<T>::max()) return static_cast<T>(n);
  } else if (value.is_number_float()) {
    const double n = value.get<double>();
    // 2^53: every whole double below is exact.
    if (n == std::floor(n) &&
        std::abs(n) <= std::min(9007199254740992.0, static_cast<double>(std::numeric_limits<T>::max())))
      return static_cast<T>(n);
  } else {
    wrong_type(value, where, "whole number");
  }
  wrong_type(value, where, "whole number in range");
}
template <>
int convert<int>(const Json& value, const std::string& where) {
  return whole<int>(value, where);
}
template <>
std::int64_t convert<std::int64_t>(const Json& value, const std::string& where) {
  return whole<std::int64_t>(value, where);
}
template <>
float convert<float>(const Json& value, const std::string& where) {
  const double n = number(value, where);
  if (std::isfinite(n) && std::abs(n) > static_cast<double>(std::numeric_limits<float>::max()))
    wrong_type(value, where, "number in range of a float");
  return static_cast<float>(n);
}
template <>
double convert<double>(const Json& value, const std::string& where) {
  return number(value, where);
}
template <>
std::string convert<std::string>(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  wrong_type(value, where, "text");
}

template <class T>
struct Converter {
  static T run(const Json& value, const std::string& where) { return convert<T>(value, where); }
};
template <class T>
struct Converter<std::vector<T>> {
  static std::vector<T> run(const Json& value, const std::string& where) {
    if (!value.is_array()) wrong_type(value, where, "list");
    std::vector<T> out;
    out.reserve(value.size());
    for (std::size_t i = 0; i < value.size(); ++i)
      out.push_back(convert<T>(value[i], "entry " + std::to_string(i) + " of " + where));
    return out;
  }
};

}  // namespace

template <class T>
std::optional<T> HfConfig::find(std::string_view key) const {
  const Found found = look_up(*node_->json, node_->path, key);
  {
    const std::lock_guard lock(state_->mutex);
    state_->read.insert(found.value ? found.path : node_->path + std::string(key));
  }
  if (!found.value) return std::nullopt;
  return Converter<T>::run(*found.value, found.path + " of " + state_->source);
}

template <class T>
T HfConfig::get(std::string_view key) const {
  if (std::optional<T> value = find<T>(key)) return *std::move(value);
  const std::vector<std::string> present = keys();
  const std::string near = nearest(key, present);
  throw Error("no key " + node_->path + std::string(key), state_->source,
              near.empty() ? "" : "the nearest key is " + printable(near));
}

#define TTT_CONFIG_TYPE(...)                                                               \
  template std::optional<__VA_ARGS__> HfConfig::find<__VA_ARGS__>(std::string_view) const; \
  template __VA_ARGS__ HfConfig::get<__VA_ARGS__>(std::string_view) const;
TTT_CONFIG_TYPE(bool)
TTT_CONFIG_TYPE(int)
TTT_CONFIG_TYPE(std::int64_t)
TTT_CONFIG_TYPE(float)
TTT_CONFIG_TYPE(double)
TTT_CONFIG_TYPE(std::string)
TTT_CONFIG_TYPE(std::vector<bool>)
TTT_CONFIG_TYPE(std::vector<int>)
TTT_CONFIG_TYPE(std::vector<float>)
TTT_CONFIG_TYPE(std::vector<std::string>)
#undef TTT_CONFIG_TYPE

bool HfConfig::has(std::string_view key) const {
  return look_up(*node_->json, node_->path, key).value != nullptr;
}

HfConfig HfConfig::child(std::string_view key) const {
  const Found found = look_up(*node_->json, node_->path, key);
  if (!found.value) throw Error("no key " + node_->path + std::string(key), state_->source);
  if (!found.value->is_object()) wrong_type(*found.value, found.path + " of " + state_->source, "object");
  return {state_, Node{found.value, found.path + "."}};
}

std::vector<std::string> HfConfig::keys() const {
  std::vector<std::string> names;
  for (const auto& item : node_->json->items()) names.push_back(item.key());
  return names;
}

std::string HfConfig::json(std::string_view key) const {
  if (key.empty()) return detail::dump_json(*node_->json);
  const Found found = look_up(*node_->json, node_->path, key);
  const std::lock_guard lock(state_->mutex);
  state_->read.insert(found.value ? found.path : node_->path + std::string(key));
  return found.value ? detail::dump_json(*found.value) : "null";
}

HfConfig HfConfig::text() const {
  for (std::string_view part : text_parts) {
    const Found found = look_up(*node_->json, node_->path, part);
    if (!found.value || !found.value->is_object()) continue;
    {
      const std::lock_guard lock(state_->mutex);
      for (std::string_view other : other_parts) state_->ignored.insert(node_->path + std::string(other));
      // What the outer config repeats for the wrapper; the decoder's own is inside.
      for (std::string_view shared : {"tie_word_embeddings", "vocab_size", "hidden_size"}) {
        if (found.value->contains(shared)) state_->ignored.insert(node_->path + std::string(shared));
      }
    }
    return HfConfig(state_, Node{found.value, found.path + "."}).text();
  }
  return *this;
}

void HfConfig::require(std::string_view key, bool value) const {
  const auto found = find<bool>(key);
  if (found && *found != value)
    throw Error(std::string(key) + " is " + (*found ? "true" : "false"), state_->source,
                "this family knows only the opposite");
}

void HfConfig::require(std::string_view key, int value) const {
  const auto found = find<int>(key);
  if (found && *found != value)
    throw Error(std::string(key) + " is " + std::to_string(*found), state_->source,
                "this family knows only " + std::to_string(value));
}

void HfConfig::require(std::string_view key, std::string_view value) const {
  const auto found = find<std::string>(key);
  if (found && *found != value)
    throw Error(std::string(key) + " is " + printable(*found), state_->source,
                "this family knows only " + std::string(value));
}

void HfConfig::ignore(std::initializer_list<std::string_view> patterns) const {
  const std::lock_guard lock(state_->mutex);
  for (std::string_view pattern : patterns) state_->ignored.insert(node_->path + std::string(pattern));
}

namespace {

struct Reporter {
  const std::set<std::string, std::less<>>&read, &ignored;
  std::vector<std::string> unread;

  bool touched_below(const std::string& prefix) const {
    const auto it = read.lower_bound(prefix);
    return it != read.end() && it->starts_with(prefix);
  }

  bool known(const std::string& path, const Json& value) const {
    const std::string_view key = last_part(path);
    for (std::string_view pattern : ignored_keys) {
      if (matches(pattern, key)) return true;
    }
    for (const std::string& pattern : ignored) {
      if (matches(pattern, path)) return true;
    }
    for (const Harmless& h : harmless_table) {
      if (h.key == key && value == Json::parse(h.value)) return true;
    }
    return false;
  }

  void walk(const Json& object, const std::string& prefix) {
    for (const auto& item : object.items()) {
      const std::string path = prefix + item.key();
      if (item.value().is_null() || read.contains(path) || known(path, item.value())) continue;
      if (item.value().is_object() && (item.value().empty() || touched_below(path + "."))) {
        walk(item.value(), path + ".");
      } else {
        unread.push_back(path);
      }
    }
  }
};

}  // namespace

std::vector<std::string> HfConfig::unread() const {
  const std::lock_guard lock(state_->mutex);
  Reporter reporter{state_->read, state_->ignored, {}};
  reporter.walk(state_->root, "");
  return std::move(reporter.unread);
}

std::string HfConfig::record_json() const {
  const std::lock_guard lock(state_->mutex);
  return detail::dump_json(Json{{"read", state_->read}, {"ignored", state_->ignored}});
}

void HfConfig::merge_record(std::string_view record) const {
  const Json json = detail::parse_json(record, "record of config keys");
  const std::lock_guard lock(state_->mutex);
  for (const auto& [key, set] : {std::pair{"read", &state_->read}, std::pair{"ignored", &state_->ignored}}) {
    if (!json.is_object() || !json.contains(key)) continue;
    for (const std::string& path :
         Converter<std::vector<std::string>>::run(json[key], "record of config keys"))
      set->insert(path);
  }
}

// --- what decoders share ---

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
  if (count <= 0 || size % count != 0)
    throw Error("hidden_size " + std::to_string(size) + " is no multiple of num_attention_heads " +
                    std::to_string(count),
                state_->source, "head_dim must say how wide a head is");
  return size / count;
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
  const Found pattern = look_up(*node_->json, node_->path, "sliding_window_pattern");
  if (pattern.value) {
    const std::lock_guard lock(state_->mutex);
    state_->read.insert(pattern.path);
  }
  if (const std::string type = layer_type(layer); !type.empty())
    return type.find("sliding") != std::string::npos || type == "local" || type == "local_attention";
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
    period = convert<int>(*pattern.value, where);
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
