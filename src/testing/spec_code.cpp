#include "testing/spec_code.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2::testing {

namespace {

using Json = nlohmann::ordered_json;

// C++ type of a field that is an enum or a struct of its own.
std::string type_of(const std::string& field, const std::string& owner) {
  static const std::map<std::string, std::string> types{
      {"qk_norm", "QkNorm"},      {"score", "RouterScore"},
      {"order", "RouterOrder"},   {"residual", "Residual"},
      {"rope", "RopeSpec"},       {"gate", "AttentionGateSpec"},
      {"limit", "GluLimit"},      {"temperature", "QueryTemperature"},
      {"v_norm", "NormSpec"},     {"qk_norm_spec", "NormSpec"},
      {"shared", "MlpSpec"},      {"act", "Activation"},
      {"scaling", "RopeScaling"}, {"router", "RouterSpec"},
      {"embed_norm", "NormSpec"}, {"positions", "PositionSpec"},
      {"norm", "NormSpec"}};
  if (field == "kind")
    return owner == "scaling" ? "RopeScalingKind" : owner == "positions" ? "PositionKind" : "NormKind";
  const auto found = types.find(field);
  return found == types.end() ? field : found->second;
}
bool is_optional(const std::string& field) {
  static const std::vector<std::string> names{"rope",   "gate",  "limit",      "temperature", "v_norm",
                                              "shared", "chunk", "embed_norm", "positions"};
  return std::ranges::find(names, field) != names.end();
}

class Emitter {
 public:
  Emitter(const ModelSpec& spec, const ModelSpec& known, const HfConfig& config)
      : spec_(spec),
        json_(Json::parse(to_json(spec, -1))),
        known_(Json::parse(to_json(known, -1))),
        root_(config),
        c_(config.text()) {
    numbers(Json::parse(c_.json(), nullptr, false), "");
  }

  SpecCode write() {
    line("static ModelSpec describe(const HfConfig& " + std::string(multimodal() ? "root" : "c") + ") {", 0);
    if (multimodal()) line("const HfConfig c = root.text();");
    head();
    layers();
    line("return m;");
    line("}", 0);
    return {std::move(text_), std::move(questions_)};
  }

 private:
  bool multimodal() const {
    const std::vector<std::string> keys = root_.keys();
    return std::ranges::find(keys, "text_config") != keys.end();
  }

  void line(const std::string& text, int depth = 1) {
    text_ += std::string(static_cast<std::size_t>(2 * depth), ' ') + text + "\n";
  }
  void question(const std::string& text, int depth = 1) {
    line("// QUESTION: " + text, depth);
    questions_.push_back(text);
  }

  // ---------------------------------------------------------------- numbers

  void numbers(const Json& json, const std::string& prefix) {
    if (!json.is_object()) return;
    for (const auto& [key, value] : json.items()) {
      if (key.ends_with("token_id")) continue;  // says nothing about the network
      if (value.is_number()) keys_.emplace_back(prefix + key, value.get<double>());
      if (value.is_object()) numbers(value, prefix + key + ".");
    }
  }
  const std::string* key_of(double value, std::string_view like) const {
    const std::string* found = nullptr;
    for (const auto& [key, number] : keys_) {
      const bool same = std::abs(number - value) <= 1e-6 * std::max(std::abs(number), std::abs(value));
      // Of several keys of one value the one that is called so.
      if (same && (found == nullptr || key.find(like) != std::string::npos)) found = &key;
    }
    return found;
  }
  std::string number(double value, const std::string& field, bool whole) {
    // How configs call what a spec calls otherwise.
    static const std::map<std::string, std::string> words{{"top_k", "per_tok"},
                                                          {"hidden", "intermediate_size"},
                                                          {"groups", "n_group"},
                                                          {"top_groups", "topk_group"}};
    const auto word = words.find(field);
    const std::string& like = word == words.end() ? field : word->second;
    const auto unexplained = [&](const std::string& text) {
      pending_.push_back("where does " + field + " = " + text + " come from?");
      return text;
    };
    if (whole) {
      const std::string text = std::to_string(static_cast<long long>(value));
      const std::string* key = key_of(value, like);
      // Small counts are equal by chance.
      if (key != nullptr && (value > 8 || key->find(like) != std::string::npos))
        return "c.get<int>(\"" + *key + "\")";
      return value > 1 ? unexplained(text) : text;
    }
    const auto read = [](const std::string& key) { return "c.get<float>(\"" + key + "\")"; };
    if (value == 0 || value == 1) return cpp_float(static_cast<float>(value));
    const double root = std::sqrt(static_cast<double>(spec_.dim));
    if (field == "embed_scale" && std::abs(value - root) < 1e-4 * value)
      return "std::sqrt(static_cast<float>(m.dim))";
    if (const std::string* key = key_of(value, like)) return read(*key);
    if (const std::string* key = key_of(1 / value, like)) return "1 / " + read(*key);
    if (const std::string* key = value > 0 ? key_of(1 / (value * value), like) : nullptr)
      return "1 / std::sqrt(" + read(*key) + ")";
    return unexplained(cpp_float(static_cast<float>(value)));
  }

