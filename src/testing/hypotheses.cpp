#include "testing/hypotheses.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <type_traits>

#include "testing/numbers.h"
#include "ttt/base/error.h"
#include "ttt/convert/weight_map.h"

namespace ttt::inline v2::testing {

namespace {

using Json = nlohmann::ordered_json;

// ---------------------------------------------------------------- numbers of the config

// Every number of the config whose key contains one of the words, at any depth.
void collect(const Json& json, const std::vector<std::string>& words, std::vector<float>& found) {
  if (!json.is_object()) return;
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) collect(value, words, found);
    const bool named = std::ranges::any_of(
        words, [&](const std::string& word) { return key.find(word) != std::string::npos; });
    if (named && value.is_number()) found.push_back(value.get<float>());
  }
}

struct Numbers {
  explicit Numbers(const Json& config) : config_(config) {}
  std::vector<float> of(const std::vector<std::string>& words) const {
    std::vector<float> found;
    collect(config_, words, found);
    std::ranges::sort(found);
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
  }

 private:
  const Json& config_;
};

std::string text(const std::optional<int>& v) { return v ? std::to_string(*v) : "none"; }
std::string text(float v) { return short_number(v); }
std::string text(int v) { return std::to_string(v); }

// ---------------------------------------------------------------- one layer

// Named variants of one layer.
class Variants {
 public:
  struct Variant {
    std::string cause, area;
    LayerSpec spec;
  };

  Variants(const LayerSpec& base, const ModelSpec& model, const HfConfig& config, const Numbers& numbers,
           int layer)
      : base_(base), model_(model), config_(config), numbers_(numbers), layer_(layer) {
    if (const auto* a = std::get_if<AttentionSpec>(&base.mixer)) attention(*a);
    if (const auto* a = std::get_if<LatentAttentionSpec>(&base.mixer)) latent_attention(*a);
    if (const auto* s = std::get_if<SelectiveSsmSpec>(&base.mixer)) activation<SelectiveSsmSpec>(*s, "attn");
    if (const auto* s = std::get_if<SsdSpec>(&base.mixer)) ssd(*s);
    if (const auto* s = std::get_if<GatedDeltaNetSpec>(&base.mixer)) {
      mixer<GatedDeltaNetSpec>("beta: times 2 instead of times 1", [](auto& x) { x.beta_scale = 2; });
      mixer<GatedDeltaNetSpec>("beta: times 1 instead of times 2", [](auto& x) { x.beta_scale = 1; });
      for (UnaryOp op : {UnaryOp::silu, UnaryOp::sigmoid})
        mixer<GatedDeltaNetSpec>(
            "output gate: " + std::string(name(op)) + " instead of " + std::string(name(s->gate_act)),
            [op](auto& x) { x.gate_act = op; });
    }
    if (const auto* m = std::get_if<MlpSpec>(&base.ffn)) {
      activation<MlpSpec>(*m, "ffn");
      ffn<MlpSpec>("bounds of the gated unit: none", [](auto& x) { x.limit.reset(); });
    }
    if (const auto* m = std::get_if<MoeSpec>(&base.ffn)) moe(*m);
    residual();
  }

  std::vector<Variant> all;

 private:
  template <class F>
  void add(std::string cause, const char* area, F change) {
    LayerSpec changed = base_;
    change(changed);
    if (changed != base_) all.push_back({std::move(cause), area, std::move(changed)});
  }
  template <class Spec, class F>
  void mixer(std::string cause, F change) {
    add(std::move(cause), "attn", [&](LayerSpec& l) { change(std::get<Spec>(l.mixer)); });
  }
  template <class Spec, class F>
  void ffn(std::string cause, F change) {
    add(std::move(cause), "ffn", [&](LayerSpec& l) { change(std::get<Spec>(l.ffn)); });
  }

