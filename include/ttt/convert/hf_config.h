// config.json of a Hugging Face checkpoint, typed, with every read recorded: what nobody read is reported,
// because most ports go wrong by silence there. Depends on text only, so that model libraries link it.
//
//   int layers = c.get<int>("num_hidden_layers");                 // or n_layer, num_layers, ...: older
//   spellings are found too float cap = c.get_or("final_logit_softcapping", 0.0f); std::optional<RopeSpec>
//   rope = c.rope(layer);
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/modules/spec.h"

namespace ttt::inline v2 {

// A JSON object of the file, or one nested in it. A cheap value: copies and children share the text and the
// record of what was read.
//
// Keys: "a.b" is key b of object a (a key that contains a dot is tried as it stands first). The usual keys of
// a decoder are found under their older spellings too: hidden_size as n_embd, d_model; num_hidden_layers as
// n_layer, num_layers; and so on (see spellings()). null is the same as absent.
class HfConfig {
 public:
  // Error with the position when `json` is not an object. NaN and Infinity are accepted, as Python writes
  // them. `source` names the file in messages.
  static HfConfig parse(std::string_view json, std::string source = "config.json");
  HfConfig();  // {}

  // T: bool, int, std::int64_t, float, double, std::string, or a std::vector of bool, int, float,
  // std::string. A whole number may be written as 2.0, a flag as 0 or 1. Error: the value has another type or
  // does not fit T.
  template <class T>
  std::optional<T> find(std::string_view key) const;  // unset: absent or null
  template <class T>
  T get(std::string_view key)
      const;  // Error when absent: names the key, the file and the nearest key that is there
  template <class T>
  T get_or(std::string_view key, T fallback) const;

  bool has(std::string_view key) const;        // there and not null; does not count as read
  HfConfig child(std::string_view key) const;  // the object under `key`; Error when absent or no object
  std::vector<std::string> keys() const;       // of this object, in the file's order
  std::string json(std::string_view key = {})
      const;  // the value under `key` (or this object) as text, "null" when absent; counts as read
  const std::string& source() const;

  // Where a multimodal checkpoint keeps its decoder (text_config, llm_config, ...), else *this. The parts
  // that are not the decoder's (vision_config, ...) count as read.
  HfConfig text() const;

  // The family only does one thing here: Error when the checkpoint says another value. Absent is fine.
  void require(std::string_view key, bool value) const;
  void require(std::string_view key, int value) const;
  void require(std::string_view key, std::string_view value) const;
  void require(std::string_view key, const char* value) const { require(key, std::string_view(value)); }

  // Keys that do not matter for what the network computes; '*' stands for anything.
  void ignore(std::initializer_list<std::string_view> patterns) const;
  // Dotted paths of the keys that were never read and are on no ignore list, in the file's order. Looks at
  // the whole file. An object of which nothing was read is listed as one key. null counts as read.
  std::vector<std::string> unread() const;
  // What crosses to another copy of the same config: {"read": [...], "ignored": [...]}, dotted paths and
  // patterns.
  std::string record_json() const;
  void merge_record(std::string_view record_json) const;

  // --- what decoders share ---
  std::string architecture() const;  // the first of "architectures", else "" (reads root and text_config)
  int layers() const;                // num_hidden_layers; else as many as layer_types has
  int heads() const;                 // num_attention_heads
  int kv_heads() const;              // num_key_value_heads; 1 when multi_query; heads() when absent
  int head_dim() const;  // head_dim, kv_channels; else hidden_size / num_attention_heads, rounded down
  float norm_eps(
      float fallback = 1e-5f) const;  // rms_norm_eps, layer_norm_eps, layer_norm_epsilon, norm_eps, ...
  Activation act() const;  // hidden_act and its other spellings; SiLU when absent; Error names the known ones
  static Activation act(std::string_view name);  // "gelu_new" -> gelu_tanh

  // "" when the checkpoint has no list of layer types. Error when the layer is outside of it.
  std::string layer_type(int layer) const;
  // Does the layer attend through a sliding window? layer_types; use_sliding_window with max_window_layers;
  // sliding_window_pattern (a number: every n-th layer is global; or letters, L for local); else
  // `default_pattern`, 0: all do where sliding_window is set.
  bool slides(int layer, int default_pattern = 0) const;
  // sliding_window where slides(layer).
  std::optional<int> window(int layer, int default_pattern = 0) const;

  // Rotary embedding of a layer; unset where the layer has none (no_rope_layers, a null entry for its type).
  // Reads transformers 4's keys (rope_theta, rope_scaling, partial_rotary_factor, rotary_pct, rotary_dim,
  // rope_local_base_freq for sliding layers) and 5's (rope_parameters, flat or by layer type). A config that
  // says nothing at all means theta 10000, as the earliest ones did. rotary_dim is a share of head_dim().
  // Error for a kind that RopeSpec can not express: read rope_parameters() then.
  std::optional<RopeSpec> rope(int layer = 0, float default_theta = 10000) const;
  // The same under an entry of rope_parameters by name ("main", "compress").
  std::optional<RopeSpec> rope_named(std::string_view entry, float default_theta = 10000) const;
  // The raw dictionary that rope(layer) reads; empty when there is none.
  HfConfig rope_parameters(int layer = 0) const;

  // Every spelling under which a key is looked up, itself first.
  static std::vector<std::string_view> spellings(std::string_view key);

 private:
  struct State;
  struct Node;
  HfConfig(std::shared_ptr<State> state, const Node& node);
  std::optional<RopeSpec> rope_from(const HfConfig& parameters, float default_theta) const;

  std::shared_ptr<State> state_;
  std::shared_ptr<const Node> node_;
};

template <class T>
T HfConfig::get_or(std::string_view key, T fallback) const {
  std::optional<T> value = find<T>(key);
  return value ? *std::move(value) : std::move(fallback);
}

}  // namespace ttt::inline v2