  // ---------------------------------------------------------------- fields

  std::string value(const std::string& field, const std::string& owner, const Json& v) {
    if (v.is_boolean()) return v.get<bool>() ? "true" : "false";
    if (v.is_number_integer()) return number(v.get<double>(), field, true);
    if (v.is_number()) return number(v.get<double>(), field, false);
    if (v.is_string()) return type_of(field, owner) + "::" + v.get<std::string>();
    if (v.is_array()) {
      std::string items;
      for (const Json& item : v) items += (items.empty() ? "" : ", ") + cpp_float(item.get<float>());
      return "{" + items + "}";
    }
    if (v.contains("op")) {
      std::string items = "UnaryOp::" + v.at("op").get<std::string>();
      for (const char* part : {"a", "b"}) {
        if (v.contains(part)) items += ", " + cpp_float(v.at(part).get<float>());
      }
      return "Activation{" + items + "}";
    }
    return aggregate(type_of(field, owner), field, v);
  }

  std::string aggregate(const std::string& type, const std::string& owner, const Json& fields) {
    std::string items;
    for (const auto& [name, v] : fields.items())
      items += (items.empty() ? "." : ", .") + name + " = " + value(name, owner, v);
    return type + "{" + items + "}";
  }

  // Statements that turn `base` into `wanted`; `known`: the same of the nearest family, null when it is not
  // asked.
  void assign(const std::string& object, const std::string& owner, const Json& base, const Json& wanted,
              const Json* known, int depth) {
    const Json none = Json::object();
    std::vector<std::string> fields;
    for (const auto& [name, v] : wanted.items()) fields.push_back(name);
    for (const auto& [name, v] : base.items()) {
      if (!wanted.contains(name)) fields.push_back(name);
    }
    for (const std::string& name : fields) {
      const bool has = wanted.contains(name), had = base.contains(name);
      if (has && had && wanted.at(name) == base.at(name)) continue;
      const Json* family = known != nullptr && known->contains(name) ? &known->at(name) : nullptr;
      if (has && wanted.at(name).is_object() && !wanted.at(name).contains("op") &&
          (had || !is_optional(name))) {
        assign(object + "." + name, name, had ? base.at(name) : none, wanted.at(name),
               known != nullptr ? (family != nullptr ? family : &none) : nullptr, depth);
        continue;
      }
      if (known != nullptr && ((family != nullptr) != has || (has && *family != wanted.at(name))))
        question("the tensors ask for this; does the reference agree?", depth);
      std::string target = object + "." + name;
      // Members of an optional part are reached by an arrow.
      for (const char* part : {".rope.", ".shared.", ".gate.", ".limit.", ".positions.", ".embed_norm."}) {
        if (const std::size_t at = target.find(part); at != std::string::npos)
          target.replace(at + std::string_view(part).size() - 1, 1, "->");
      }
      const std::string text = has ? value(name, owner, wanted.at(name)) : "{}";
      for (const std::string& asked : std::exchange(pending_, {})) question(asked, depth);
      line(target + " = " + text + ";", depth);
    }
  }

  // ---------------------------------------------------------------- the parts

  void head() {
    Json base = Json::object();
    if (c_.find<int>("max_position_embeddings") && c_.find<int>("hidden_size")) {
      line("ModelSpec m = decoder(c);");
      base = {{"vocab", c_.get<int>("vocab_size")},
              {"dim", c_.get<int>("hidden_size")},
              {"max_positions", c_.get<int>("max_position_embeddings")}};
      ModelSpec like;
      like.norm.eps = c_.norm_eps();
      like.tied_embeddings = c_.get_or("tie_word_embeddings", false);
      base.update(Json::parse(to_json(like, -1)));
    } else {
      line("ModelSpec m;");
    }
    Json wanted = json_, known = known_;
    for (Json* json : {&base, &wanted, &known}) json->erase("layers");
    assign("m", "", base, wanted, &known, 1);
  }

