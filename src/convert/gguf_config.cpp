#include "convert/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2 {

std::span<const GgufKey> default_gguf_keys() {
  static const GgufKey keys[] = {
      {"hidden_size", "{arch}.embedding_length"},
      {"num_hidden_layers", "{arch}.block_count"},
      {"intermediate_size", "{arch}.feed_forward_length"},
      {"max_position_embeddings", "{arch}.context_length"},
      {"vocab_size", "{arch}.vocab_size"},
      {"num_attention_heads", "{arch}.attention.head_count"},
      {"num_key_value_heads", "{arch}.attention.head_count_kv"},
      {"head_dim", "{arch}.attention.key_length"},
      {"v_head_dim", "{arch}.attention.value_length"},
      {"rms_norm_eps", "{arch}.attention.layer_norm_rms_epsilon"},
      {"layer_norm_eps", "{arch}.attention.layer_norm_epsilon"},
      {"sliding_window", "{arch}.attention.sliding_window"},
      {"clip_qkv", "{arch}.attention.clamp_kqv"},
      {"attention_multiplier", "{arch}.attention.scale"},
      {"attn_logit_softcapping", "{arch}.attn_logit_softcapping"},
      {"final_logit_softcapping", "{arch}.final_logit_softcapping"},
      {"logits_scaling", "{arch}.logit_scale"},
      {"embedding_multiplier", "{arch}.embedding_scale"},
      {"residual_multiplier", "{arch}.residual_scale"},
      {"use_parallel_residual", "{arch}.use_parallel_residual"},
      {"rope_theta", "{arch}.rope.freq_base"},
      {"rope_local_base_freq", "{arch}.rope.freq_base_swa"},
      {"q_lora_rank", "{arch}.attention.q_lora_rank"},
      {"kv_lora_rank", "{arch}.attention.kv_lora_rank"},
      {"num_experts", "{arch}.expert_count"},
      {"num_experts_per_tok", "{arch}.expert_used_count"},
      {"moe_intermediate_size", "{arch}.expert_feed_forward_length"},
      {"n_shared_experts", "{arch}.expert_shared_count"},
      {"shared_expert_intermediate_size", "{arch}.expert_shared_feed_forward_length"},
      {"routed_scaling_factor", "{arch}.expert_weights_scale"},
      {"norm_topk_prob", "{arch}.expert_weights_norm"},
      {"n_group", "{arch}.expert_group_count"},
      {"topk_group", "{arch}.expert_group_used_count"},
      {"first_k_dense_replace", "{arch}.leading_dense_block_count"},
      {"decoder_sparse_step", "{arch}.interleave_moe_layer_step"},
  };
  return keys;
}

namespace detail {

std::string clean(std::string_view text) { return utf8::repair(text); }

namespace {

Json scalar(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> Json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, GgufArray>) {
          return std::visit(
              [](const auto& values) {
                Json list = Json::array();
                for (const auto& entry : values) {
                  if constexpr (std::is_same_v<std::decay_t<decltype(values)>, std::vector<std::string>>) {
                    list.push_back(clean(entry));
                  } else if constexpr (std::is_same_v<std::decay_t<decltype(values)>, std::vector<bool>>) {
                    list.push_back(static_cast<bool>(entry));
                  } else {
                    list.push_back(entry);
                  }
                }
                return list;
              },
              v);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return clean(v);
        } else {
          return v;
        }
      },
      value);
}

// A list that says the same of every layer is one value.
Json flattened(Json value) {
  if (value.is_array() && !value.empty() &&
      std::ranges::all_of(value, [&](const Json& v) { return v == value[0]; }))
    return value[0];
  return value;
}

class ConfigWriter {
 public:
  ConfigWriter(const GgufFile& file, std::span<const GgufKey> keys)
      : file_(file), arch_(file.architecture()), keys_(keys) {}

  Json write() {
    for (const GgufKey& key : default_gguf_keys()) copy(key);
    for (const GgufKey& key : keys_) copy(key);
    vocabulary();
    heads();
    layer_types();
    rope();
    flags();
    the_rest();
    return std::move(out_);
  }

 private:
  std::string key(std::string_view tail) const { return arch_ + "." + std::string(tail); }

  std::string expand(std::string pattern) const {
    if (const auto at = pattern.find("{arch}"); at != std::string::npos) pattern.replace(at, 6, arch_);
    return pattern;
  }

