// Specs as JSON. One fields() per struct serves writing, reading and the check for unknown keys; a field at
// its default is not written.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "ttt/model/spec.h"

namespace ttt::inline v2 {

namespace {

using Json = nlohmann::ordered_json;

template <class E>
struct EnumNames;
template <class E>
using NameTable = std::vector<std::pair<E, const char*>>;

template <>
struct EnumNames<NormKind> {
  static inline const NameTable<NormKind> table{{NormKind::rms, "rms"}, {NormKind::layer, "layer"}};
};
template <>
struct EnumNames<RopeScalingKind> {
  using K = RopeScalingKind;
  static inline const NameTable<K> table{{K::none, "none"},       {K::linear, "linear"},
                                         {K::dynamic, "dynamic"}, {K::llama3, "llama3"},
                                         {K::yarn, "yarn"},       {K::longrope, "longrope"}};
};
template <>
struct EnumNames<QkNorm> {
  static inline const NameTable<QkNorm> table{{QkNorm::none, "none"},
                                              {QkNorm::per_head, "per_head"},
                                              {QkNorm::per_head_weights, "per_head_weights"},
                                              {QkNorm::full_width, "full_width"}};
};
template <>
struct EnumNames<SsmNorm> {
  static inline const NameTable<SsmNorm> table{
      {SsmNorm::after_gate, "after_gate"}, {SsmNorm::before_gate, "before_gate"}, {SsmNorm::none, "none"}};
};
template <>
struct EnumNames<RouterScore> {
  static inline const NameTable<RouterScore> table{{RouterScore::softmax, "softmax"},
                                                   {RouterScore::sigmoid, "sigmoid"}};
};
template <>
struct EnumNames<RouterOrder> {
  using K = RouterOrder;
  static inline const NameTable<K> table{{K::score_then_top_k, "score_then_top_k"},
                                         {K::top_k_then_score, "top_k_then_score"}};
};
template <>
struct EnumNames<Residual> {
  using K = Residual;
  static inline const NameTable<K> table{{K::pre_norm, "pre_norm"}, {K::post_norm, "post_norm"},
                                         {K::sandwich, "sandwich"}, {K::norm_after_add, "norm_after_add"},
                                         {K::parallel, "parallel"}, {K::parallel_shared, "parallel_shared"}};
};
template <>
struct EnumNames<PositionKind> {
  static inline const NameTable<PositionKind> table{{PositionKind::learned, "learned"},
                                                    {PositionKind::sinusoidal, "sinusoidal"},
                                                    {PositionKind::sinusoidal_to_end, "sinusoidal_to_end"}};
};
template <>
struct EnumNames<WeightRole> {
  using K = WeightRole;
  static inline const NameTable<K> table{
      {K::linear, "linear"}, {K::experts, "experts"}, {K::embedding, "embedding"}, {K::vector, "vector"}};
};
template <>
struct EnumNames<UnaryOp> {
  static NameTable<UnaryOp> make() {
    NameTable<UnaryOp> names;
    for (int i = 0; i <= static_cast<int>(UnaryOp::expm1); ++i) {
      const auto op = static_cast<UnaryOp>(i);
      names.emplace_back(op, name(op).data());
    }
    return names;
  }
  static inline const NameTable<UnaryOp> table = make();
};

// The fields of each struct, by the name they have in C++.
template <class F>
void fields(NormSpec& s, F&& f) {
  f("kind", s.kind), f("eps", s.eps), f("weight", s.weight), f("bias", s.bias);
}
template <class F>
void fields(RopeScaling& s, F&& f) {
  f("kind", s.kind), f("factor", s.factor), f("original_max_positions", s.original_max_positions);
  f("low_freq_factor", s.low_freq_factor), f("high_freq_factor", s.high_freq_factor),
      f("beta_fast", s.beta_fast);
  f("beta_slow", s.beta_slow), f("attention_factor", s.attention_factor), f("mscale", s.mscale),
      f("mscale_all_dim", s.mscale_all_dim);
  f("truncate", s.truncate), f("short_factor", s.short_factor), f("long_factor", s.long_factor);
}
template <class F>
void fields(RopeSpec& s, F&& f) {
  f("theta", s.theta), f("rotary_dim", s.rotary_dim), f("interleaved", s.interleaved),
      f("max_positions", s.max_positions);
  f("scaling", s.scaling);
}
template <class F>
void fields(AttentionGateSpec& s, F&& f) {
  f("per_head", s.per_head), f("act", s.act), f("bias", s.bias);
}
template <class F>
void fields(QueryTemperature& s, F&& f) {
  f("scale", s.scale), f("length", s.length), f("offset", s.offset);
}
template <class F>
void fields(GluLimit& s, F&& f) {
  f("limit", s.limit), f("up_offset", s.up_offset);
}
template <class F>
void fields(AttentionSpec& s, F&& f) {
  f("heads", s.heads), f("kv_heads", s.kv_heads), f("head_dim", s.head_dim), f("v_head_dim", s.v_head_dim),
      f("qkv_bias", s.qkv_bias), f("out_bias", s.out_bias);
  f("qk_norm", s.qk_norm), f("qk_norm_spec", s.qk_norm_spec), f("qk_norm_after_rope", s.qk_norm_after_rope),
      f("v_norm", s.v_norm), f("rope", s.rope);
  f("window", s.window), f("chunk", s.chunk), f("scale", s.scale), f("softcap", s.softcap),
      f("clip_qkv", s.clip_qkv);
  f("sinks", s.sinks), f("alibi", s.alibi), f("gate", s.gate), f("temperature", s.temperature),
      f("kv_of_layer", s.kv_of_layer);
}
template <class F>
void fields(IndexerSpec& s, F&& f) {
  f("heads", s.heads), f("head_dim", s.head_dim), f("top_k", s.top_k), f("rope", s.rope),
      f("norm_eps", s.norm_eps);
}
template <class F>
void fields(LatentAttentionSpec& s, F&& f) {
  f("heads", s.heads), f("q_lora_rank", s.q_lora_rank), f("kv_lora_rank", s.kv_lora_rank),
      f("nope_dim", s.nope_dim), f("rope_dim", s.rope_dim), f("v_head_dim", s.v_head_dim);
  f("norm_eps", s.norm_eps), f("bias", s.bias), f("rope", s.rope), f("window", s.window), f("scale", s.scale),
      f("sinks", s.sinks);
  f("gate", s.gate), f("indexer", s.indexer), f("selection_of_layer", s.selection_of_layer);
}
template <class F>
void fields(KvCacheSpec& s, F&& f) {
  f("kv_heads", s.kv_heads), f("head_dim", s.head_dim), f("v_head_dim", s.v_head_dim),
      f("indexer_dim", s.indexer_dim), f("window", s.window);
}
template <class F>
void fields(Activation& s, F&& f) {
  f("op", s.op), f("a", s.a), f("b", s.b);
}
template <class F>
void fields(MlpSpec& s, F&& f) {
  f("hidden", s.hidden), f("act", s.act), f("gated", s.gated), f("bias", s.bias), f("limit", s.limit);
}
template <class F>
void fields(RouterSpec& s, F&& f) {
  f("score", s.score), f("order", s.order), f("renormalize", s.renormalize),
      f("renormalize_eps", s.renormalize_eps), f("scale", s.scale);
  f("bias", s.bias), f("correction_bias", s.correction_bias), f("groups", s.groups),
      f("top_groups", s.top_groups);
  f("group_score_top", s.group_score_top);
}
template <class F>
void fields(MoeSpec& s, F&& f) {
  f("experts", s.experts), f("top_k", s.top_k), f("hidden", s.hidden), f("router", s.router), f("act", s.act),
      f("gated", s.gated);
  f("bias", s.bias), f("limit", s.limit), f("shared", s.shared), f("shared_gate", s.shared_gate);
}
template <class F>
void fields(ShortConvSpec& s, F&& f) {
  f("kernel", s.kernel), f("bias", s.bias);
}
template <class F>
void fields(SelectiveSsmSpec& s, F&& f) {
  f("inner", s.inner), f("state", s.state), f("dt_rank", s.dt_rank), f("conv_kernel", s.conv_kernel),
      f("bias", s.bias), f("conv_bias", s.conv_bias), f("act", s.act), f("ssm_norm", s.ssm_norm);
}
template <class F>
void fields(SsdSpec& s, F&& f) {
  f("heads", s.heads), f("head_dim", s.head_dim), f("state", s.state), f("groups", s.groups),
      f("conv_kernel", s.conv_kernel), f("bias", s.bias), f("conv_bias", s.conv_bias), f("act", s.act);
  f("norm", s.norm), f("norm_eps", s.norm_eps), f("dt_min", s.dt_min), f("dt_max", s.dt_max);
}
template <class F>
void fields(GatedDeltaNetSpec& s, F&& f) {
  f("heads", s.heads), f("key_heads", s.key_heads), f("key_dim", s.key_dim), f("value_dim", s.value_dim),
      f("conv_kernel", s.conv_kernel), f("act", s.act), f("decay_per_channel", s.decay_per_channel);
  f("decay_bound", s.decay_bound), f("beta_scale", s.beta_scale), f("gate_act", s.gate_act),
      f("norm_eps", s.norm_eps);
}
template <class F>
void fields(Absent&, F&&) {}
template <class F>
void fields(WeightSlot& s, F&& f) {
  f("name", s.name), f("role", s.role), f("rows", s.rows), f("cols", s.cols), f("experts", s.experts),
      f("shard_axis", s.shard_axis);
  f("optional", s.optional);
}
template <class F>
void fields(StateSlot& s, F&& f) {
  f("name", s.name), f("elements", s.elements);
}
template <class F>
void fields(CustomSpec& s, F&& f) {
  f("name", s.name), f("parameters", s.parameters), f("weights", s.weights), f("state", s.state),
      f("caches", s.caches);
}
template <class F>
void fields(LayerSpec& s, F&& f) {
  f("mixer", s.mixer), f("ffn", s.ffn), f("residual", s.residual), f("residual_scale", s.residual_scale),
      f("block", s.block);
}
template <class F>
void fields(PositionSpec& s, F&& f) {
  f("kind", s.kind), f("entries", s.entries), f("offset", s.offset);
}
template <class F>
void fields(ModelSpec& s, F&& f) {
  f("vocab", s.vocab), f("dim", s.dim), f("embed_dim", s.embed_dim), f("max_positions", s.max_positions),
      f("norm", s.norm), f("embed_norm", s.embed_norm);
  f("positions", s.positions), f("final_norm", s.final_norm), f("tied_embeddings", s.tied_embeddings),
      f("lm_head_bias", s.lm_head_bias);
  f("embed_scale", s.embed_scale), f("logit_scale", s.logit_scale), f("logit_softcap", s.logit_softcap),
      f("layers", s.layers);
}

// The alternatives of a variant, by the single key that holds one.
template <class T>
constexpr const char* kind_name();
template <>
constexpr const char* kind_name<AttentionSpec>() {
  return "attention";
}
template <>
constexpr const char* kind_name<LatentAttentionSpec>() {
  return "latent_attention";
}
template <>
constexpr const char* kind_name<MlpSpec>() {
  return "mlp";
}
template <>
constexpr const char* kind_name<MoeSpec>() {
  return "moe";
}
template <>
constexpr const char* kind_name<CustomSpec>() {
  return "custom";
}
template <>
constexpr const char* kind_name<ShortConvSpec>() {
  return "short_conv";
}
template <>
constexpr const char* kind_name<SelectiveSsmSpec>() {
  return "selective_ssm";
}
template <>
constexpr const char* kind_name<SsdSpec>() {
  return "ssd";
}
template <>
constexpr const char* kind_name<GatedDeltaNetSpec>() {
  return "gated_delta_net";
}
template <>
constexpr const char* kind_name<Absent>() {
  return "absent";
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsVariant : std::false_type {};
template <class... T>
struct IsVariant<std::variant<T...>> : std::true_type {};

template <class T>
Json write(const T& value);

template <class T>
Json write_struct(const T& value) {
  Json object = Json::object();
  T copy = value, defaults{};
  std::vector<Json> standard;
  fields(defaults, [&](const char*, const auto& field) { standard.push_back(write(field)); });
  std::size_t i = 0;
  fields(copy, [&](const char* name, const auto& field) {
    Json written = write(field);
    if (written != standard[i++]) object[name] = std::move(written);
  });
  return object;
}

template <class T>
Json write(const T& value) {
  if constexpr (IsOptional<T>::value) {
    return value ? write(*value) : Json(nullptr);
  } else if constexpr (IsVector<T>::value) {
    Json array = Json::array();
    for (const auto& element : value) array.push_back(write(element));
    return array;
  } else if constexpr (IsVariant<T>::value) {
    return std::visit(
        [](const auto& v) {
          return Json{{kind_name<std::decay_t<decltype(v)>>(), write(v)}};
        },
        value);
  } else if constexpr (std::is_enum_v<T>) {
    for (const auto& [e, text] : EnumNames<T>::table) {
      if (e == value) return text;
    }
    return static_cast<int>(value);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    return value;
  } else {
    return write_struct(value);
  }
}

template <class T>
T read(const Json& json, const std::string& where);

template <class T>
void read_struct(const Json& json, T& out, const std::string& where) {
  if (!json.is_object()) throw Error("not an object", where, "write {\"field\": value}");
  std::vector<std::string> known;
  fields(out, [&](const char* name, auto& field) {
    known.emplace_back(name);
    if (const auto found = json.find(name); found != json.end())
      field = read<std::decay_t<decltype(field)>>(*found, where.empty() ? name : where + "." + name);
  });
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    const std::string near = nearest(key, known);
    throw Error("unknown field '" + printable(key) + "'", where.empty() ? "spec" : where,
                near.empty() ? "remove it" : "did you mean '" + near + "'?");
  }
}

template <class V, std::size_t I = 0>
std::string kind_names() {
  if constexpr (I == std::variant_size_v<V>) {
    return {};
  } else {
    return (I == 0 ? "one of " : ", ") + std::string(kind_name<std::variant_alternative_t<I, V>>()) +
           kind_names<V, I + 1>();
  }
}

template <class V, std::size_t I = 0>
V read_variant(const std::string& key, const Json& value, const std::string& where) {
  if constexpr (I == std::variant_size_v<V>) {
    throw Error("unknown kind '" + printable(key) + "'", where, kind_names<V>());
  } else {
    using T = std::variant_alternative_t<I, V>;
    if (key == kind_name<T>()) return read<T>(value, where + "." + key);
    return read_variant<V, I + 1>(key, value, where);
  }
}

template <class T>
T read(const Json& json, const std::string& where) {
  try {
    if constexpr (IsOptional<T>::value) {
      if (json.is_null()) return std::nullopt;
      return read<typename T::value_type>(json, where);
    } else if constexpr (IsVector<T>::value) {
      if (!json.is_array()) throw Error("not an array", where);
      T out;
      for (std::size_t i = 0; i < json.size(); ++i)
        out.push_back(read<typename T::value_type>(json[i], where + "[" + std::to_string(i) + "]"));
      return out;
    } else if constexpr (IsVariant<T>::value) {
      if (!json.is_object() || json.size() != 1)
        throw Error("not an object with one key", where, "write {\"attention\": {..}}");
      return read_variant<T>(json.begin().key(), json.begin().value(), where);
    } else if constexpr (std::is_enum_v<T>) {
      const auto text = json.get<std::string>();
      std::string choices;
      for (const auto& [e, name] : EnumNames<T>::table) {
        if (text == name) return e;
        choices += (choices.empty() ? "one of " : ", ") + std::string(name);
      }
      throw Error("unknown value '" + printable(text) + "'", where, choices);
    } else if constexpr (std::is_same_v<T, bool>) {
      return json.get<bool>();
    } else if constexpr (std::is_integral_v<T>) {
      if (!json.is_number_integer()) throw Error("not an integer", where);
      const auto wide = json.get<std::int64_t>();
      if (!std::in_range<T>(wide)) throw Error("integer out of range", where);
      return static_cast<T>(wide);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return json.get<T>();
    } else {
      T out{};
      read_struct(json, out, where);
      return out;
    }
  } catch (const Json::exception&) {
    throw Error("wrong type of value", where, "see docs/architecture.md for the fields of a spec");
  }
}

}  // namespace

std::string to_json(const ModelSpec& spec, int indent) {
  return write_struct(spec).dump(indent, ' ', false, Json::error_handler_t::replace);
}

namespace {

template <class T>
T parse(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) throw Error("not JSON", "spec", "see ttt inspect spec for an example");
  return read<T>(json, "");
}

}  // namespace

ModelSpec parse_spec(std::string_view text) { return parse<ModelSpec>(text); }
std::string to_json(const MixerSpec& spec) { return write(spec).dump(); }
std::string to_json(const FfnSpec& spec) { return write(spec).dump(); }
MixerSpec parse_mixer(std::string_view text) { return parse<MixerSpec>(text); }
FfnSpec parse_ffn(std::string_view text) { return parse<FfnSpec>(text); }

}  // namespace ttt::inline v2