  void attention(const AttentionSpec& a) {
    const auto set = [&](std::string cause, auto change) { mixer<AttentionSpec>(std::move(cause), change); };
    rotation(a);
    // Windows.
    const auto window = [&](std::optional<int> n, const std::string& note = {}) {
      set("window: " + text(n) + " instead of " + text(a.window) + note,
          [&](AttentionSpec& s) { s.window = n; });
    };
    if (a.window) {
      window(*a.window + 1, ", off by one");
      if (*a.window > 1) window(*a.window - 1, ", off by one");
      window(std::nullopt);
    }
    for (float n : numbers_.of({"window"})) {
      if (n >= 1 && n < 1e9f) window(static_cast<int>(n));
    }
    if (a.chunk) set("chunks of attention: none", [](AttentionSpec& s) { s.chunk.reset(); });
    // Scale.
    const auto scale = [&](std::optional<float> v) {
      const float standard = 1 / std::sqrt(static_cast<float>(a.head_dim));
      set("attention scale: " + text(v.value_or(standard)) + " instead of " +
              text(a.scale.value_or(standard)),
          [&](AttentionSpec& s) { s.scale = v; });
    };
    scale(std::nullopt);
    scale(1.0f);
    scale(1 / static_cast<float>(a.head_dim));
    scale(1 / std::sqrt(static_cast<float>(model_.dim) / static_cast<float>(a.heads)));
    for (float n : numbers_.of({"scal", "multiplier", "mult"})) {
      if (n <= 0) continue;
      scale(n);
      scale(1 / n);
      scale(1 / std::sqrt(n));
    }
    // Soft cap, clipping, norms of q and k.
    const auto cap = [&](std::optional<float> v) {
      set("soft cap of scores: " + (v ? text(*v) : "none") + " instead of " +
              (a.softcap ? text(*a.softcap) : "none"),
          [&](AttentionSpec& s) { s.softcap = v; });
    };
    cap(std::nullopt);
    for (float n : numbers_.of({"softcap", "soft_cap"})) {
      if (n > 0) cap(n);
    }
    set("clipping of q, k and v: none", [](AttentionSpec& s) { s.clip_qkv.reset(); });
    for (float n : numbers_.of({"clip"})) {
      if (n > 0) set("clipping of q, k and v: at " + text(n), [n](AttentionSpec& s) { s.clip_qkv = n; });
    }
    if (a.qk_norm != QkNorm::none) {
      set(a.qk_norm_after_rope ? "norm of q and k: before RoPE instead of after it"
                               : "norm of q and k: after RoPE instead of before it",
          [](AttentionSpec& s) { s.qk_norm_after_rope = !s.qk_norm_after_rope; });
      for (float eps : epsilons())
        set("eps of the norm of q and k: " + text(eps) + " instead of " + text(a.qk_norm_spec.eps),
            [eps](AttentionSpec& s) { s.qk_norm_spec.eps = eps; });
    }
    if (a.alibi != 0) {
      const float root = 1 / std::sqrt(static_cast<float>(a.head_dim));
      for (float by : {1.0f, root, 0.0f})
        set("ALiBi: slopes times " + text(by) + " instead of " + text(a.alibi),
            [by](AttentionSpec& s) { s.alibi = by; });
    }
    if (a.gate) {
      for (UnaryOp op : {UnaryOp::sigmoid, UnaryOp::silu})
        set("gate of attention: " + std::string(name(op)) + " instead of " + std::string(name(a.gate->act)),
            [op](AttentionSpec& s) { s.gate->act = op; });
    }
  }

  void latent_attention(const LatentAttentionSpec& a) {
    const auto set = [&](std::string cause, auto change) {
      mixer<LatentAttentionSpec>(std::move(cause), change);
    };
    if (a.rope) {
      set(a.rope->interleaved ? "RoPE layout: halves instead of interleaved pairs"
                              : "RoPE layout: interleaved pairs instead of halves",
          [](LatentAttentionSpec& s) { s.rope->interleaved = !s.rope->interleaved; });
      for (float theta : numbers_.of({"theta", "base"})) {
        if (theta > 1)
          set("RoPE theta: " + short_number(theta) + " instead of " + short_number(a.rope->theta),
              [theta](LatentAttentionSpec& s) { s.rope->theta = theta; });
      }
      set("RoPE scaling: none", [](LatentAttentionSpec& s) { s.rope->scaling = {}; });
    }
    set("attention scale: that of the heads' width", [](LatentAttentionSpec& s) { s.scale.reset(); });
    for (float n : numbers_.of({"scal", "multiplier"})) {
      if (n > 0) set("attention scale: " + text(n), [n](LatentAttentionSpec& s) { s.scale = n; });
    }
    if (a.window) {
      for (int by : {1, -1})
        set("window: " + text(*a.window + by) + " instead of " + text(a.window) + ", off by one",
            [by](LatentAttentionSpec& s) { *s.window += by; });
      set("window: none instead of " + text(a.window), [](LatentAttentionSpec& s) { s.window.reset(); });
    }
    for (float eps : epsilons())
      set("eps of the latents' norms: " + text(eps) + " instead of " + text(a.norm_eps),
          [eps](LatentAttentionSpec& s) { s.norm_eps = eps; });
  }

