// What the files of HfConfig share.
#pragma once

#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "convert/json.h"
#include "ttt/convert/hf_config.h"

namespace ttt::inline v2 {

struct HfConfig::State {
  detail::Json root = detail::Json::object();
  std::string source = "config.json";
  std::mutex mutex;
  std::set<std::string, std::less<>> read;     // dotted paths
  std::set<std::string, std::less<>> ignored;  // patterns over dotted paths or their last part
};

struct HfConfig::Node {
  const detail::Json* json = nullptr;
  std::string path;  // "" or "text_config."
};

namespace detail {

struct Found {
  const Json* value = nullptr;  // null: absent
  std::string path;
};

// The value under a key, under its other spellings, or along a dotted path. null counts as absent.
Found look_up(const Json& object, const std::string& prefix, std::string_view key);

[[noreturn]] void wrong_type(const Json& value, const std::string& where, const char* wanted);

inline std::string_view last_part(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

}  // namespace detail

}  // namespace ttt::inline v2
