// What the commands of the `ttt` program share.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/check.h"

namespace ttt_cli {

using Json = nlohmann::ordered_json;

// Of the whole program; commands set the exit status where nothing is thrown.
struct Program {
  CLI::App app{
      "TTTv2: transformer building blocks for Tenstorrent hardware, and for the processor you have."};
  int status = 0;
};

// One function per command: adds it, with its flags, examples and action.
void add_run(Program&);
void add_eval(Program&);
void add_bench(Program&);
void add_suite(Program&, CLI::App* eval);
void add_inspect(Program&);
void add_convert(Program&);
void add_tokenize(Program&);
void add_template(Program&);
void add_check(Program&);
void add_new(Program&);
void add_debug(Program&);
void add_perf(Program&);
void add_models(Program&);
void add_hw(Program&);
void add_completion(Program&);

// The row of ttt models --markdown for what was checked.
void print_support_row(const ttt::testing::CheckResult&, const std::vector<std::filesystem::path>& libraries);

// A check for numbers above zero that adds nothing to the flag's line in --help.
CLI::Validator positive();

// Text after a command's flags: examples, one per line.
void examples(CLI::App*, const std::vector<std::string>& lines);

// ---------------------------------------------------------------- flags

// The flags of every command that takes a model.
struct ModelFlags {
  std::string model;  // path; of a folder or a GGUF file
  std::string mesh;   // "RxC"
  ttt::LoadOptions options;
  bool no_cache = false;

  enum class Model { required, none };
  void add_to(CLI::App*, Model = Model::required);
  // The options with what the flags say in words.
  ttt::LoadOptions resolved() const;
  // Loads, with a progress bar for the weights; says on standard error which keys of config.json nobody read.
  ttt::LoadedModel load(bool weights = true) const;
};
void note_unread(const std::vector<std::string>& keys);
void add_json_flag(CLI::App*, bool& json);

// A file's contents; "-" is standard input. Error when it can not be read.
std::string read_text(const std::string& path);
// Error when it can not be written.
void write_text(const std::filesystem::path& path, const std::string& text);
// The last part of a path to a model, for people.
std::string model_name(const std::string& path);

// ---------------------------------------------------------------- output

// Labelled values: "label: value unit" for people, or one JSON object whose keys are label and unit in
// snake_case.
class Report {
 public:
  void add(std::string_view label, double value, std::string_view unit, int decimals);
  void add(std::string_view label, std::size_t value, std::string_view unit = "");
  void add(std::string_view label, std::string_view value);
  void add(std::string_view label, bool value);
  void add_json_only(std::string_view label, Json value);
  void print(std::FILE* = stdout) const;
  Json json() const;
  static std::string key(std::string_view label, std::string_view unit);

 private:
  struct Row {
    std::string label, key, text;
    Json value;
  };
  std::vector<Row> rows_;
};

// A table with a header, columns as wide as they need to be; columns of numbers are flush right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print(std::FILE* = stdout) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

void print_json(const Json&);
std::string fixed(double value, int decimals);
double megabytes(std::size_t bytes);      // 10^6
const char* word(ttt::testing::Outcome);  // "pass", "FAIL", "skip"
std::string joined(const std::vector<std::string>& texts, std::string_view separator = ", ");

// ---------------------------------------------------------------- terminal

bool is_terminal(std::FILE*);

// A bar on standard error when that is a terminal, else nothing; gone when it is destroyed.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar();
  void update(std::size_t done, std::size_t total);

 private:
  std::string label_;
  bool enabled_;
  int shown_ = -1;
};

// Ctrl-C for its lifetime: the first calls `cancel` (from another thread), a second one before reset() ends
// the program.
class Interrupt {
 public:
  explicit Interrupt(std::function<void()> cancel);
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  ~Interrupt();
  static void reset();
  static bool pending();  // since the last reset()

 private:
  std::jthread watcher_;
};

// Reads lines with editing and history where the program was built with a line editor and standard input is a
// terminal.
class LineReader {
 public:
  // False at the end of input.
  bool read(const std::string& prompt, std::string& line);
};

}  // namespace ttt_cli
