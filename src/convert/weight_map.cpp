#include "ttt/convert/weight_map.h"

#include <algorithm>
#include <charconv>

#include "convert/json.h"
#include "convert/weight_map_impl.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

using detail::Json;
using Operation = WeightMap::Operation;
using Kind = Operation::Kind;

namespace detail {

namespace {
constexpr std::string_view kind_names[] = {"strip",   "layers", "transpose", "rename", "split",
                                           "stack",   "concat", "slice",     "ignore", "apply",
                                           "permute", "alias",  "optional",  "surplus"};
}

std::string_view name(Kind kind) { return kind_names[static_cast<std::size_t>(kind)]; }

std::string expand_layer(std::string_view pattern, std::string_view layer) {
  static constexpr std::string_view mark = "{layer}";
  const auto at = pattern.find(mark);
  if (at == std::string_view::npos) return std::string(pattern);
  return std::string(pattern.substr(0, at)).append(layer).append(pattern.substr(at + mark.size()));
}

namespace {

template <class Visit>
void for_each_part(std::string_view name, Visit visit) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    visit(name.substr(begin, end - begin), begin != 0);
    begin = end + 1;
  }
}

// Numbers of up to 18 digits without leading zeros, so that they print as they were.
bool parse_number(std::string_view part, std::int64_t& value) {
  if (part.empty() || part.size() > 18 || (part.size() > 1 && part[0] == '0')) return false;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
  return error == std::errc() && end == part.data() + part.size() && value >= 0;
}

bool is_variable(std::string_view part) {
  return part.size() > 2 && part.front() == '{' && part.back() == '}';
}

}  // namespace

NumberedName numbered(std::string_view name) {
  NumberedName out;
  out.key.reserve(name.size());
  for_each_part(name, [&](std::string_view part, bool dot) {
    if (dot) out.key += '.';
    std::int64_t value = 0;
    if (parse_number(part, value)) {
      out.key += '#';
      out.numbers.push_back(value);
    } else {
      out.key += part;
    }
  });
  return out;
}

RulePattern compile_rule(std::string_view pattern, std::vector<std::string> variables) {
  RulePattern out;
  out.variables = std::move(variables);
  for_each_part(pattern, [&](std::string_view part, bool dot) {
    if (dot) out.key += '.';
    std::int64_t value = 0;
    if (is_variable(part)) {
      const auto it = std::ranges::find(out.variables, part);
      const auto index = it - out.variables.begin();
      if (it == out.variables.end()) out.variables.emplace_back(part);
      out.key += '#';
      out.slots.push_back(~static_cast<std::int64_t>(index));
    } else if (parse_number(part, value)) {
      out.key += '#';
      out.slots.push_back(value);
    } else {
      out.key += part;
    }
  });
  return out;
}

bool glob(std::string_view pattern, std::string_view name) {
  // One step of backtracking per star; a number is taken whole, so it never backtracks by itself.
  std::size_t p = 0, n = 0, star = std::string_view::npos, mark = 0;
  while (true) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      mark = n;
      continue;
    }
    if (n == name.size() && p == pattern.size()) return true;
    if (p < pattern.size() && pattern[p] == '{') {
      std::size_t end = n;
      while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
      const std::size_t close = pattern.find('}', p);
      if (end > n && close != std::string_view::npos) {
        n = end;
        p = close + 1;
        continue;
      }
    } else if (p < pattern.size() && n < name.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
      continue;
    }
    if (star == std::string_view::npos || mark >= name.size()) return false;
    p = star;
    n = ++mark;
  }
}

bool fits(const RulePattern& pattern, const std::vector<std::int64_t>& numbers,
          std::vector<std::int64_t>& values) {
  values.assign(pattern.variables.size(), -1);
  for (std::size_t i = 0; i < pattern.slots.size(); ++i) {
    const std::int64_t slot = pattern.slots[i];
    if (slot >= 0) {
      if (numbers[i] != slot) return false;
      continue;
    }
    std::int64_t& value = values[static_cast<std::size_t>(~slot)];
    if (value >= 0 && value != numbers[i]) return false;
    value = numbers[i];
  }
  return true;
}