  void rotation(const AttentionSpec& a) {
    const auto set = [&](std::string cause, auto change) { mixer<AttentionSpec>(std::move(cause), change); };
    std::optional<RopeSpec> said;
    try {
      said = config_.rope(layer_);
    } catch (const Error&) {  // a kind of its own
    }
    if (!a.rope) {
      if (said) set("RoPE: as config.json says, instead of none", [&](AttentionSpec& s) { s.rope = said; });
      return;
    }
    const RopeSpec& rope = *a.rope;
    set(rope.interleaved ? "RoPE layout: halves instead of interleaved pairs"
                         : "RoPE layout: interleaved pairs instead of halves",
        [](AttentionSpec& s) { s.rope->interleaved = !s.rope->interleaved; });
    std::vector<float> thetas = numbers_.of({"theta", "base"});
    thetas.insert(thetas.end(), {1e4f, 5e5f, 1e6f});
    for (float theta : thetas) {
      if (theta > 1)
        set("RoPE theta: " + short_number(theta) + " instead of " + short_number(rope.theta),
            [theta](AttentionSpec& s) { s.rope->theta = theta; });
    }
    std::vector<int> dims{0, a.head_dim / 2, a.head_dim / 4};
    for (float n : numbers_.of({"partial", "rotary_pct", "rotary_dim"}))
      dims.push_back(static_cast<int>(n <= 1 ? n * static_cast<float>(a.head_dim) : n) / 2 * 2);
    for (int n : dims) {
      if (n < 0 || n >= a.head_dim) continue;
      const auto shown = [&](int dim) { return text(dim == 0 ? a.head_dim : dim); };
      set("RoPE: turns " + shown(n) + " dimensions of a head instead of " + shown(rope.rotary_dim),
          [n](AttentionSpec& s) { s.rope->rotary_dim = n; });
    }
    set("RoPE scaling: none", [](AttentionSpec& s) { s.rope->scaling = {}; });
    if (said) {
      set("RoPE scaling: as config.json says", [&](AttentionSpec& s) { s.rope->scaling = said->scaling; });
      set("RoPE: parameters as config.json says", [&](AttentionSpec& s) {
        const bool interleaved = s.rope->interleaved;
        s.rope = said;
        s.rope->interleaved = interleaved;
      });
    }
    set("RoPE: none in this layer", [](AttentionSpec& s) { s.rope.reset(); });
  }

  void ssd(const SsdSpec& s) {
    activation<SsdSpec>(s, "attn");
    constexpr std::pair<SsmNorm, const char*> kinds[] = {{SsmNorm::after_gate, "after the gate"},
                                                         {SsmNorm::before_gate, "before the gate"}};
    for (const auto& [kind, words] : kinds) {
      if (s.norm != SsmNorm::none)
        mixer<SsdSpec>(std::string("norm of the mixer: ") + words,
                       [kind = kind](SsdSpec& x) { x.norm = kind; });
    }
    mixer<SsdSpec>("bounds of the step: none", [](SsdSpec& x) { x.dt_min.reset(), x.dt_max.reset(); });
  }