  // What the helpers make of one layer.
  Json helped_attention(int layer) const {
    AttentionSpec a{.heads = c_.heads(), .kv_heads = c_.kv_heads(), .head_dim = c_.head_dim()};
    a.qkv_bias = a.out_bias = c_.get_or("attention_bias", false);
    a.rope = c_.rope(layer);
    a.window = c_.window(layer);
    return Json::parse(to_json(MixerSpec{a})).begin().value();
  }
  Json helped_mlp() const {
    const MlpSpec m{
        .hidden = c_.get<int>("intermediate_size"), .act = c_.act(), .bias = c_.get_or("mlp_bias", false)};
    return Json::parse(to_json(FfnSpec{m})).begin().value();
  }

  // The layer without what the helpers say of it: layers of one text need one piece of code.
  std::string form(std::size_t i) const {
    Json layer = json_.at("layers").at(i);
    if (layer.contains("mixer") && layer.at("mixer").contains("attention")) {
      try {
        const Json helped = helped_attention(static_cast<int>(i));
        Json& a = layer.at("mixer").at("attention");
        for (const char* field : {"rope", "window"}) {
          const bool has = a.contains(field), had = helped.contains(field);
          if (has == had && (!has || a.at(field) == helped.at(field))) a[field] = "helped";
        }
        if (a.contains("rope") && a.at("rope").is_object() && helped.contains("rope"))
          a["rope"] = Json::diff(helped.at("rope"), a.at("rope"));
      } catch (const Error&) {  // no helper for this config
      }
    }
    return layer.dump();
  }

  void layers() {
    const std::size_t n = spec_.layers.size();
    std::vector<std::string> forms;
    std::vector<std::size_t> first, kind;
    for (std::size_t i = 0; i < n; ++i) {
      const std::string text = form(i);
      const auto found = std::ranges::find(forms, text);
      kind.push_back(static_cast<std::size_t>(found - forms.begin()));
      if (found == forms.end()) forms.push_back(text), first.push_back(i);
    }
    line("for (int i = 0; i < c.layers(); ++i) {");
    if (forms.size() <= 1) {
      if (n > 0) layer(0, 2);
    } else {
      for (std::size_t k = 0; k < forms.size(); ++k) {
        const bool last = k + 1 == forms.size();
        line((k == 0 ? "" : "} else ") + (last ? std::string("{") : "if (" + rule(kind, k) + ") {"), 2);
        layer(first[k], 3);
      }
      line("}", 2);
    }
    line("}");
  }

  // When layers are of kind k.
  std::string rule(const std::vector<std::size_t>& kind, std::size_t k) {
    std::vector<int> members;
    for (std::size_t i = 0; i < kind.size(); ++i) {
      if (kind[i] == k) members.push_back(static_cast<int>(i));
    }
    // By the config's own word for the layer.
    try {
      std::map<std::string, std::vector<std::size_t>> types;
      for (std::size_t i = 0; i < kind.size(); ++i)
        types[c_.layer_type(static_cast<int>(i))].push_back(kind[i]);
      for (const auto& [type, kinds] : types) {
        const bool all = std::ranges::all_of(kinds, [&](std::size_t x) { return x == k; });
        if (!type.empty() && all && kinds.size() == members.size())
          return "c.layer_type(i) == \"" + type + "\"";
      }
    } catch (const Error&) {  // its list has another length
    }
    const int count = static_cast<int>(members.size());
    if (members.back() == count - 1) {  // the first layers
      if (const std::string* key = key_of(count, "dense")) {
        if (count > 1 || key->find("dense") != std::string::npos) return "i < c.get<int>(\"" + *key + "\")";
      }
      question("these are the first layers of this checkpoint; which key says how many?", 2);
      return "i < " + std::to_string(count);
    }
    if (count > 1) {
      const int step = members[1] - members[0];
      bool regular = true;
      for (std::size_t j = 1; j < members.size(); ++j)
        regular = regular && members[j] - members[j - 1] == step;
      if (regular && step > 1) {
        question("every " + std::to_string(step) + "th layer; which key says so?", 2);
        return "i % " + std::to_string(step) + " == " + std::to_string(members[0] % step);
      }
    }
    question("these are the layers of this checkpoint; what says so in general?", 2);
    std::string text;
    for (int i : members) text += (text.empty() ? "i == " : " || i == ") + std::to_string(i);
    return text;
  }

