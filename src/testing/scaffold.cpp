#include "ttt/testing/scaffold.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "testing/spec_code.h"
#include "ttt/base/error.h"
#include "ttt/convert/binding.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/testing/instances.h"

namespace ttt::inline v2::testing {

namespace {

using Json = nlohmann::ordered_json;

std::size_t count(const std::vector<WeightProblem>& problems) {
  std::size_t n = 0;
  for (const WeightProblem& p : problems) n += p.count;
  return n;
}

// What a family makes of the checkpoint.
struct Candidate {
  std::string family;
  Description d{};
  std::size_t problems = 0, unread = 0, knobs = 0;
  int architectures = 0;  // that are this network: the more, the plainer
  auto rank() const { return std::tuple(problems, unread, knobs, -architectures); }
};

// How checkpoints call the parts of a layer, beside transformers' usual names.
struct Synonym {
  const char *slot, *name;
};
constexpr Synonym synonyms[] = {
    {"q", "q_proj"},
    {"q", "wq"},
    {"q", "query"},
    {"k", "k_proj"},
    {"k", "wk"},
    {"k", "key"},
    {"v", "v_proj"},
    {"v", "wv"},
    {"v", "value"},
    {"o", "o_proj"},
    {"o", "out_proj"},
    {"o", "wo"},
    {"o", "dense"},
    {"o", "c_proj"},
    {"gate", "gate_proj"},
    {"gate", "w1"},
    {"up", "up_proj"},
    {"up", "w3"},
    {"up", "fc1"},
    {"up", "c_fc"},
    {"down", "down_proj"},
    {"down", "w2"},
    {"down", "fc2"},
    {"down", "c_proj"},
    {"attn_norm", "input_layernorm"},
    {"attn_norm", "ln_1"},
    {"attn_norm", "norm1"},
    {"attn_norm", "attention_norm"},
    {"ffn_norm", "ln_2"},
    {"ffn_norm", "norm2"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"ffn_norm", "pre_mlp_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_post_norm", "post_attention_layernorm"},
    {"attn_post_norm", "post_self_attn_layernorm"},
    {"ffn_post_norm", "post_feedforward_layernorm"},
    {"ffn_post_norm", "post_mlp_layernorm"},
    {"q_norm", "q_layernorm"},
    {"k_norm", "k_layernorm"},
    {"norm", "ln_f"},
    {"norm", "final_layernorm"},
    {"norm", "final_norm"},
    {"embed", "wte"},
    {"embed", "word_embeddings"},
    {"lm_head", "output"},
    {"lm_head", "embed_out"},
    {"router", "gate"},
};

std::string last_part(std::string name) {
  for (const char* tail : {".weight", ".bias"}) {
    if (name.ends_with(tail)) name.resize(name.size() - std::string_view(tail).size());
  }
  return name.substr(name.rfind('.') + 1);
}

// Every number between dots is `with`.
std::string generic(const std::string& name, const std::string& with) {
  std::string out;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t dot = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, dot - at);
    const bool digits =
        !part.empty() && std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c); });
    out += (out.empty() ? "" : ".") + (digits ? with : part);
    at = dot + 1;
  }
  return out;
}

class Writer {
 public:
  Writer(const std::filesystem::path& path, std::string name, const LoadOptions& options)
      : name_(std::move(name)), options_(options), checkpoint_(Checkpoint::open(path)) {
    if (checkpoint_.format() == CheckpointFormat::gguf)
      throw Error("a GGUF file does not have the names that a model file starts from", path.string(),
                  "give the Hugging Face folder");
    config_ = Json::parse(checkpoint_.config_json(), nullptr, false);
    if (config_.is_discarded()) throw Error("config is not JSON", path.string());
    architecture_ = checkpoint_.architecture();
    shapes_ = checkpoint_.shapes();
    for (const NamedShape& tensor : shapes_) shape_of_[tensor.name] = tensor.shape;
  }