std::string substitute(const RulePattern& pattern, const std::vector<std::int64_t>& values) {
  std::string name;
  name.reserve(pattern.key.size() + 8);
  std::size_t n = 0;
  for (char c : pattern.key) {
    if (c != '#') {
      name += c;
      continue;
    }
    const std::int64_t slot = pattern.slots[n++];
    const std::int64_t value = slot >= 0 ? slot : values[static_cast<std::size_t>(~slot)];
    if (value >= 0) {
      name += std::to_string(value);
    } else {
      name += pattern.variables[static_cast<std::size_t>(~slot)];
    }
  }
  return name;
}

std::string_view without_suffix(std::string_view name) {
  for (std::string_view suffix : {".weight", ".bias"}) {
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  }
  return name;
}

bool matches_tensor(std::string_view pattern, std::string_view name) {
  const std::string_view stem = without_suffix(name);
  return glob(pattern, name) || (stem.size() != name.size() && glob(pattern, stem));
}

bool matches_slot(std::string_view pattern, std::string_view slot) {
  return glob(pattern, slot) && (!slot.ends_with(".bias") || pattern.ends_with("bias"));
}

}  // namespace detail

namespace {

std::vector<std::string> variables_of(std::string_view pattern, std::string_view layer) {
  return detail::compile_rule(detail::expand_layer(pattern, layer)).variables;
}

void check_pattern(std::string_view pattern, bool stars, Kind kind) {
  const std::string where = std::string(detail::name(kind)) + "(" + printable(pattern) + ") of a weight map";
  if (pattern.empty()) throw Error("an empty name", where);
  if (!stars && pattern.find('*') != std::string_view::npos)
    throw Error("* in the name of a rule", where,
                "use {i}, {e} for numbers; patterns are for ignore, apply, transpose, ...");
  const auto layer = pattern.find("{layer}");
  if (layer != std::string_view::npos && pattern.find("{layer}", layer + 1) != std::string_view::npos)
    throw Error("{layer} twice", where);
  for (std::size_t at = 0; (at = pattern.find_first_of("{}", at)) != std::string_view::npos;) {
    const std::size_t close = pattern.find('}', at);
    const bool starts = at == 0 || pattern[at - 1] == '.' || stars;
    const bool ends = close != std::string_view::npos &&
                      (close + 1 == pattern.size() || pattern[close + 1] == '.' || stars);
    if (pattern[at] != '{' || !starts || !ends || close == at + 1)
      throw Error("a number {name} stands alone between dots", where);
    at = close + 1;
  }
}

// Every number on the right comes from the left.
void check_rule(const Operation& o) {
  for (const std::string& from : o.from) {
    check_pattern(from, false, o.kind);
    const std::vector<std::string> known = variables_of(from, "layers.{i}");
    for (const std::string& to : o.to) {
      check_pattern(to, false, o.kind);
      for (const std::string& variable : variables_of(to, "layers.{i}")) {
        if (std::ranges::find(known, variable) == known.end())
          throw Error(variable + " on the right only",
                      std::string(detail::name(o.kind)) + "(" + printable(from) + ") of a weight map");
      }
    }
  }
}

// Beyond every real size, and far from overflow.
constexpr std::int64_t size_limit = std::int64_t{1} << 40;

void check(const Operation& o) {
  const std::string where = std::string(detail::name(o.kind)) + " of a weight map";
  if (o.from.empty()) throw Error("nothing on the left", where);
  switch (o.kind) {
    case Kind::strip:
      if (o.from[0].empty()) throw Error("an empty prefix", where);
      break;
    case Kind::layers:
      check_pattern(o.from[0], false, o.kind);
      break;
    case Kind::rename:
    case Kind::stack:
    case Kind::concat:
      if (o.to.size() != 1) throw Error("one name on the right", where);
      check_rule(o);
      break;
    case Kind::split:
      if (o.to.empty()) throw Error("nothing on the right", where);
      if (o.layout.groups < 1 || o.layout.groups > size_limit)
        throw Error("groups of " + std::to_string(o.layout.groups), where);
      if (!o.layout.sizes.empty() && o.layout.sizes.size() != o.to.size())
        throw Error(
            std::to_string(o.layout.sizes.size()) + " sizes for " + std::to_string(o.to.size()) + " names",
            where);
      for (std::int64_t size : o.layout.sizes) {
        if (size < 1 || size > size_limit) throw Error("a size of " + std::to_string(size), where);
      }
      check_rule(o);
      break;
    case Kind::slice:
      if (o.to.size() != 1) throw Error("one name on the right", where);
      if (o.begin < 0 || o.count < 1 || o.begin > size_limit || o.count > size_limit)
        throw Error("rows " + std::to_string(o.begin) + " + " + std::to_string(o.count), where);
      check_rule(o);
      break;
    case Kind::permute:
      check_pattern(o.from[0], true, o.kind);
      if (o.heads < 1 || o.heads > size_limit) throw Error(std::to_string(o.heads) + " heads", where);
      break;
    case Kind::alias:
      if (o.to.size() != 1) throw Error("one slot on the right", where);
      check_rule(o);
      break;
    case Kind::transpose:
    case Kind::ignore:
    case Kind::apply:
    case Kind::optional:
    case Kind::surplus:
      check_pattern(o.from[0], true, o.kind);
      break;
  }
}

}  // namespace

