// ttt serve: the OpenAI-compatible server. The HTTP side is in serve/.
#include <malloc.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "cli.h"
#include "serve/serve.h"
#include "serve/server.h"
#include "ttt/base/error.h"

namespace ttt_cli {

namespace {

struct ServeFlags {
  ModelFlags model;
  ttt_serve::ServerOptions server;
  std::string api_key_file;
  double kv_gigabytes = 0;
};

// SIGINT and SIGTERM for its lifetime: the first asks for an orderly end, the second ends the program.
class Signals {
 public:
  // To be made before any other thread, so that none takes the signals.
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    thread_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  }
  // Until then a signal ends the program at once.
  void on_first(std::function<void()> action) {
    const std::lock_guard lock(mutex_);
    action_ = std::move(action);
  }

 private:
  void watch(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const timespec patience{.tv_sec = 0, .tv_nsec = 100'000'000};
      if (sigtimedwait(&set_, nullptr, &patience) < 0) continue;
      std::function<void()> action;
      {
        const std::lock_guard lock(mutex_);
        action = std::exchange(action_, {});
      }
      if (!action) std::_Exit(130);
      action();
    }
  }

  sigset_t set_{};
  std::mutex mutex_;
  std::function<void()> action_;
  std::jthread thread_;
};

std::string name_of(const std::string& path) {
  std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  return clean.extension() == ".gguf" ? clean.stem().string() : clean.filename().string();
}

// $TTT_API_KEY, or the first line of a file; never a flag, which other users of the machine could read.
std::string api_key(const std::string& file) {
  if (file.empty()) {
    const char* variable = std::getenv("TTT_API_KEY");
    return variable != nullptr ? variable : "";
  }
  std::string text = read_text(file);
  text.resize(std::min(text.find_first_of("\r\n"), text.size()));
  if (text.empty()) throw ttt::Error("the API key is empty", file, "write the key into the first line");
  return text;
}

void serve(const ServeFlags& flags) {
  // An arena per connection's thread would keep what its largest answer took.
  ::mallopt(M_ARENA_MAX, 2);
  Signals signals;
  ttt_serve::ServerOptions options = flags.server;
  options.api_key = api_key(flags.api_key_file);
  const ttt::LoadedModel loaded = flags.model.load();
  if (options.model_name.empty()) options.model_name = name_of(flags.model.model);
  options.generator.eos_token_ids = ttt::end_ids(loaded);
  options.generator.kv_bytes = static_cast<std::size_t>(flags.kv_gigabytes * 1e9);
  ttt_serve::Server server(loaded, options);
  signals.on_first([&server] {
    std::fputs("shutting down; again to end at once\n", stderr);
    server.shutdown();
  });
  std::printf("serving %s on http://%s:%d (%s, %s, context %d)\n", options.model_name.c_str(),
              options.host.c_str(), server.port(), loaded.model->target().precision.c_str(),
              loaded.device->description().c_str(), server.max_context());
  std::fflush(stdout);
  server.run();
}

}  // namespace

void add_serve(Program& program) {
  CLI::App* app = program.app.add_subcommand("serve", "Serve a model over HTTP, as OpenAI's API does");
  auto flags = std::make_shared<ServeFlags>();
  ttt_serve::ServerOptions& server = flags->server;
  flags->model.add_to(app);
  app->add_option("--host", server.host,
                  "Address to bind; 0.0.0.0 lets other machines in (set an API key then)")
      ->capture_default_str()
      ->type_name("ADDRESS");
  app->add_option("--port", server.port, "0: any that is free; it is printed")
      ->check(CLI::Range(0, 65535).description(""))
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--served-model-name", server.model_name,
                  "Name that clients ask for; default: the folder's or file's")
      ->type_name("NAME");
  app->add_option("--api-key-file", flags->api_key_file,
                  "File whose first line clients must send as key; default: $TTT_API_KEY, else none")
      ->type_name("FILE");
  const auto count = [app](const char* name, int& value, const char* help, const char* group) {
    app->add_option(name, value, help)
        ->check(positive())
        ->capture_default_str()
        ->type_name("N")
        ->group(group);
  };
  app->add_option("--context", server.generator.max_context,
                  "Tokens of prompt and answer; default: the model's, as far as KV memory holds")
      ->check(positive())
      ->type_name("N")
      ->group("Batching");
  count("--max-batch", server.generator.max_batch, "Sequences that are written at the same time", "Batching");
  count("--max-step-tokens", server.generator.max_step_tokens,
        "Rows of one step: more reads prompts faster, fewer disturb others less", "Batching");
  count("--block-size", server.generator.block_size,
        "Positions of a KV block; equal prefixes are shared by blocks", "Batching");
  app->add_option("--kv-gigabytes", flags->kv_gigabytes,
                  "KV memory; default: what max-batch contexts need, but no more than 1 GiB")
      ->check(positive())
      ->type_name("G")
      ->group("Batching");
  app->add_option("--prompt-lookup-tokens", server.generator.prompt_lookup_tokens,
                  "Speculate by what followed the same words before; 0: off")
      ->check(CLI::NonNegativeNumber.description(""))
      ->capture_default_str()
      ->type_name("N")
      ->group("Batching");
  count("--max-connections", server.max_connections, "Connections that are served at the same time",
        "Limits");
  count("--max-waiting", server.max_waiting, "Sequences that may wait; beyond, clients get 429", "Limits");
  app->add_option("--max-request-bytes", server.max_body, "Largest request; beyond, clients get 413")
      ->check(positive())
      ->capture_default_str()
      ->type_name("BYTES")
      ->group("Limits");
  count("--max-choices", server.limits.max_choices, "Largest n of a request", "Limits");
  count("--read-timeout", server.read_timeout, "Seconds that a request may take to arrive", "Limits");
  count("--write-timeout", server.write_timeout, "Seconds that a client may leave its answer unread",
        "Limits");
  count("--drain-timeout", server.drain_timeout, "Seconds that answers have to end at shutdown", "Limits");
  examples(app, {"ttt serve --model model.gguf                  then open http://127.0.0.1:8000 in a browser",
                 "ttt serve --model checkpoint/ --max-batch 64 --precision performance --kv-gigabytes 4",
                 "curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\",
                 "  -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stream\": true}'", "",
                 std::string("Answers by a JSON schema: ") +
                     (ttt::Generator::follows_schemas() ? "yes" : "no, built without xgrammar") +
                     ". docs/serving.md has the rest."});
  app->callback([flags] { serve(*flags); });
}

}  // namespace ttt_cli