  template <class Spec>
  void activation(const Spec& s, const char* area) {
    for (UnaryOp op :
         {UnaryOp::silu, UnaryOp::gelu, UnaryOp::gelu_tanh, UnaryOp::relu, UnaryOp::quick_gelu}) {
      add("activation: " + std::string(name(op)) + " instead of " + std::string(name(s.act.op)), area,
          [&](LayerSpec& l) {
            if constexpr (std::is_same_v<Spec, MlpSpec> || std::is_same_v<Spec, MoeSpec>) {
              std::get<Spec>(l.ffn).act = {op};
            } else {
              std::get<Spec>(l.mixer).act = {op};
            }
          });
    }
  }

  void moe(const MoeSpec& m) {
    activation<MoeSpec>(m, "ffn");
    const auto router = [&](std::string cause, auto change) {
      ffn<MoeSpec>("router: " + std::move(cause), [&](MoeSpec& s) { change(s.router); });
    };
    const RouterSpec& r = m.router;
    const bool first = r.order == RouterOrder::score_then_top_k;
    const RouterOrder other = first ? RouterOrder::top_k_then_score : RouterOrder::score_then_top_k;
    const RouterScore kind = r.score == RouterScore::softmax ? RouterScore::sigmoid : RouterScore::softmax;
    router(r.score == RouterScore::softmax ? "sigmoid instead of softmax" : "softmax instead of sigmoid",
           [&](RouterSpec& s) { s.score = kind; });
    router(r.renormalize ? "chosen scores are not divided by their sum"
                         : "chosen scores are divided by their sum",
           [](RouterSpec& s) { s.renormalize = !s.renormalize; });
    router(first ? "experts are chosen before they are scored" : "experts are scored before they are chosen",
           [&](RouterSpec& s) { s.order = other; });
    router("other order, and chosen scores are " + std::string(r.renormalize ? "not " : "") +
               "divided by their sum",
           [&](RouterSpec& s) { s.order = other, s.renormalize = !s.renormalize; });
    std::vector<float> scales = numbers_.of({"scal"});
    scales.push_back(1);
    for (float by : scales) {
      if (by > 0)
        router("chosen scores times " + text(by) + " instead of " + text(r.scale),
               [by](RouterSpec& s) { s.scale = by; });
    }
    router("experts are chosen among all groups", [](RouterSpec& s) { s.groups = s.top_groups = 1; });
    router("a group's score is its best expert's, not the sum of its two best",
           [](RouterSpec& s) { s.group_score_top = 1; });
    router("a group's score is the sum of its two best", [](RouterSpec& s) { s.group_score_top = 2; });
    ffn<MoeSpec>("bounds of the gated unit: none", [](MoeSpec& s) { s.limit.reset(); });
  }

  void residual() {
    using R = Residual;
    const auto arrange = [&](R from, R to, const char* words) {
      if (base_.residual == from)
        add(std::string("residual stream: ") + words, "norm", [to](LayerSpec& l) { l.residual = to; });
    };
    arrange(R::pre_norm, R::parallel,
            "attention and feed-forward side by side instead of one after the other");
    arrange(R::parallel, R::pre_norm,
            "attention and feed-forward one after the other instead of side by side");
    arrange(R::post_norm, R::norm_after_add, "norms after the addition instead of before it");
    arrange(R::norm_after_add, R::post_norm, "norms before the addition instead of after it");
    std::vector<float> scales = numbers_.of({"residual", "depth", "multiplier"});
    scales.push_back(1);
    for (float by : scales) {
      for (float v : {by, by / std::sqrt(static_cast<float>(model_.layers.size()))}) {
        if (v > 0)
          add("residual scale: " + text(v) + " instead of " + text(base_.residual_scale), "norm",
              [v](LayerSpec& l) { l.residual_scale = v; });
      }
    }
  }

  std::vector<float> epsilons() const {
    std::vector<float> all_eps = numbers_.of({"eps"});
    all_eps.insert(all_eps.end(), {1e-5f, 1e-6f, 1e-12f});
    return all_eps;
  }

  const LayerSpec& base_;
  const ModelSpec& model_;
  const HfConfig& config_;
  const Numbers& numbers_;
  int layer_;
};

// ---------------------------------------------------------------- weight maps

Json operations(const Description& d) { return Json::parse(d.weight_map_json).at("operations"); }

