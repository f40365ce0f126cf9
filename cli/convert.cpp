// ttt convert: any checkpoint to a Hugging Face folder in run precision.
#include <chrono>
#include <cstdio>

#include "cli.h"
#include "ttt/convert/convert.h"
#include "ttt/hw/target.h"

namespace ttt_cli {

namespace {

struct ConvertFlags {
  std::string model, out;
  double shard_gb = 5;
  ttt::ConvertOptions options;
  bool json = false;
};

void convert(const ConvertFlags& flags) {
  ttt::ConvertOptions options = flags.options;
  options.shard_bytes = static_cast<std::uint64_t>(flags.shard_gb * 1e9);
  const auto start = std::chrono::steady_clock::now();
  ttt::ConvertResult result;
  {
    ProgressBar bar("converting");
    std::atomic<bool> stop = false;
    const Interrupt interrupt([&] { stop = true; });
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
      bar.update(done, total);
      return !stop;
    };
    result = ttt::convert_checkpoint(flags.model, flags.out, options);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  Report report;
  report.add("folder", flags.out);
  report.add("architecture", result.architecture);
  report.add("family", result.family);
  report.add("precision", result.precision);
  report.add("tensors", result.tensors);
  report.add("weights", megabytes(result.bytes), "MB", 1);
  report.add("time", seconds.count(), "s", 1);
  report.add_json_only("files", result.files);
  if (flags.json) {
    print_json(report.json());
  } else {
    report.print();
  }
}

}  // namespace

void add_convert(Program& program) {
  CLI::App* app = program.app.add_subcommand(
      "convert", "Write a checkpoint as a Hugging Face folder, weights in the precision they run in");
  auto flags = std::make_shared<ConvertFlags>();
  app->add_option("--model", flags->model, "Hugging Face folder or GGUF file")->required()->type_name("PATH");
  app->add_option("--out", flags->out, "Folder to write; new or empty")->required()->type_name("DIR");
  app->add_option(
         "--precision", flags->options.precision,
         "Number format or recipe: " + joined(ttt::precision_names()) + "; default: what ttt run would take")
      ->type_name("NAME");
  app->add_option("--shard-size", flags->shard_gb, "Weights beyond so many GB go into several files")
      ->check(positive())
      ->capture_default_str()
      ->type_name("GB");
  app->add_option_function<std::vector<std::string>>(
         "--models",
         [flags](const std::vector<std::string>& paths) {
           flags->options.model_libraries.assign(paths.begin(), paths.end());
         },
         "Model libraries besides the installed ones and $TTT_MODELS")
      ->type_name("LIB");
  add_json_flag(app, flags->json);
  examples(app,
           {"ttt convert --model model.gguf --out folder/",
            "ttt convert --model checkpoint/ --out folder/ --precision performance",
            "ttt convert --model model.gguf --out folder/ --precision bf16   # plain dtypes: transformers "
            "loads the weights too"});
  app->callback([flags] { convert(*flags); });
}

}  // namespace ttt_cli