WeightMap::WeightMap() : operations_(std::make_unique<std::vector<Operation>>()) {}
WeightMap::WeightMap(const WeightMap& other)
    : operations_(std::make_unique<std::vector<Operation>>(other.operations())) {}
// What was moved from is an empty map, not a broken one.
WeightMap::WeightMap(WeightMap&& other) noexcept : WeightMap() { operations_.swap(other.operations_); }
WeightMap& WeightMap::operator=(WeightMap other) {
  operations_.swap(other.operations_);
  return *this;
}
WeightMap::~WeightMap() = default;

const std::vector<WeightMap::Operation>& WeightMap::operations() const { return *operations_; }
bool WeightMap::operator==(const WeightMap& other) const { return operations() == other.operations(); }

WeightMap& WeightMap::push(Operation operation) {
  check(operation);
  operations_->push_back(std::move(operation));
  return *this;
}

WeightMap& WeightMap::append(const WeightMap& other) {
  const std::vector<Operation> added = other.operations();  // a copy: `other` may be this map
  operations_->insert(operations_->end(), added.begin(), added.end());
  return *this;
}

WeightMap& WeightMap::strip(std::string_view prefix) {
  return push({.kind = Kind::strip, .from = {std::string(prefix)}});
}
WeightMap& WeightMap::layers(std::string_view prefix) {
  return push({.kind = Kind::layers, .from = {std::string(prefix)}});
}
WeightMap& WeightMap::transpose(std::string_view pattern) {
  return push({.kind = Kind::transpose, .from = {std::string(pattern)}});
}
WeightMap& WeightMap::rename(std::string_view from, std::string_view to) {
  return push({.kind = Kind::rename, .from = {std::string(from)}, .to = {std::string(to)}});
}
WeightMap& WeightMap::rename(std::string_view from, std::string_view to,
                             std::initializer_list<std::pair<std::string_view, std::string_view>> parts) {
  for (const auto& [tensor, slot] : parts)
    rename(std::string(from).append(tensor), std::string(to).append(slot));
  return *this;
}
WeightMap& WeightMap::split_qkv(std::string_view from, std::int64_t groups) {
  return split(from, {"{layer}.attn.q", "{layer}.attn.k", "{layer}.attn.v"}, {.groups = groups});
}
WeightMap& WeightMap::split_gate_up(std::string_view from, std::string_view to) {
  return split(from, {std::string(to) + ".gate", std::string(to) + ".up"});
}
WeightMap& WeightMap::split(std::string_view from, std::vector<std::string> to, SplitLayout layout) {
  return push(
      {.kind = Kind::split, .from = {std::string(from)}, .to = std::move(to), .layout = std::move(layout)});
}
WeightMap& WeightMap::stack(std::string_view from, std::string_view to) {
  return push({.kind = Kind::stack, .from = {std::string(from)}, .to = {std::string(to)}});
}
WeightMap& WeightMap::concat(std::vector<std::string> from, std::string_view to) {
  return push({.kind = Kind::concat, .from = std::move(from), .to = {std::string(to)}});
}
WeightMap& WeightMap::slice(std::string_view from, std::string_view to, std::int64_t begin,
                            std::int64_t count) {
  return push({.kind = Kind::slice,
               .from = {std::string(from)},
               .to = {std::string(to)},
               .begin = begin,
               .count = count});
}
WeightMap& WeightMap::ignore(std::string_view pattern) {
  return push({.kind = Kind::ignore, .from = {std::string(pattern)}});
}
WeightMap& WeightMap::apply(std::string_view pattern, Transform transform) {
  return push({.kind = Kind::apply, .from = {std::string(pattern)}, .transform = transform});
}
WeightMap& WeightMap::permute(std::string_view pattern, std::int64_t heads) {
  return push({.kind = Kind::permute, .from = {std::string(pattern)}, .heads = heads});
}
WeightMap& WeightMap::alias(std::string_view slot, std::string_view of) {
  return push({.kind = Kind::alias, .from = {std::string(slot)}, .to = {std::string(of)}});
}
WeightMap& WeightMap::optional(std::string_view pattern) {
  return push({.kind = Kind::optional, .from = {std::string(pattern)}});
}
WeightMap& WeightMap::surplus(std::string_view pattern) {
  return push({.kind = Kind::surplus, .from = {std::string(pattern)}});
}