// The last component of a slot is `a`, apart from ".bias".
bool ends_in(const std::string& slot, const std::string& part) {
  const std::string bare = slot.ends_with(".bias") ? slot.substr(0, slot.size() - 5) : slot;
  return bare == part || bare.ends_with("." + part);
}
std::string replaced(const std::string& slot, const std::string& from, const std::string& to) {
  const std::string tail = slot.ends_with(".bias") ? ".bias" : "";
  return slot.substr(0, slot.size() - tail.size() - from.size()) + to + tail;
}

class Maps {
 public:
  Maps(const Description& d, std::vector<Hypothesis>& out) : d_(d), out_(out), operations_(operations(d)) {}

  void values() {
    swapped("gate", "up", "ffn", "gate and up are exchanged");
    swapped("k", "v", "attn", "k and v are exchanged");
    swapped("attn_norm", "ffn_norm", "norm", "the norms before attention and feed-forward are exchanged");
    swapped("attn_post_norm", "ffn_norm", "norm",
            "the norms behind attention and before feed-forward are exchanged");
    swapped("attn_post_norm", "ffn_post_norm", "norm",
            "the norms behind attention and feed-forward are exchanged");
    swapped("attn_norm", "attn_post_norm", "norm", "the norms before and behind attention are exchanged");
    swapped("ffn_norm", "ffn_post_norm", "norm", "the norms before and behind feed-forward are exchanged");
    for (const char* pattern :
         {"*norm", "*.attn_norm", "*.ffn_norm", "*_post_norm", "*.attn.?_norm", "norm"}) {
      for (float by : {1.0f, -1.0f})
        appended(std::string("weights of norms ") + pattern +
                     (by > 0 ? ": 1 is added to them (the network multiplies by 1 + weight)"
                             : ": nothing is added to them"),
                 "norm", [&](WeightMap& map) {
                   if (std::string_view(pattern) == "*.attn.?_norm") {
                     map.apply("*.attn.q_norm", ttt::add(by)).apply("*.attn.k_norm", ttt::add(by));
                   } else {
                     map.apply(pattern, ttt::add(by));
                   }
                 });
    }
    if (!d_.spec.layers.empty()) {
      if (const auto* a = std::get_if<AttentionSpec>(&d_.spec.layers.front().mixer))
        appended("q and k: rows reordered for interleaved rotation, as GGUF files have them", "attn",
                 [&](WeightMap& map) { map.permute("*.attn.q", a->heads).permute("*.attn.k", a->kv_heads); });
    }
    for (std::size_t i = 0; i < operations_.size(); ++i) {
      const std::string op = operations_[i].at("op").get<std::string>();
      if (op == "apply" || op == "permute" || op == "transpose") removed(i, op);
      if (op == "split") layouts(i);
    }
    transposed(true);
  }

  // Exchanged axes; `square`: of matrices whose shape does not tell.
  void transposed(bool square) {
    std::set<std::string> seen;
    for (const WeightSlot& slot : weight_slots(d_.spec)) {
      if (slot.role == WeightRole::vector || (square && slot.rows != slot.cols * slot.experts)) continue;
      const std::string part = slot.name.substr(slot.name.rfind('.') + 1);
      for (const Json& o : operations_) {
        if (!o.contains("from") || !o.at("from").is_string() || !o.contains("to")) continue;
        const Json& to = o.at("to");
        const bool leads =
            to.is_string()
                ? ends_in(to.get<std::string>(), part)
                : std::ranges::any_of(to, [&](const Json& t) { return ends_in(t.get<std::string>(), part); });
        const std::string from = o.at("from").get<std::string>();
        if (leads && seen.insert(from).second)
          appended("weight " + part + ": its axes are exchanged (.transpose(\"" + from + "\"))",
                   area_of(slot.name), [&](WeightMap& map) { map.transpose(from); });
      }
    }
  }

 private:
  static std::string area_of(const std::string& slot) {
    for (const char* area : {"norm", "ffn", "attn", "embed"}) {
      if (slot.find(area) != std::string::npos) return area;
    }
    return "head";
  }