  Scaffold write() {
    Candidate best = nearest_family();
    const ModelSpec family_spec = best.d.spec;
    improve(best);
    Scaffold result{.text = {}, .architecture = architecture_, .nearest = best.family};
    for (const std::string& key : best.d.unread_keys)
      ask("does " + key + " = " + value_of(key) +
          " change the network? Read it in describe(), or list it in .ignore");
    if (best.problems > 0) {
      for (const WeightProblem& p : problems(best.d))
        ask(std::to_string(p.count) + " " + p.kind + ": " + (p.examples.empty() ? "" : p.examples.front()));
    }
    const std::vector<std::string> general = std::exchange(questions_, {});
    const SpecCode code = spec_code(best.d.spec, family_spec, HfConfig::parse(config_.dump()));
    result.text = file(best, code, general);
    result.questions = general;
    result.questions.insert(result.questions.end(), code.questions.begin(), code.questions.end());
    result.questions.insert(result.questions.end(), renames_.begin(), renames_.end());
    result.problems = best.problems;
    return result;
  }

 private:
  void ask(std::string question) { questions_.push_back(std::move(question)); }

  std::vector<WeightProblem> problems(const Description& d) const {
    if (shapes_.empty()) return {};
    return weight_problems(WeightMap::from_json(d.weight_map_json), shapes_, weight_slots(d.spec));
  }

  std::string value_of(const std::string& dotted) const {
    const Json* at = &config_;
    for (std::size_t begin = 0; begin <= dotted.size();) {
      const std::size_t dot = std::min(dotted.find('.', begin), dotted.size());
      const auto found = at->find(dotted.substr(begin, dot - begin));
      if (!at->is_object() || found == at->end()) return "?";
      at = &*found;
      begin = dot + 1;
    }
    const std::string text = at->dump();
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
  }

  // The family that fits most of the tensors; of equal ones the one that leaves fewest keys unread, then the
  // plainest.
  Candidate nearest_family() const {
    std::optional<Candidate> best;
    std::string why;
    for (const FamilyInfo& family : families(options_.model_libraries)) {
      Json config = config_;
      config["architectures"] = {family.architectures.front()};
      try {
        Candidate c{.family = family.name, .d = describe_config(config.dump(), options_)};
        c.problems = count(problems(c.d));
        c.unread = c.d.unread_keys.size();
        c.architectures = static_cast<int>(family.architectures.size());
        std::set<std::string> kinds;
        for (const ModuleInstance& i : module_instances(c.d.spec, c.d.target)) {
          if (kinds.insert(i.kind.key()).second) c.knobs += i.kind.knobs.size();
        }
        c.knobs += family.modules ? 100 : 0;
        if (!best || c.rank() < best->rank()) best = std::move(c);
      } catch (const Error& error) { why = error.what(); }
    }
    if (!best) throw Error("no known family can read this config", "ttt new", why);
    return *std::move(best);
  }

  // ---------------------------------------------------------------- from the family to the checkpoint

  // Takes changes while they make more tensors fit.
  void improve(Candidate& c) {
    constexpr int most = 40;
    for (int step = 0; step < most && c.problems > 0; ++step) {
      std::optional<Description> better;
      std::size_t fewest = c.problems;
      std::string rename;
      for (auto& [changed, note] : moves(c.d)) {
        std::size_t left = 0;
        try {
          validate(changed.spec);
          left = count(problems(changed));
        } catch (const Error&) { continue; }
        if (left < fewest) fewest = left, better = changed, rename = note;
      }
      if (!better) break;
      if (!rename.empty()) renames_.push_back(rename);
      c.d = *std::move(better);
      c.problems = fewest;
    }
  }

