// Renders chat templates for tools/chat_template_goldens.py: a JSON request per line on standard input, a
// JSON answer per line on standard output.
//   {"template": "...", "special_tokens": {"bos_token": "<s>"}, "messages": [...], "tools": [...],
//   "documents": [...],
//    "variables": {...}, "add_generation_prompt": true, "continue_final_message": false, "now": [2024, 7, 26,
//    12, 0, 0]}
//   -> {"text": "...", "untrusted": [[begin, end], ...], "generated": [...]} or {"error": "...", "where":
//   "..."}
#include <exception>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "ttt/base/error.h"
#include "ttt/text/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;

ttt::SpecialTokens special_tokens(const Json& request) {
  ttt::SpecialTokens out;
  if (!request.contains("special_tokens")) return out;
  for (const auto& [name, text] : request["special_tokens"].items())
    out.others[name] = text.get<std::string>();
  return out;
}

std::tm calendar(const Json& parts) {
  std::tm out{};
  out.tm_year = parts.at(0).get<int>() - 1900;
  out.tm_mon = parts.at(1).get<int>() - 1;
  out.tm_mday = parts.at(2).get<int>();
  out.tm_hour = parts.at(3).get<int>();
  out.tm_min = parts.at(4).get<int>();
  out.tm_sec = parts.at(5).get<int>();
  out.tm_isdst = -1;
  std::mktime(&out);  // fills in the days of week and year
  return out;
}

Json answer(const Json& request) {
  ttt::RenderOptions options;
  options.add_generation_prompt = request.value("add_generation_prompt", true);
  options.continue_final_message = request.value("continue_final_message", false);
  const auto json = [&](const char* name) {
    return request.contains(name) && !request[name].is_null() ? request[name].dump() : std::string();
  };
  options.tools = json("tools");
  options.documents = json("documents");
  options.variables = json("variables");
  if (request.contains("now")) options.now = calendar(request["now"]);
  try {
    const ttt::ChatTemplate chat(request.at("template").get<std::string>(), special_tokens(request));
    const ttt::RenderedPrompt prompt = chat.render_json(request.at("messages").dump(), options);
    return {{"text", prompt.text}, {"untrusted", prompt.untrusted}, {"generated", prompt.generated}};
  } catch (const ttt::Error& error) { return {{"error", error.problem()}, {"where", error.where()}}; }
}

}  // namespace

int main() {
  std::string line;
  try {
    while (std::getline(std::cin, line)) std::cout << answer(Json::parse(line)).dump() << '\n' << std::flush;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