  void push(std::string cause, std::string area, std::string map_json) {
    if (map_json == d_.weight_map_json) return;
    Hypothesis h{std::move(cause), std::move(area), d_};
    h.changed.weight_map_json = std::move(map_json);
    out_.push_back(std::move(h));
  }
  void push(std::string cause, std::string area, const Json& changed) {
    push(std::move(cause), std::move(area),
         WeightMap::from_json(Json{{"operations", changed}}.dump()).to_json());
  }
  template <class F>
  void appended(std::string cause, std::string area, F append) {
    WeightMap map = WeightMap::from_json(d_.weight_map_json);
    append(map);
    push(std::move(cause), std::move(area), map.to_json());
  }

  void swapped(const std::string& a, const std::string& b, const char* area, const char* words) {
    Json changed = operations_;
    const auto exchange = [&](Json& to) {
      const std::string slot = to.get<std::string>();
      if (ends_in(slot, a)) {
        to = replaced(slot, a, b);
      } else if (ends_in(slot, b)) {
        to = replaced(slot, b, a);
      }
    };
    for (Json& o : changed) {
      if (!o.contains("to")) continue;
      if (o.at("to").is_string()) {
        exchange(o.at("to"));
      } else {
        for (Json& to : o.at("to")) exchange(to);
      }
    }
    push(std::string("weights: ") + words, area, changed);
  }

  void removed(std::size_t i, const std::string& op) {
    Json changed = operations_;
    const std::string pattern = changed[i].value("slots", changed[i].value("pattern", std::string()));
    changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
    push("weights: " + op + " of " + pattern + " is too much", area_of(pattern), changed);
  }

  // Other ways to cut one tensor into several.
  void layouts(std::size_t i) {
    const Json& split = operations_[i];
    const std::string from = split.at("from").get<std::string>();
    const std::string area = area_of(split.at("to").at(0).get<std::string>());
    const auto variant = [&](const std::string& words, auto change) {
      Json changed = operations_;
      change(changed[i]);
      push("weights: " + from + " is cut " + words, area, changed);
    };
    variant(split.value("interleaved", false) ? "into parts one after the other" : "row by row in turn",
            [](Json& o) {
              o["interleaved"] = !o.value("interleaved", false);
              o.erase("groups");
            });
    std::set<int> groups{1};
    if (!d_.spec.layers.empty()) {
      if (const auto* a = std::get_if<AttentionSpec>(&d_.spec.layers.front().mixer))
        groups.insert({a->heads, a->kv_heads});
    }
    for (int n : groups)
      variant("in " + std::to_string(n) + " groups that each hold all parts",
              [n](Json& o) { o["groups"] = n; });
    Json order = split.at("to");
    std::sort(order.begin(), order.end());
    do {
      std::string words;
      for (const Json& to : order) {
        const std::string slot = to.get<std::string>();
        words += (words.empty() ? "" : ", ") + slot.substr(slot.rfind('.') + 1);
      }
      variant("in the order " + words, [&](Json& o) { o["to"] = order; });
    } while (order.size() < 5 && std::next_permutation(order.begin(), order.end()));
  }

  const Description& d_;
  std::vector<Hypothesis>& out_;
  Json operations_;
};

// ---------------------------------------------------------------- the whole

class Generator {
 public:
  Generator(const Description& d, const HfConfig& config, int layer)
      : d_(d),
        config_(config),
        json_(Json::parse(config.json(), nullptr, false)),
        numbers_(json_),
        layer_(layer) {}

  std::vector<Hypothesis> all() {
    layers();
    model();
    Maps(d_, out_).values();
    return std::move(out_);
  }