  void copy(const GgufKey& pair) {
    if (pair.gguf.starts_with("=")) {
      out_[pair.hf] = parse_json(pair.gguf.substr(1), pair.hf + " of a model's GGUF keys");
      return;
    }
    const std::string name = expand(pair.gguf);
    const GgufValue* value = file_.find_value(name);
    if (value == nullptr) return;
    used_.insert(name);
    out_[pair.hf] = flattened(scalar(*value));
  }

  const GgufValue* take(std::string_view tail) {
    const GgufValue* value = file_.find_value(key(tail));
    if (value != nullptr) used_.insert(key(tail));
    return value;
  }
  std::optional<double> number(std::string_view tail) {
    return take(tail) ? file_.number(key(tail)) : std::nullopt;
  }
  std::optional<std::int64_t> integer(std::string_view tail) {
    return take(tail) ? file_.integer(key(tail)) : std::nullopt;
  }
  std::optional<std::string> text(std::string_view tail) {
    return take(tail) ? file_.text(key(tail)) : std::nullopt;
  }

  void vocabulary() {
    // The table decides: it may be padded beyond the tokens.
    if (const GgufTensor* table = file_.find("token_embd.weight");
        table != nullptr && table->shape.size() == 2) {
      out_["vocab_size"] = table->shape[0];
    } else if (const GgufValue* tokens = file_.find_value("tokenizer.ggml.tokens");
               tokens != nullptr && !out_.contains("vocab_size")) {
      if (const auto* array = std::get_if<GgufArray>(tokens))
        out_["vocab_size"] = std::visit([](const auto& v) { return v.size(); }, *array);
    }
    out_["tie_word_embeddings"] = file_.find("output.weight") == nullptr;
  }

  void heads() {
    // Equal widths are the rule and need no second key.
    if (out_.contains("v_head_dim") && out_.contains("head_dim") && out_["v_head_dim"] == out_["head_dim"])
      out_.erase("v_head_dim");
    // A count for each layer, zero where a layer does not attend.
    if (Json& kv = out_["num_key_value_heads"]; kv.is_array()) {
      Json attending = Json::array(), count;
      bool equal = true;
      for (std::size_t i = 0; i < kv.size(); ++i) {
        if (kv[i] == 0) continue;
        equal = equal && (count.is_null() || count == kv[i]);
        count = kv[i];
        attending.push_back(i);
      }
      if (equal && !count.is_null()) {
        kv = count;
        out_["full_attn_idxs"] = std::move(attending);
      }
    } else if (kv.is_null()) {
      out_.erase("num_key_value_heads");
    }
    // Zero means "none" for these.
    for (const char* name :
         {"num_experts", "num_experts_per_tok", "sliding_window", "n_shared_experts", "clip_qkv"}) {
      if (out_.contains(name) && out_[name].is_number() && out_[name] == 0) out_.erase(name);
    }
    if (const auto gating = integer("expert_gating_func")) {
      if (*gating == 1 || *gating == 2) out_["scoring_func"] = *gating == 1 ? "softmax" : "sigmoid";
    }
    take("rope.scaling.finetuned");
    take("attention.causal");
  }

  void layer_types() {
    const GgufValue* pattern = take("attention.sliding_window_pattern");
    if (pattern == nullptr) return;
    const Json value = scalar(*pattern);
    if (value.is_array()) {
      Json types = Json::array();
      for (const Json& slides : value)
        types.push_back(slides == Json(true) || slides == Json(1) ? "sliding_attention" : "full_attention");
      out_["layer_types"] = std::move(types);
    } else {
      out_["sliding_window_pattern"] = value;
    }
  }

