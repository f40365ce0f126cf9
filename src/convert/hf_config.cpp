#include "ttt/convert/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "convert/hf_config_impl.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

using detail::Found;
using detail::Json;
using detail::last_part;
using detail::look_up;
using detail::wrong_type;

namespace {

// Older spellings of the keys that decoders share. The first column is transformers' own name of today.
struct Spelling {
  std::string_view key;
  std::array<std::string_view, 7> others;
};
constexpr Spelling spelling_table[] = {
    {"hidden_size", {"n_embd", "d_model", "embedding_dim", "dim", "model_dim"}},
    {"num_hidden_layers", {"n_layer", "n_layers", "num_layers", "num_blocks"}},
    {"num_attention_heads", {"n_head", "n_heads", "num_heads", "attention_heads"}},
    {"num_key_value_heads",
     {"num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num", "num_query_groups"}},
    {"head_dim", {"kv_channels", "attention_head_dim", "d_kv"}},
    {"max_position_embeddings",
     {"n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length", "context_length",
      "model_max_length"}},
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
    {"n_group", {"num_expert_group"}},
    {"mamba_n_heads", {"mamba_num_heads", "n_mamba_heads", "num_heads"}},
    {"mamba_d_head", {"mamba_head_dim"}},
    {"mamba_d_state", {"ssm_state_size", "state_size"}},
    {"mamba_n_groups", {"mamba_ngroups", "n_groups"}},
    {"mamba_d_conv", {"conv_kernel"}},
    {"mamba_expand", {"expand"}},
    {"mamba_proj_bias", {"use_bias"}},
    {"mamba_conv_bias", {"use_conv_bias"}},
    {"n_shared_experts", {"num_shared_experts", "moe_num_shared_experts"}},
    {"first_k_dense_replace", {"num_dense_layers"}},
    {"routed_scaling_factor", {"route_scale", "router_scaling_factor"}},
    {"norm_topk_prob", {"moe_renormalize"}},
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
    "num_nextn_predict_layers",
    "mtp_*",
    "pretraining_tp",
    "residual_in_fp32",
    "use_mamba_kernels",
    "use_associative_scan",
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

std::string shown(const Json& value) { return printable(detail::dump_json(value), 60); }

}  // namespace

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

detail::Found detail::look_up(const Json& object, const std::string& prefix, std::string_view key) {
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

void detail::wrong_type(const Json& value, const std::string& where, const char* wanted) {
  throw Error(shown(value) + " is no " + wanted, where);
}

namespace {

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

}  // namespace ttt::inline v2
