#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/ops/backend.h"

namespace ttt_cli {

CLI::Validator positive() {
  return {[](std::string& text) {
            double number = 0;
            return CLI::detail::lexical_cast(text, number) && number > 0
                       ? ""
                       : "\"" + ttt::printable(text) + "\" is no number above zero";
          },
          ""};
}

void examples(CLI::App* app, const std::vector<std::string>& lines) {
  app->footer("Examples:\n  " + joined(lines, "\n  "));
}

void add_json_flag(CLI::App* app, bool& json) {
  app->add_flag("--json", json,
                "Print one JSON object; its keys are the printed labels in snake_case with their unit");
}

void ModelFlags::add_to(CLI::App* app, Model which) {
  if (which == Model::required)
    app->add_option("--model", model, "Hugging Face folder or GGUF file")
        ->required()
        ->type_name("PATH")
        ->group("Model");
  app->add_option("--backend", options.backend,
                  "What runs it: cpu computes, ttnn drives Tenstorrent hardware, null only counts shapes, "
                  "bytes and FLOPs")
      ->capture_default_str()
      ->type_name("cpu|ttnn|null")
      ->group("Model");
  app->add_option("--sku", options.sku,
                  "Hardware to resolve plans for (see ttt hw); default: the backend's own")
      ->type_name("NAME")
      ->group("Model");
  app->add_option("--mesh", mesh, "Devices as rows x columns; the cpu backend simulates them")
      ->type_name("RxC")
      ->group("Model");
  app->add_option("--precision", options.precision,
                  "Number format or recipe: " + joined(ttt::precision_names(), ", ") +
                      "; default: what ttt convert wrote, bfp8_b for a quantised checkpoint, else accuracy")
      ->type_name("NAME")
      ->group("Model");
  app->add_option("--overrides", options.overrides,
                  "JSON rows of module, field and value that go over the recipe")
      ->type_name("FILE")
      ->group("Model");
  app->add_option("--threads", options.threads,
                  "Threads of the cpu backend; default: all that the process may use")
      ->check(positive())
      ->type_name("N")
      ->group("Model");
  app->add_flag("--deterministic", options.deterministic,
                "A row's result is its own whatever the batch, chunks and threads")
      ->group("Model");
  app->add_option_function<std::vector<std::string>>(
         "--models",
         [this](const std::vector<std::string>& paths) {
           options.model_libraries.assign(paths.begin(), paths.end());
         },
         "Model libraries besides the installed ones and $TTT_MODELS")
      ->type_name("LIB")
      ->group("Model");
  app->add_option_function<std::string>(
         "--cache", [this](const std::string& path) { options.cache = path; },
         "Folder of converted weights; default: $TTT_CACHE/weights or ~/.cache/ttt/weights")
      ->type_name("DIR")
      ->group("Model");
  app->add_flag("--no-cache", no_cache, "Convert weights in memory")->group("Model");
}

ttt::LoadOptions ModelFlags::resolved() const {
  ttt::LoadOptions result = options;
  if (!mesh.empty()) result.mesh = ttt::parse_mesh(mesh);
  if (no_cache) result.cache.emplace();
  return result;
}

ttt::LoadedModel ModelFlags::load(bool weights) const {
  ttt::LoadedModel loaded = ttt::load(model, resolved());
  note_unread(loaded.unread_keys);
  if (weights) {
    ProgressBar bar("loading weights");
    loaded.model->load_weights([&](std::size_t done, std::size_t total) { bar.update(done, total); });
  }
  if (const std::string warning = loaded.weight_cache.warning(); !warning.empty())
    std::fprintf(stderr, "note: %s\n", warning.c_str());
  return loaded;
}

void note_unread(const std::vector<std::string>& keys) {
  if (keys.empty()) return;
  std::string list;
  for (const std::string& key : keys) list += (list.empty() ? "" : ", ") + ttt::printable(key);
  std::fprintf(stderr, "note: config.json has keys that nothing reads: %s\n", list.c_str());
}

std::string read_text(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  std::string text;
  if (file) text.assign(std::istreambuf_iterator<char>(file), {});
  if (!file || file.bad()) throw ttt::Error("can not be read", ttt::printable(path, 200), "check the path");
  return text;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file)
    throw ttt::Error("can not be written", ttt::printable(path.string(), 200),
                     "check the folder and the disk");
}

std::string model_name(const std::string& path) {
  std::filesystem::path plain = std::filesystem::path(path).lexically_normal();
  if (!plain.has_filename()) plain = plain.parent_path();
  return plain.filename().string();
}

}  // namespace ttt_cli
