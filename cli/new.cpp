// ttt new: a model file to start from.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/testing/scaffold.h"

namespace ttt_cli {

namespace {

namespace fs = std::filesystem;

struct NewFlags {
  std::string checkpoint, name, out = ".";
  std::vector<std::string> libraries;
  bool force = false, json = false;
};

void write(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush())
    throw ttt::Error("can not be written", ttt::printable(path.string(), 200), "change --out");
}

void create(const NewFlags& flags) {
  const ttt::testing::Scaffold made = ttt::testing::scaffold(
      flags.checkpoint, flags.name, {.model_libraries = {flags.libraries.begin(), flags.libraries.end()}});
  const fs::path folder = flags.out, file = folder / (flags.name + ".cpp"), cmake = folder / "CMakeLists.txt";
  std::error_code ignored;
  fs::create_directories(folder, ignored);
  if (fs::exists(file) && !flags.force)
    throw ttt::Error("is there already", ttt::printable(file.string(), 200),
                     "choose another --name, or --force");
  write(file, made.text);
  const bool project = !fs::exists(cmake);
  if (project)
    write(cmake, "cmake_minimum_required(VERSION 3.25)\nproject(" + flags.name +
                     " LANGUAGES CXX)\nfind_package(ttt 2.0 CONFIG REQUIRED)\nttt_model_library(" +
                     flags.name + " " + flags.name + ".cpp)\n");
  if (flags.json) {
    print_json({{"file", file.string()},
                {"architecture", made.architecture},
                {"nearest", made.nearest},
                {"questions", made.questions},
                {"problems", made.problems}});
    return;
  }
  std::printf(
      "%s: %s, from the nearest family %s; %zu questions, %zu tensors or weights that do not fit yet\n",
      file.string().c_str(), made.architecture.c_str(), made.nearest.c_str(), made.questions.size(),
      made.problems);
  for (const std::string& question : made.questions) std::printf("  %s\n", question.c_str());
  if (project)
    std::printf(
        "\nNext:\n  cmake -S %s -B %s/build && cmake --build %s/build\n  ttt check %s --models "
        "%s/build/lib%s.so\n",
        flags.out.c_str(), flags.out.c_str(), flags.out.c_str(), flags.checkpoint.c_str(), flags.out.c_str(),
        flags.name.c_str());
}

}  // namespace

void add_new(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("new", "Write a model file for a checkpoint, from the nearest known family");
  auto flags = std::make_shared<NewFlags>();
  app->add_option("CHECKPOINT_DIR", flags->checkpoint,
                  "Hugging Face folder, with tensors or a config.json alone")
      ->required();
  app->add_option("--name", flags->name, "Of the family and its file: letters, digits and _")
      ->required()
      ->type_name("NAME");
  app->add_option("--out", flags->out, "Folder of the file; gets a CMakeLists.txt where it has none")
      ->capture_default_str()
      ->type_name("DIR");
  app->add_flag("--force", flags->force, "Write over a file that is there");
  app->add_option("--models", flags->libraries, "Model libraries besides the installed ones and $TTT_MODELS")
      ->type_name("LIB");
  add_json_flag(app, flags->json);
  examples(app,
           {"ttt new checkpoint/ --name my_family", "ttt new checkpoint/ --name my_family --out my_models/",
            "", "What could not be decided stands in the file behind the word QUESTION.",
            "docs/add_a_model.md is worked through on a real family."});
  app->callback([flags] { create(*flags); });
}

}  // namespace ttt_cli