  std::vector<float> factors(const char* name) const {
    std::vector<float> values;
    const GgufTensor* tensor = file_.find(name);
    if (tensor == nullptr) return values;
    if (tensor->shape.size() != 1 || tensor->shape[0] > 65'536)
      throw Error("a table of rotary frequencies of another shape", name);
    values.resize(static_cast<std::size_t>(tensor->shape[0]));
    to_float(tensor->type, file_.bytes(*tensor).data(), values.size(), values.data());
    return values;
  }

  void rope() {
    if (const auto dims = integer("rope.dimension_count")) {
      const Json head = out_.value("head_dim", Json());
      const Json size = out_.value("hidden_size", Json()), count = out_.value("num_attention_heads", Json());
      const bool derived =
          size.is_number_integer() && count.is_number_integer() && count.get<std::int64_t>() > 0;
      const std::int64_t width = head.is_number_integer() ? head.get<std::int64_t>()
                                 : derived ? size.get<std::int64_t>() / count.get<std::int64_t>()
                                           : *dims;
      if (*dims != width) out_["rotary_dim"] = *dims;
    }
    Json scaling = Json::object();
    const std::string type = text("rope.scaling.type").value_or("none");
    const std::optional<double> factor = number("rope.scaling.factor"), linear = number("rope.scale_linear");
    const std::optional<double> attention = number("rope.scaling.attn_factor");
    const std::optional<std::int64_t> original = integer("rope.scaling.original_context_length");
    const std::optional<double> log_multiplier = number("rope.scaling.yarn_log_multiplier");
    const std::optional<double> fast = number("rope.scaling.yarn_beta_fast"),
                                slow = number("rope.scaling.yarn_beta_slow");
    // Factors per frequency: two sets for longrope; one set is the llama3 scaling, worked out by the
    // converter.
    const std::vector<float> longer = factors("rope_factors_long.weight"),
                             shorter = factors("rope_factors_short.weight");
    const std::vector<float> fixed = factors("rope_freqs.weight");
    if (!longer.empty() && !shorter.empty()) {
      scaling = {{"rope_type", "longrope"}, {"long_factor", longer}, {"short_factor", shorter}};
      if (attention) scaling["attention_factor"] = *attention;
      if (factor) scaling["factor"] = *factor;
    } else if (!fixed.empty() && std::ranges::any_of(fixed, [](float f) { return f != 1; })) {
      scaling = {{"rope_type", "longrope"},
                 {"long_factor", fixed},
                 {"short_factor", fixed},
                 {"factor", 1.0},
                 {"attention_factor", 1.0}};
    } else if (type == "yarn") {
      scaling = {{"rope_type", "yarn"}, {"factor", factor.value_or(1)}};
      if (log_multiplier) scaling["mscale"] = scaling["mscale_all_dim"] = *log_multiplier * 10;
      if (attention && *attention != 1)
        scaling["attention_factor"] = *attention * (0.1 * std::log(std::max(factor.value_or(1), 1.0)) + 1);
      if (fast) scaling["beta_fast"] = *fast;
      if (slow) scaling["beta_slow"] = *slow;
    } else if ((type == "linear" && factor) || linear) {
      const double by = factor.value_or(linear.value_or(1));
      if (by != 1) scaling = {{"rope_type", "linear"}, {"factor", by}};
    } else if (type != "none" && type != "linear") {
      throw Error("unknown rope scaling " + printable(type), key("rope.scaling.type"),
                  "none, linear, yarn and longrope are known");
    }
    if (scaling.empty()) return;
    if (original && *original > 0) scaling["original_max_position_embeddings"] = *original;
    out_["rope_scaling"] = std::move(scaling);
  }

  void flags() {
    const auto bias = [&](const char* hf, std::initializer_list<const char*> names) {
      if (std::ranges::any_of(names, [&](const char* n) { return file_.find(n) != nullptr; }))
        out_[hf] = true;
    };
    bias("attention_bias", {"blk.0.attn_q.bias", "blk.0.attn_qkv.bias"});
    bias("mlp_bias", {"blk.0.ffn_up.bias"});
  }

  // What nobody mapped stays under its own name, so that unread() reports it.
  void the_rest() {
    for (const auto& [name, value] : file_.metadata()) {
      if (!name.starts_with(arch_ + ".") || used_.contains(name)) continue;
      Json json = scalar(value);
      if (json.is_array() && json.size() > 1024) continue;
      out_[clean(name)] = flattened(std::move(json));
    }
  }

  const GgufFile& file_;
  std::string arch_;
  std::span<const GgufKey> keys_;
  std::set<std::string> used_;
  Json out_ = Json::object();
};

}  // namespace

Json gguf_config(const GgufFile& file, std::span<const GgufKey> keys) {
  return ConfigWriter(file, keys).write();
}

Json gguf_metadata(const GgufFile& file) {
  Json out = Json::object();
  for (const auto& [name, value] : file.metadata()) {
    if (const auto* array = std::get_if<GgufArray>(&value)) {
      const std::size_t count = std::visit([](const auto& v) { return v.size(); }, *array);
      static constexpr const char* types[] = {"integer", "number", "flag", "text"};
      if (count > 64) {
        out[clean(name)] = {{"type", types[array->index()]}, {"count", count}};
        continue;
      }
    }
    out[clean(name)] = scalar(value);
  }
  return out;
}

}  // namespace detail

}  // namespace ttt::inline v2