// --- JSON ---

namespace {

constexpr UnaryOp functions[] = {UnaryOp::identity,   UnaryOp::exp,  UnaryOp::log,     UnaryOp::neg,
                                 UnaryOp::reciprocal, UnaryOp::sqrt, UnaryOp::rsqrt,   UnaryOp::square,
                                 UnaryOp::abs,        UnaryOp::tanh, UnaryOp::sigmoid, UnaryOp::softplus};
constexpr std::string_view function_names[] = {"identity", "exp",    "log", "neg",  "reciprocal", "sqrt",
                                               "rsqrt",    "square", "abs", "tanh", "sigmoid",    "softplus"};

std::string_view function_name(UnaryOp op) {
  const auto it = std::ranges::find(functions, op);
  if (it == std::end(functions)) throw Error("a function that weights do not know", "apply of a weight map");
  return function_names[it - std::begin(functions)];
}

// How the sides are called in JSON, and whether they are lists.
struct Fields {
  std::string_view from, to;
  bool from_list = false, to_list = false;
};
Fields fields(Kind kind) {
  switch (kind) {
    case Kind::strip:
    case Kind::layers:
      return {"prefix", ""};
    case Kind::transpose:
    case Kind::ignore:
      return {"pattern", ""};
    case Kind::apply:
    case Kind::permute:
    case Kind::optional:
    case Kind::surplus:
      return {"slots", ""};
    case Kind::alias:
      return {"slot", "of"};
    case Kind::split:
      return {"from", "to", false, true};
    case Kind::concat:
      return {"from", "to", true, false};
    default:
      return {"from", "to"};
  }
}

Json to_object(const Operation& o) {
  const Fields f = fields(o.kind);
  Json json{{"op", detail::name(o.kind)}};
  const auto put = [&](std::string_view field, const std::vector<std::string>& names, bool list) {
    if (field.empty()) return;
    if (list) {
      json[field] = names;
    } else {
      json[field] = names.at(0);
    }
  };
  put(f.from, o.from, f.from_list);
  put(f.to, o.to, f.to_list);
  if (o.kind == Kind::split) {
    if (o.layout.groups != 1) json["groups"] = o.layout.groups;
    if (o.layout.interleaved) json["interleaved"] = true;
    if (!o.layout.sizes.empty()) json["sizes"] = o.layout.sizes;
  }
  if (o.kind == Kind::slice) {
    json["begin"] = o.begin;
    json["count"] = o.count;
  }
  if (o.kind == Kind::apply) {
    if (o.transform.scale != 1) json["scale"] = o.transform.scale;
    if (o.transform.offset != 0) json["offset"] = o.transform.offset;
    if (o.transform.op != UnaryOp::identity) json["function"] = function_name(o.transform.op);
  }
  if (o.kind == Kind::permute) json["heads"] = o.heads;
  return json;
}

Operation from_object(const Json& json, std::size_t index) {
  const std::string where = "operation " + std::to_string(index) + " of a weight map";
  if (!json.is_object() || !json.contains("op") || !json["op"].is_string()) throw Error("has no op", where);
  const auto& op = json["op"].get_ref<const std::string&>();
  const auto it = std::ranges::find(detail::kind_names, op);
  if (it == std::end(detail::kind_names)) throw Error("unknown operation " + printable(op), where);
  Operation o;
  o.kind = static_cast<Kind>(it - std::begin(detail::kind_names));
  const Fields f = fields(o.kind);
  const auto field = [&](std::string_view key) { return std::string(key) + " in " + where; };

  const auto names = [&](std::string_view key, bool list) {
    std::vector<std::string> out;
    if (key.empty()) return out;
    if (!json.contains(key)) throw Error("is missing", field(key));
    const Json& value = json[key];
    if (list ? !value.is_array() : !value.is_string())
      throw Error(list ? "is no list" : "is no text", field(key));
    if (!list) return std::vector<std::string>{value.get<std::string>()};
    for (const Json& entry : value) {
      if (!entry.is_string()) throw Error("is no list of texts", field(key));
      out.push_back(entry.get<std::string>());
    }
    return out;
  };
  const auto integer = [&](const Json& value, std::string_view key) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX))
      throw Error("is no whole number", field(key));
    return value.get<std::int64_t>();
  };
  const auto real = [&](std::string_view key, float fallback) {
    if (!json.contains(key)) return fallback;
    if (!json[key].is_number()) throw Error("is no number", field(key));
    return json[key].get<float>();
  };

  o.from = names(f.from, f.from_list);
  o.to = names(f.to, f.to_list);
  std::vector<std::string_view> known{"op", f.from, f.to};
  switch (o.kind) {
    case Kind::split:
      known.insert(known.end(), {"groups", "interleaved", "sizes"});
      if (json.contains("groups")) o.layout.groups = integer(json["groups"], "groups");
      if (json.contains("interleaved")) {
        if (!json["interleaved"].is_boolean()) throw Error("is no flag", field("interleaved"));
        o.layout.interleaved = json["interleaved"].get<bool>();
      }
      if (json.contains("sizes")) {
        if (!json["sizes"].is_array()) throw Error("is no list", field("sizes"));
        for (const Json& size : json["sizes"]) o.layout.sizes.push_back(integer(size, "sizes"));
      }
      break;
    case Kind::slice:
      known.insert(known.end(), {"begin", "count"});
      for (std::string_view key : {"begin", "count"}) {
        if (!json.contains(key)) throw Error("is missing", field(key));
      }
      o.begin = integer(json["begin"], "begin");
      o.count = integer(json["count"], "count");
      break;
    case Kind::apply:
      known.insert(known.end(), {"scale", "offset", "function"});
      o.transform.scale = real("scale", 1);
      o.transform.offset = real("offset", 0);
      if (json.contains("function")) {
        const auto name = std::ranges::find(
            function_names, json["function"].is_string() ? json["function"].get<std::string>() : "");
        if (name == std::end(function_names)) throw Error("unknown function", field("function"));
        o.transform.op = functions[name - std::begin(function_names)];
      }
      break;
    case Kind::permute:
      known.emplace_back("heads");
      if (!json.contains("heads")) throw Error("is missing", field("heads"));
      o.heads = integer(json["heads"], "heads");
      break;
    default:
      break;
  }
  for (const auto& item : json.items()) {
    if (std::ranges::find(known, item.key()) == known.end())
      throw Error("unknown field " + printable(item.key()), where);
  }
  return o;
}

}  // namespace