  using Move = std::pair<Description, std::string>;  // and the rename that it is
  std::vector<Move> moves(const Description& d) const {
    std::vector<Move> all;
    const auto spec = [&](auto change) {
      Move move{d, ""};
      change(move.first.spec);
      if (move.first.spec != d.spec) all.push_back(std::move(move));
    };
    const auto each = [&](auto change) {
      spec([&](ModelSpec& m) {
        for (LayerSpec& layer : m.layers) change(layer);
      });
    };
    const auto attention = [&](auto change) {
      each([&](LayerSpec& l) {
        if (auto* a = std::get_if<AttentionSpec>(&l.mixer)) change(*a);
      });
    };
    const auto mlp = [&](auto change) {
      each([&](LayerSpec& l) {
        if (auto* m = std::get_if<MlpSpec>(&l.ffn)) change(*m);
      });
    };
    const auto moe = [&](auto change) {
      each([&](LayerSpec& l) {
        if (auto* m = std::get_if<MoeSpec>(&l.ffn)) change(*m);
      });
    };
    attention([](AttentionSpec& a) { a.qkv_bias = !a.qkv_bias; });
    attention([](AttentionSpec& a) { a.out_bias = !a.out_bias; });
    attention([](AttentionSpec& a) { a.qkv_bias = !a.qkv_bias, a.out_bias = !a.out_bias; });
    attention([](AttentionSpec& a) { a.sinks = !a.sinks; });
    for (const QkNorm norm : {QkNorm::none, QkNorm::per_head, QkNorm::full_width, QkNorm::per_head_weights})
      attention([&](AttentionSpec& a) { a.qk_norm = norm, a.qk_norm_spec.eps = d.spec.norm.eps; });
    mlp([](MlpSpec& m) { m.bias = !m.bias; });
    mlp([](MlpSpec& m) { m.gated = !m.gated; });
    moe([](MoeSpec& m) { m.bias = !m.bias; });
    moe([](MoeSpec& m) { m.shared_gate = !m.shared_gate; });
    moe([](MoeSpec& m) { m.shared.reset(); });
    moe([](MoeSpec& m) { m.router.correction_bias = !m.router.correction_bias; });
    moe([](MoeSpec& m) { m.router.bias = !m.router.bias; });
    for (const Residual residual : {Residual::pre_norm, Residual::post_norm, Residual::sandwich,
                                    Residual::parallel, Residual::parallel_shared})
      each([&](LayerSpec& l) { l.residual = residual; });
    spec([](ModelSpec& m) { m.tied_embeddings = !m.tied_embeddings; });
    spec([](ModelSpec& m) { m.lm_head_bias = !m.lm_head_bias; });
    spec([](ModelSpec& m) { m.norm.bias = !m.norm.bias, m.norm.kind = NormKind::layer; });
    renames(d, all);
    return all;
  }

  // Unknown tensors that have a missing weight's shape, the likeliest weight first.
  void renames(const Description& d, std::vector<Move>& all) const {
    std::map<std::string, const WeightSlot*> slots;
    const std::vector<WeightSlot> list = weight_slots(d.spec);
    for (const WeightSlot& slot : list) slots[slot.name] = &slot;
    std::vector<std::string> missing, unknown;
    for (const WeightProblem& p : problems(d)) {
      if (p.kind == "missing") missing = p.names;
      if (p.kind == "unknown") unknown = p.names;
    }
    std::set<std::string> seen;
    for (const std::string& tensor : unknown) {
      if (tensor.ends_with(".bias") || !seen.insert(generic(tensor, "{i}")).second) continue;
      const std::vector<std::int64_t>& shape = shape_of_.at(tensor);
      std::string best;
      int likeliest = -1;
      for (const std::string& name : missing) {
        const WeightSlot& slot = *slots.at(name);
        const bool fits = shape.size() == 1
                              ? slot.rows == 1 && slot.cols == shape[0]
                              : shape.size() == 2 && slot.rows == shape[0] && slot.cols == shape[1];
        if (!fits || name.ends_with(".bias")) continue;
        const std::string ours = last_part(name), theirs = last_part(tensor);
        const bool synonym = std::ranges::any_of(
            synonyms, [&](const Synonym& s) { return ours == s.slot && theirs == s.name; });
        const int score = synonym ? 2 : theirs.find(ours) != std::string::npos ? 1 : 0;
        if (score > likeliest) likeliest = score, best = name;
      }
      if (best.empty()) continue;
      std::string from = generic(tensor, "{i}"), to = generic(best, "{i}");
      if (from.ends_with(".weight")) from.resize(from.size() - 7);
      // {layer} on both sides where there is one number.
      const auto layered = [](std::string& text) {
        const std::size_t at = text.find("layers.{i}");
        if (at != std::string::npos) text = "{layer}" + text.substr(at + 10);
      };
      layered(from), layered(to);
      Move move{d, ".rename(\"" + from + "\", \"" + to + "\")"};
      move.first.weight_map_json = WeightMap::from_json(d.weight_map_json).rename(from, to).to_json();
      all.push_back(std::move(move));
    }
  }

  // ---------------------------------------------------------------- the text

