#include "convert/hf_files.h"

#include <algorithm>

#include "convert/weight_map_impl.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/convert/gguf.h"

namespace ttt::inline v2::detail {

namespace fs = std::filesystem;

namespace {

// Everything that readers of tokenizers, templates and configs look for; "*" stands for any text.
constexpr std::string_view text_files[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "tokenizer.model*",
                                           "spiece.model",
                                           "sentencepiece.bpe.model",
                                           "tekken.json",
                                           "*.tiktoken",
                                           "vocab.json",
                                           "vocab.txt",
                                           "merges.txt",
                                           "chat_template.*",
                                           "generation_config.json",
                                           "*.py",  // configs may name classes of their own
                                           "LICENSE*",
                                           "NOTICE*",
                                           "USE_POLICY*"};

Json ids_json(const std::vector<std::int32_t>& ids) { return ids.size() == 1 ? Json(ids[0]) : Json(ids); }

Json tokenizer_config(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  const SpecialTokens special = checkpoint.special_tokens();
  Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
              {"clean_up_tokenization_spaces", false},
              {"add_bos_token", tokenizer.adds_bos()},
              {"add_eos_token", tokenizer.adds_eos()}};
  for (const auto& [key, token] : {std::pair{"bos_token", &special.bos},
                                   {"eos_token", &special.eos},
                                   {"unk_token", &special.unk},
                                   {"sep_token", &special.sep},
                                   {"pad_token", &special.pad},
                                   {"cls_token", &special.cls},
                                   {"mask_token", &special.mask}}) {
    if (*token) config[key] = utf8::repair(**token);
  }
  return config;
}

Json generation_config(const Checkpoint& checkpoint) {
  const GenerationDefaults g = checkpoint.generation();
  Json config = Json::object();
  if (!g.eos_ids.empty()) config["eos_token_id"] = ids_json(g.eos_ids);
  if (checkpoint.has_tokenizer()) {
    const Tokenizer tokenizer = checkpoint.tokenizer();
    if (tokenizer.bos_id()) config["bos_token_id"] = *tokenizer.bos_id();
    if (tokenizer.pad_id()) config["pad_token_id"] = *tokenizer.pad_id();
  }
  const auto sampling = [&](const char* key, const auto& value) {
    if (!value) return;
    config["do_sample"] = true;
    config[key] = *value;
  };
  sampling("temperature", g.temperature);
  sampling("top_k", g.top_k);
  sampling("top_p", g.top_p);
  sampling("min_p", g.min_p);
  sampling("repetition_penalty", g.repetition_penalty);
  return config;
}

}  // namespace

void set_run_dtype(Json& config, const Target& target) {
  const char* dtype = target.activation_dtype() == DataType::f32 ? "float32" : "bfloat16";
  for (const char* key : {"quantization_config", "compression_config"}) config.erase(key);
  config.erase("torch_dtype");
  config["dtype"] = dtype;
  for (auto& [key, part] : config.items()) {  // the decoder of a multimodal config
    if (!part.is_object()) continue;
    part.erase("quantization_config");
    for (const char* name : {"dtype", "torch_dtype"}) {
      if (part.contains(name)) part[name] = dtype;
    }
  }
}

Json hf_config_of_gguf(const Checkpoint& checkpoint, const Described& d, const Target& target) {
  Json config{{"architectures", {d.found.family->architectures.at(0)}}};
  if (d.config.contains("model_type")) config["model_type"] = d.config["model_type"];
  for (const auto& [key, value] : d.config.items()) {
    // The file's own keys that have no Hugging Face name stay behind.
    if (!key.starts_with(d.found.gguf->architecture + ".") && !value.is_null()) config[key] = value;
  }
  const Json generation = generation_config(checkpoint);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (generation.contains(key)) config[key] = generation[key];
  }
  set_run_dtype(config, target);
  return config;
}

std::vector<std::string> write_text_files(
    const Checkpoint& checkpoint, const fs::path& out,
    const std::function<void(const std::string& name, std::string_view text)>& write) {
  std::vector<std::string> names;
  if (checkpoint.format() == CheckpointFormat::gguf) {
    const auto add = [&](const char* name, std::string_view text) {
      write(name, text);
      names.emplace_back(name);
    };
    if (checkpoint.has_tokenizer()) {
      add("tokenizer.json", tokenizer_json(checkpoint.vocabulary()));
      add("tokenizer_config.json", dump_json(tokenizer_config(checkpoint, checkpoint.tokenizer()), 2) + "\n");
    }
    if (const auto text = checkpoint.chat_template()) add("chat_template.jinja", utf8::repair(*text));
    add("generation_config.json", dump_json(generation_config(checkpoint), 2) + "\n");
    return names;
  }
  std::error_code error;
  const fs::path folder = checkpoint.files().front().parent_path();
  for (const fs::directory_entry& entry :
       fs::directory_iterator(folder.empty() ? fs::path(".") : folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file(error) || name.starts_with('.') ||
        std::ranges::none_of(text_files, [&](std::string_view pattern) { return glob(pattern, name); }))
      continue;
    if (!fs::copy_file(entry.path(), out / name, error))
      throw Error("can not be copied: " + error.message(), printable(entry.path().string(), 400),
                  "is the disk full?");
    names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace ttt::inline v2::detail