  const Json* known_part(std::size_t i, const char* part, const char* kind) const {
    const Json& all = known_.at("layers");
    if (i >= all.size() || !all.at(i).contains(part) || !all.at(i).at(part).contains(kind)) return nullptr;
    return &all.at(i).at(part).at(kind);
  }

  void layer(std::size_t i, int depth) {
    const Json& layer = json_.at("layers").at(i);
    if (layer.contains("block")) {
      question("a block of the nearest family's own: which module of yours is it?", depth);
      line("m.layers.push_back({.block = CustomSpec{.name = \"" +
               layer.at("block").at("name").get<std::string>() + "\"}});",
           depth);
      return;
    }
    const std::string mixer = part(i, "mixer", depth), ffn = part(i, "ffn", depth);
    std::string fields = ".mixer = " + mixer + ", .ffn = " + ffn;
    if (layer.contains("residual"))
      fields += ", .residual = Residual::" + layer.at("residual").get<std::string>();
    if (layer.contains("residual_scale")) {
      const std::string scale = number(layer.at("residual_scale").get<double>(), "residual", false);
      for (const std::string& asked : std::exchange(pending_, {})) question(asked, depth);
      fields += ", .residual_scale = " + scale;
    }
    line("m.layers.push_back({" + fields + "});", depth);
  }

  // Declares the part of a layer; returns how it is named.
  std::string part(std::size_t i, const char* which, int depth) {
    const Json& spec = json_.at("layers").at(i).at(which);
    const std::string kind = spec.begin().key();
    const Json& fields = spec.begin().value();
    if (kind == "absent") return "Absent{}";
    if (kind == "attention") {
      try {
        const Json helped = helped_attention(static_cast<int>(i));
        line("AttentionSpec attn = attention(c, i);", depth);
        assign("attn", "", helped, fields, known_part(i, which, "attention"), depth);
        return "attn";
      } catch (const Error&) {
        line("AttentionSpec attn;", depth);
        assign("attn", "", Json::object(), fields, known_part(i, which, "attention"), depth);
        return "attn";
      }
    }
    if (kind == "mlp") {
      std::optional<Json> helped;
      if (c_.find<int>("intermediate_size")) helped = helped_mlp();
      line(helped ? "MlpSpec ffn = mlp(c);" : "MlpSpec ffn;", depth);
      assign("ffn", "", helped.value_or(Json::object()), fields, known_part(i, which, "mlp"), depth);
      return "ffn";
    }
    if (kind == "moe") {
      line("MoeSpec moe;", depth);
      assign("moe", "", Json::object(), fields, known_part(i, which, "moe"), depth);
      return "moe";
    }
    question("the sizes of this " + kind + " are those of the checkpoint: read them from the config", depth);
    const std::string name = std::string(which) + "_" + std::to_string(i);
    const bool is_mixer = std::string_view(which) == "mixer";
    line(std::string(is_mixer ? "const MixerSpec " : "const FfnSpec ") + name +
             (is_mixer ? " = parse_mixer(R\"json(" : " = parse_ffn(R\"json(") + spec.dump() + ")json\");",
         depth);
    return name;
  }

  const ModelSpec& spec_;
  Json json_, known_;
  HfConfig root_, c_;
  std::vector<std::pair<std::string, double>> keys_;
  std::string text_;
  std::vector<std::string> questions_, pending_;
};

}  // namespace

std::string cpp_float(float v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(v));
  for (int digits = 1; digits < 9; ++digits) {
    char shorter[32];
    std::snprintf(shorter, sizeof shorter, "%.*g", digits, static_cast<double>(v));
    if (std::strtof(shorter, nullptr) == v) {
      std::copy(shorter, shorter + sizeof shorter, text);
      break;
    }
  }
  std::string number = text;
  if (number.find_first_of(".e") == std::string::npos) number += ".0";
  return number + "f";
}

SpecCode spec_code(const ModelSpec& spec, const ModelSpec& known, const HfConfig& config) {
  return Emitter(spec, known, config).write();
}

}  // namespace ttt::inline v2::testing
