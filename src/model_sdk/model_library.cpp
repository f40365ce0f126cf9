// The part of a model library that is the same in all of them: the list of its families, and the C functions
// that the core calls. Only JSON crosses, so this code and the core's need not be of the same release
// (docs/architecture.md, "Stability").
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "ttt/base/error.h"
#include "ttt/base/version.h"
#include "ttt/convert/model_entry.h"

namespace ttt::inline v2 {

namespace {

using Json = nlohmann::ordered_json;

std::map<std::string, ModelEntry>& families() {
  static std::map<std::string, ModelEntry> known;
  return known;
}

Json list() {
  Json out = Json::array();
  for (const auto& [name, entry] : families()) {
    Json gguf = Json::array();
    for (const GgufPart& part : entry.gguf) {
      Json keys = Json::array();
      for (const auto& [hf, key] : part.config) keys.push_back({hf, key});
      gguf.push_back({{"architecture", part.architecture},
                      {"config", std::move(keys)},
                      {"constants", Json::parse(part.constants)},
                      {"key", part.key}});
    }
    out.push_back({{"name", name},
                   {"architectures", entry.architectures},
                   {"gguf", std::move(gguf)},
                   {"modules", entry.modules != nullptr}});
  }
  return out;
}

// {"family", "config": {..}, "source", "gguf": architecture or ""} -> spec, weight map, what was read.
Json describe(const Json& request) {
  const auto found = families().find(request.at("family").get<std::string>());
  if (found == families().end()) throw Error("no family of that name in this library");
  const ModelEntry& entry = found->second;
  const HfConfig config =
      HfConfig::parse(request.at("config").dump(), request.at("source").get<std::string>());
  for (const std::string& key : entry.ignore) config.ignore({key});
  const ModelSpec spec = entry.describe(config);
  WeightMap map = entry.weights != nullptr ? entry.weights(spec) : hf_decoder_names();
  const auto architecture = request.at("gguf").get<std::string>();
  for (const GgufPart& part : entry.gguf) {
    if (part.architecture == architecture)
      map = part.weights != nullptr ? part.weights(spec) : gguf_decoder_names();
  }
  Json overrides = Json::array();
  for (const Override& o : entry.overrides)
    overrides.push_back({{"module", o.module}, {"field", o.field}, {"value", o.value}});
  return {{"spec", Json::parse(to_json(spec, -1))},
          {"weight_map", Json::parse(map.to_json(-1))},
          {"overrides", std::move(overrides)},
          {"record", Json::parse(config.record_json())}};
}

Json answer(const Json& request) {
  const auto what = request.at("request").get<std::string>();
  if (what == "list")
    return {{"version", {TTT_VERSION_MAJOR, TTT_VERSION_MINOR, TTT_VERSION_PATCH}}, {"families", list()}};
  if (what == "describe") return describe(request);
  throw Error("unknown request '" + printable(what) + "'", "model library",
              "it was built for an older release: rebuild it");
}

}  // namespace

Family::Family(std::string name, ModelEntry entry) {
  families().insert_or_assign(std::move(name), std::move(entry));
}

}  // namespace ttt::inline v2

// Answers a JSON request with JSON; {"error": {"what", "where", "fix"}} when it fails. The text lives until
// the next call of the thread.
extern "C" __attribute__((visibility("default"))) const char* ttt_model_library_2(
    const char* request) noexcept {
  static thread_local std::string text;
  const auto failed = [](const std::string& what, const std::string& where, const std::string& fix) {
    return nlohmann::ordered_json{{"error", {{"what", what}, {"where", where}, {"fix", fix}}}};
  };
  nlohmann::ordered_json json;
  try {
    json = ttt::answer(nlohmann::ordered_json::parse(request));
  } catch (const ttt::Error& e) {
    json = failed(e.problem(), e.where(), e.fix());
  } catch (const std::exception& e) { json = failed(e.what(), "model library", ""); }
  try {
    text = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  } catch (const std::exception&) {
    return R"({"error": {"what": "out of memory", "where": "model library", "fix": ""}})";
  }
  return text.c_str();
}

// Adds the modules of the library's own; called only when it was built for the core's own minor release.
extern "C" __attribute__((visibility("default"))) void ttt_model_library_modules_2(void* modules) {
  for (const auto& [name, entry] : ttt::families()) {
    if (entry.modules) entry.modules(*static_cast<ttt::CustomModules*>(modules));
  }
}