  std::string file(const Candidate& c, const SpecCode& code, const std::vector<std::string>& general) const {
    std::string text =
        "// " + architecture_ + ". Written by ttt new as a start; the nearest known family is " + c.family +
        ".\n// Answer what is marked QUESTION, then take the mark away; ttt check says what is still "
        "wrong.\n";
    for (const std::string& question : general) text += "// QUESTION: " + question + "\n";
    text +=
        "#include <cmath>\n\n#include \"ttt/convert/decoder_spec.h\"\n#include "
        "\"ttt/convert/model_entry.h\"\n\n"
        "namespace ttt::models {\n\n" +
        code.text + "\n" + map_code(c.d) + "static const Family " + name_ + "(\"" + name_ + "\", {\"" +
        architecture_ + "\"}, describe, weights);\n\n}  // namespace ttt::models\n";
    return text;
  }

  std::string map_code(const Description& d) const {
    const Json operations = Json::parse(d.weight_map_json).at("operations");
    const auto ops = [](const WeightMap& map) { return Json::parse(map.to_json()).at("operations"); };
    const Json hf = ops(hf_decoder_names()), moe = ops(hf_moe_names());
    const auto stands_at = [&](const Json& part, std::size_t at) {
      if (at + part.size() > operations.size()) return false;
      for (std::size_t i = 0; i < part.size(); ++i) {
        if (operations[at + i] != part[i]) return false;
      }
      return true;
    };
    std::string text = "static WeightMap weights(const ModelSpec&) {\n  return ";
    std::size_t at = 0;
    if (stands_at(hf, 0)) {
      text += "hf_decoder_names()";
      at = hf.size();
    } else {
      text += "WeightMap()";
    }
    while (at < operations.size()) {
      if (stands_at(moe, at)) {
        text += "\n      .append(hf_moe_names())";
        at += moe.size();
        continue;
      }
      const std::string call = call_of(operations[at++]);
      text += "\n      " + call;
      if (std::ranges::find(renames_, call) != renames_.end())
        text += "  // QUESTION: chosen by shape and name; is it this weight?";
    }
    const std::size_t comment = text.rfind("  // QUESTION");
    if (comment != std::string::npos && text.find('\n', comment) == std::string::npos)
      return text + "\n      ;\n}\n\n";
    return text + ";\n}\n\n";
  }

  static std::string quoted(const Json& names) {
    if (names.is_string()) return "\"" + names.get<std::string>() + "\"";
    std::string text;
    for (const Json& name : names) text += (text.empty() ? "\"" : ", \"") + name.get<std::string>() + "\"";
    return "{" + text + "}";
  }

  // One operation as a call of WeightMap.
  static std::string call_of(const Json& o) {
    const std::string op = o.at("op").get<std::string>();
    std::vector<std::string> arguments;
    std::string after;
    for (const auto& [key, value] : o.items()) {
      if (key == "op") continue;
      if (value.is_string() || value.is_array()) {
        if (key == "sizes") {
          after += (after.empty() ? "" : ", ") + std::string(".sizes = {") + value.dump().substr(1);
          after.back() = '}';
        } else if (key == "function") {
          after += (after.empty() ? "" : ", ") + std::string(".op = UnaryOp::") + value.get<std::string>();
        } else {
          arguments.push_back(quoted(value));
        }
      } else if (key == "begin" || key == "count" || key == "heads") {
        arguments.push_back(value.dump());
      } else if (key == "scale" || key == "offset") {
        after += (after.empty() ? "" : ", ") + ("." + key) + " = " + cpp_float(value.get<float>());
      } else {
        after += (after.empty() ? "" : ", ") + ("." + key) + " = " + value.dump();
      }
    }
    if (!after.empty()) arguments.push_back((op == "apply" ? "Transform{" : "{") + after + "}");
    std::string text = "." + op + "(";
    for (std::size_t i = 0; i < arguments.size(); ++i) text += (i > 0 ? ", " : "") + arguments[i];
    return text + ")";
  }

  std::string name_;
  const LoadOptions& options_;
  Checkpoint checkpoint_;
  Json config_;
  std::string architecture_;
  std::vector<NamedShape> shapes_;
  std::map<std::string, std::vector<std::int64_t>> shape_of_;
  std::vector<std::string> questions_, renames_;
};

}  // namespace

Scaffold scaffold(const std::filesystem::path& path, std::string_view name, const LoadOptions& options) {
  const bool identifier =
      !name.empty() && !std::isdigit(static_cast<unsigned char>(name.front())) &&
      std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) || c == '_'; });
  if (!identifier)
    throw Error("no name for a family: '" + printable(name) + "'", "--name", "use letters, digits and _");
  return Writer(path, std::string(name), options).write();
}

}  // namespace ttt::inline v2::testing