 private:
  // A change of every layer, of those that are as the diverging one, and of that one alone.
  void layers() {
    const std::vector<LayerSpec>& layers = d_.spec.layers;
    if (layers.empty()) return;
    std::vector<Variants> variants;
    for (std::size_t i = 0; i < layers.size(); ++i)
      variants.emplace_back(layers[i], d_.spec, config_, numbers_, static_cast<int>(i));
    const std::size_t at = layer_ < 0 ? 0 : std::min(static_cast<std::size_t>(layer_), layers.size() - 1);
    std::set<std::string> seen;
    const auto scope = [&](const std::string& words, auto includes) {
      for (const Variants::Variant& wanted : variants[at].all) {
        Hypothesis h{wanted.cause + words, wanted.area, d_};
        for (std::size_t i = 0; i < layers.size(); ++i) {
          if (!includes(i)) continue;
          // The same words where they hold; else the layer stays, it differs in another way.
          const auto same = std::ranges::find(variants[i].all, wanted.cause, &Variants::Variant::cause);
          if (same != variants[i].all.end()) h.changed.spec.layers[i] = same->spec;
        }
        if (seen.insert(to_json(h.changed.spec, -1)).second) out_.push_back(std::move(h));
      }
    };
    scope("", [](std::size_t) { return true; });
    scope(", in layers like layer " + std::to_string(at),
          [&](std::size_t i) { return layers[i] == layers[at]; });
    // Layers that the config calls by the same name.
    try {
      const std::string type = config_.layer_type(static_cast<int>(at));
      if (!type.empty())
        scope(", in layers of type " + type,
              [&](std::size_t i) { return config_.layer_type(static_cast<int>(i)) == type; });
    } catch (const Error&) {  // its list has another length
    }
    scope(", in layer " + std::to_string(at) + " alone", [&](std::size_t i) { return i == at; });
  }

  template <class F>
  void model(std::string cause, const char* area, F change) {
    Hypothesis h{std::move(cause), area, d_};
    change(h.changed.spec);
    if (h.changed.spec != d_.spec) out_.push_back(std::move(h));
  }

  void model() {
    const ModelSpec& m = d_.spec;
    std::vector<float> eps = numbers_.of({"eps"});
    eps.insert(eps.end(), {1e-5f, 1e-6f, 1e-12f});
    for (float v : eps)
      model("eps of norms: " + text(v) + " instead of " + text(m.norm.eps), "norm",
            [v](ModelSpec& s) { s.norm.eps = v; });
    if (!m.norm.bias)
      model(m.norm.kind == NormKind::rms ? "norms: layer norms instead of RMS norms"
                                         : "norms: RMS norms instead of layer norms",
            "norm", [](ModelSpec& s) {
              s.norm.kind = s.norm.kind == NormKind::rms ? NormKind::layer : NormKind::rms;
            });
    std::vector<float> scales = numbers_.of({"scal", "multiplier", "mult"});
    std::vector<float> embed{1, std::sqrt(static_cast<float>(m.dim))}, logit{1};
    for (float v : scales) {
      if (v <= 0) continue;
      embed.insert(embed.end(), {v, 1 / v});
      logit.insert(logit.end(), {v, 1 / v});
    }
    for (float v : embed)
      model("embedding scale: " + text(v) + " instead of " + text(m.embed_scale), "embed",
            [v](ModelSpec& s) { s.embed_scale = v; });
    for (float v : logit)
      model("logit scale: " + text(v) + " instead of " + text(m.logit_scale), "head",
            [v](ModelSpec& s) { s.logit_scale = v; });
    model("soft cap of logits: none", "head", [](ModelSpec& s) { s.logit_softcap.reset(); });
    for (float v : numbers_.of({"softcap", "soft_cap"})) {
      if (v > 0) model("soft cap of logits: " + text(v), "head", [v](ModelSpec& s) { s.logit_softcap = v; });
    }
    if (m.positions) {
      for (int offset : {0, 2})
        model("offset of positions: " + text(offset) + " instead of " + text(m.positions->offset), "embed",
              [offset](ModelSpec& s) { s.positions->offset = offset; });
    }
  }

  const Description& d_;
  const HfConfig& config_;
  Json json_;
  Numbers numbers_;
  int layer_;
  std::vector<Hypothesis> out_;
};

}  // namespace

std::vector<Hypothesis> hypotheses(const Description& d, const HfConfig& config, int layer,
                                   std::string_view area) {
  std::vector<Hypothesis> all = Generator(d, config, layer).all();
  std::ranges::stable_partition(all, [&](const Hypothesis& h) { return h.area == area; });
  return all;
}

std::vector<Hypothesis> shape_hypotheses(const Description& d) {
  std::vector<Hypothesis> all;
  Maps(d, all).transposed(false);
  return all;
}

}  // namespace ttt::inline v2::testing
