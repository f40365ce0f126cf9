// A Vocabulary from JSON whose keys are those of the GGUF metadata (tools/compare_tokenizers.py writes such
// files).
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "ttt/text/vocabulary.h"

inline ttt::Vocabulary vocabulary_from_json(const nlohmann::json& json, const std::string& source) {
  ttt::Vocabulary v;
  v.source = source;
  const std::string prefix = "tokenizer.ggml.";
  const auto get = [&](const char* key, auto& value) {
    const auto it = json.find(prefix + key);
    if (it != json.end()) value = it->get<std::decay_t<decltype(value)>>();
  };
  const auto get_optional = [&](const char* key, auto& value) {
    const auto it = json.find(prefix + key);
    if (it != json.end()) value = it->get<typename std::decay_t<decltype(value)>::value_type>();
  };
  get("model", v.model);
  get("pre", v.pre);
  get("tokens", v.tokens);
  get("scores", v.scores);
  get("merges", v.merges);
  std::vector<int> types;
  get("token_type", types);
  for (const int type : types) v.token_types.push_back(static_cast<ttt::TokenType>(type));
  get_optional("bos_token_id", v.bos_id);
  get_optional("eos_token_id", v.eos_id);
  get_optional("eot_token_id", v.eot_id);
  get_optional("eom_token_id", v.eom_id);
  get_optional("unknown_token_id", v.unknown_id);
  get_optional("seperator_token_id", v.separator_id);
  get_optional("padding_token_id", v.padding_id);
  get_optional("cls_token_id", v.cls_id);
  get_optional("mask_token_id", v.mask_id);
  get_optional("add_bos_token", v.add_bos);
  get_optional("add_eos_token", v.add_eos);
  get_optional("add_sep_token", v.add_sep);
  get_optional("add_space_prefix", v.add_space_prefix);
  get_optional("remove_extra_whitespaces", v.remove_extra_whitespaces);
  get_optional("escape_whitespaces", v.escape_whitespaces);
  std::vector<int> charsmap;
  get("precompiled_charsmap", charsmap);
  for (const int byte : charsmap) v.precompiled_charsmap += static_cast<char>(byte);
  return v;
}