std::string WeightMap::to_json(int indent) const {
  Json list = Json::array();
  for (const Operation& o : operations()) list.push_back(to_object(o));
  return detail::dump_json(Json{{"operations", std::move(list)}}, indent);
}

WeightMap WeightMap::from_json(std::string_view text) {
  const Json json = detail::parse_json(text, "weight map");
  if (!json.is_object() || !json.contains("operations") || !json["operations"].is_array())
    throw Error("has no list of operations", "weight map");
  WeightMap map;
  std::size_t index = 0;
  for (const Json& object : json["operations"]) map.push(from_object(object, index++));
  return map;
}

// --- names that many checkpoints share ---

WeightMap hf_decoder_names() {
  WeightMap map;
  map.strip("model.")
      .rename("embed_tokens", "embed")
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.self_attn.q_norm", "{layer}.attn.q_norm")
      .rename("{layer}.self_attn.k_norm", "{layer}.attn.k_norm")
      .rename("{layer}.self_attn.sinks", "{layer}.attn.sinks")
      .rename("norm", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head")
      .ignore("*.rotary_emb.*")
      .ignore("rotary_emb.*");
  for (const char* part : {"q", "k", "v", "o"})
    map.rename(std::string("{layer}.self_attn.") + part + "_proj", std::string("{layer}.attn.") + part);
  for (const char* part : {"gate", "up", "down"})
    map.rename(std::string("{layer}.mlp.") + part + "_proj", std::string("{layer}.ffn.") + part);
  return map;
}

WeightMap hf_post_norm_names() {
  return WeightMap()
      .rename("{layer}.post_attention_layernorm", "{layer}.attn_post_norm")
      .rename("{layer}.pre_feedforward_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.post_feedforward_layernorm", "{layer}.ffn_post_norm");
}

WeightMap hf_moe_names(std::string_view slots) {
  const std::string to = std::string(slots) + ".";
  WeightMap map;
  map.rename("{layer}.mlp.gate", to + "router")
      .rename("{layer}.mlp.gate.e_score_correction_bias", to + "router.correction_bias")
      .rename("{layer}.mlp.shared_expert_gate", to + "shared_gate");
  for (const std::string part : {"gate", "up", "down"}) {
    map.stack("{layer}.mlp.experts.{e}." + part + "_proj", to + "experts." + part);
    for (const std::string shared : {"shared_expert", "shared_experts"})
      map.rename("{layer}.mlp." + shared + "." + part + "_proj", to + "shared." + part);
  }
  return map;
}

WeightMap hf_wte_names() {
  return WeightMap()
      .strip("transformer.")
      .layers("h.{i}")
      .rename("wte", "embed")
      .rename("wpe", "position_embed")
      .rename("{layer}.ln_1", "{layer}.attn_norm")
      .rename("{layer}.ln_2", "{layer}.ffn_norm")
      .rename("{layer}.mlp.c_fc", "{layer}.ffn.up")
      .rename("{layer}.mlp.c_proj", "{layer}.ffn.down")
      .rename("ln_f", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head")
      .ignore("*.attn.bias")  // causal masks
      .ignore("*.attention.bias")
      .ignore("*.masked_bias");
}

WeightMap hf_fairseq_names(std::string_view norms) {
  const std::string norm(norms);
  return WeightMap()
      .strip("model.")
      .strip("decoder.")
      .rename("embed_tokens", "embed")
      .rename("embed_positions", "position_embed")
      .rename("layernorm_embedding", "embed_norm")
      .rename("{layer}.self_attn.", "{layer}.attn.",
              {{"q_proj", "q"}, {"k_proj", "k"}, {"v_proj", "v"}, {"out_proj", "o"}})
      .rename("{layer}.self_attn_layer_norm", "{layer}.attn" + norm)
      .rename("{layer}.final_layer_norm", "{layer}.ffn" + norm)
      .rename("{layer}.fc1", "{layer}.ffn.up")
      .rename("{layer}.fc2", "{layer}.ffn.down")
      .rename("layer_norm", "norm")
      .rename("lm_head", "lm_head")
      .surplus("lm_head");
}

WeightMap hf_megatron_names(std::int64_t groups, std::string_view attention) {
  const std::string from(attention);
  return WeightMap()
      .rename("{layer}.input_layernorm", "{layer}.attn_norm")
      .split_qkv(from + ".query_key_value", groups)
      .rename(from + ".dense", "{layer}.attn.o")
      .rename("{layer}.post_attention_layernorm", "{layer}.ffn_norm")
      .rename("{layer}.mlp.dense_h_to_4h", "{layer}.ffn.up")
      .rename("{layer}.mlp.dense_4h_to_h", "{layer}.ffn.down");
}

WeightMap hf_latent_attention_names(int heads, std::string_view module, std::string_view slots) {
  const std::string from = std::string(module) + ".", to = std::string(slots) + ".";
  return WeightMap()
      .split(from + "kv_b_proj", {to + "k_b", to + "v_b"}, {.groups = heads})
      .rename(from, to,
              {{"q_a_proj", "q_a"},
               {"q_a_layernorm", "q_a_norm"},
               {"q_b_proj", "q"},
               {"kv_a_proj_with_mqa", "kv_a"},
               {"kv_a_layernorm", "kv_a_norm"},
               {"indexer.wq_b", "indexer.q"},
               {"indexer.wk", "indexer.k"},
               {"indexer.weights_proj", "indexer.weights"},
               {"indexer.k_norm", "indexer.k_norm"}});
}

WeightMap hf_selective_ssm_names(std::string_view module) {
  const std::string from = std::string(module) + ".", to = "{layer}.attn.";
  return WeightMap()
      .split(from + "in_proj", {to + "x", to + "z"})
      .split(from + "x_proj", {to + "dt_in", to + "b", to + "c"})
      .rename(from, to,
              {{"conv1d", "conv"}, {"dt_proj", "dt"}, {"A_log", "a"}, {"D", "d"}, {"out_proj", "o"}})
      .apply("*.attn.a", unary(UnaryOp::exp))
      .apply("*.attn.a", multiply(-1));
}

WeightMap hf_delta_net_names(std::string_view module) {
  const std::string from = std::string(module) + ".", to = "{layer}.attn.";
  return WeightMap()
      .concat({from + "q_conv1d", from + "k_conv1d", from + "v_conv1d"}, to + "conv")
      .rename(from, to,
              {{"q_proj", "q"},
               {"k_proj", "k"},
               {"v_proj", "v"},
               {"a_proj", "a"},
               {"b_proj", "b"},
               {"g_proj", "z"},
               {"dt_bias", "dt_bias"},
               {"A_log", "rate"},
               {"o_norm", "norm"},
               {"o_proj", "o"}})
      .apply("*.attn.rate", unary(UnaryOp::exp));
}

WeightMap hf_fused_delta_net_names(std::string_view module) {
  const std::string from = std::string(module) + ".", to = "{layer}.attn.";
  return WeightMap()
      .split(from + "in_proj_qkv", {to + "q", to + "k", to + "v"})
      .rename(from, to,
              {{"in_proj_z", "z"},
               {"in_proj_b", "b"},
               {"in_proj_a", "a"},
               {"conv1d", "conv"},
               {"dt_bias", "dt_bias"},
               {"A_log", "rate"},
               {"norm", "norm"},
               {"out_proj", "o"}})
      .apply("*.attn.rate", unary(UnaryOp::exp));
}

WeightMap hf_ssd_names(std::initializer_list<std::string_view> modules, std::string_view slots) {
  const std::string to = std::string(slots) + ".";
  WeightMap map;
  for (const std::string_view module : modules) {
    const std::string from = std::string(module) + ".";
    map.split(from + "in_proj", {to + "z", to + "x", to + "b", to + "c", to + "dt"});
    for (const auto& [tensor, slot] : {std::pair{"conv1d", "conv"},
                                       {"dt_bias", "dt_bias"},
                                       {"A_log", "a"},
                                       {"D", "d"},
                                       {"norm", "norm"},
                                       {"out_proj", "o"}})
      map.rename(from + tensor, to + slot);
  }
  return map.apply(to + "a", unary(UnaryOp::exp)).apply(to + "a", multiply(-1));
}

WeightMap gguf_decoder_names() {
  WeightMap map;
  map.layers("blk.{i}")
      .rename("token_embd", "embed")
      .rename("token_embd_norm", "embed_norm")
      .rename("position_embd", "position_embed")
      .rename("output_norm", "norm")
      .rename("output", "lm_head")
      .surplus("lm_head")
      .rename("{layer}.attn_norm", "{layer}.attn_norm")
      .rename("{layer}.attn_output", "{layer}.attn.o")
      .rename("{layer}.attn_sinks", "{layer}.attn.sinks")
      .rename("{layer}.post_attention_norm", "{layer}.attn_post_norm")
      .rename("{layer}.ffn_norm", "{layer}.ffn_norm")
      .rename("{layer}.post_ffw_norm", "{layer}.ffn_post_norm")
      .rename("{layer}.ffn_gate_inp", "{layer}.ffn.router")
      .rename("{layer}.exp_probs_b.bias", "{layer}.ffn.router.correction_bias")
      .rename("{layer}.ffn_gate_inp_shexp", "{layer}.ffn.shared_gate")
      .ignore("rope_freqs.weight")
      .ignore("rope_factors_*.weight")
      .ignore("{layer}.attn_rot_embd")
      .ignore("{layer}.rope_freqs.weight");
  for (const std::string part : {"q", "k", "v"}) map.rename("{layer}.attn_" + part, "{layer}.attn." + part);
  for (const std::string part : {"q", "k"})
    map.rename("{layer}.attn_" + part + "_norm", "{layer}.attn." + part + "_norm");
  for (const std::string part : {"gate", "up", "down"}) {
    map.rename("{layer}.ffn_" + part, "{layer}.ffn." + part)
        .rename("{layer}.ffn_" + part + "_exps", "{layer}.ffn.experts." + part)
        .stack("{layer}.ffn_" + part + ".{e}", "{layer}.ffn.experts." + part)
        .rename("{layer}.ffn_" + part + "_shexp", "{layer}.ffn.shared." + part);
  }
  return map;
}

}  // namespace ttt::inline v2
