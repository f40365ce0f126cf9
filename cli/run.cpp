#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/runtime/chat.h"
#include "ttt/testing/bench.h"

namespace ttt_cli {

namespace {

struct RunFlags {
  ModelFlags model;
  std::optional<std::string> prompt;
  std::string system;
  bool raw = false, json = false;
  int context = 0, prompt_lookup_tokens = 0;
  std::string json_schema;
  ttt::SamplingParams sampling;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
};

// Bytes that could move a terminal's cursor or worse are left out when one is written to.
std::string displayable(std::string_view text) {
  static const bool terminal = is_terminal(stdout);
  std::string shown(text);
  if (terminal)
    std::erase_if(shown, [](char c) {
      return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
    });
  return shown;
}

void stream(std::string_view text) {
  const std::string shown = displayable(text);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  std::fflush(stdout);
}

class Session {
 public:
  explicit Session(const RunFlags& flags) : flags_(flags) {
    const auto begin = std::chrono::steady_clock::now();
    loaded_ = flags.model.load();
    load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (!loaded_.device->computes())
      throw ttt::Error("the device computes no numbers", std::string(loaded_.device->name()),
                       "use --backend cpu to generate text");
    if (!loaded_.tokenizer)
      throw ttt::Error("no tokenizer", ttt::printable(flags.model.model, 200),
                       "put a tokenizer.json into the folder");
    raw_ = flags.raw;
    if (!raw_ && !loaded_.chat_template) {
      if (!flags.system.empty())
        throw ttt::Error("--system without a chat template", ttt::printable(flags.model.model, 200),
                         "write the instruction into the prompt");
      std::fputs("note: the checkpoint has no chat template, its text is continued as with --raw\n", stderr);
      raw_ = true;
    }
    choose_sampling();
    ttt::GeneratorOptions options;
    options.max_batch = 1;
    options.max_context = flags.context;
    options.prompt_lookup_tokens = flags.prompt_lookup_tokens;
    options.eos_token_ids = ttt::end_ids(loaded_);
    generator_.emplace(*loaded_.model, &*loaded_.tokenizer, options);
    if (!raw_) {
      chat_.emplace(*generator_, *loaded_.chat_template, ttt::ChatOptions{.sampling = sampling_});
      chat_->set_system(flags.system);
    }
  }

  // The answer to one text, streamed unless JSON is wanted. Error: what went wrong while generating.
  ttt::GenerationResult answer(const std::string& text) {
    const bool quiet = flags_.json;
    ttt::GenerationResult result;
    if (raw_) {
      ttt::GenerationRequest request;
      request.prompt = text;
      request.sampling = sampling_;
      if (!quiet) request.on_delta = [](const ttt::GenerationDelta& delta) { stream(delta.text); };
      result = generator_->generate(std::move(request));
    } else {
      result = chat_->send(text, quiet ? ttt::ChatSession::OnText{} : stream);
    }
    if (result.finish_reason == ttt::FinishReason::error) throw ttt::Error(result.error, "while generating");
    return result;
  }

  void cancel() { generator_->cancel_all(); }
  void reset() {
    if (chat_) chat_->clear();
  }
  bool set_system(const std::string& text) {
    if (chat_) chat_->set_system(text);
    return chat_.has_value();
  }

  // Of the last answer, and of all.
  Report report(const ttt::GenerationResult& result) {
    Report report;
    report.add("prompt tokens", result.prompt_tokens);
    report.add("new tokens", result.ids.size());
    report.add("load time", load_seconds_ * 1e3, "ms", 0);
    report.add("time to first token", result.timings.time_to_first_token * 1e3, "ms", 1);
    report.add("tokens per second per user", result.timings.tokens_per_second(), "", 1);
    if (flags_.prompt_lookup_tokens > 0) {
      report.add("drafted tokens", result.drafted_tokens);
      report.add("accepted tokens", result.accepted_tokens);
    }
    report.add("precision", loaded_.model->target().precision);
    report.add("device", loaded_.device->description());
    report.add("weights", megabytes(loaded_.model->weight_bytes()), "MB", 1);
    report.add("kv cache", megabytes(generator_->stats().kv_bytes), "MB", 1);
    report.add("peak memory", megabytes(memory_.bytes()), "MB", 1);
    if (sampling_.temperature > 0) report.add("seed", std::to_string(result.seed));
    return report;
  }

  std::string title() const {
    return loaded_.family + ", " + loaded_.model->target().precision + ", " + loaded_.device->description();
  }
  bool raw() const { return raw_; }

 private:
  // The command line's values, else the checkpoint's, else greedy.
  void choose_sampling() {
    sampling_ = flags_.sampling;
    if (!flags_.json_schema.empty())
      sampling_.json_schema =
          flags_.json_schema.starts_with('{') ? flags_.json_schema : read_text(flags_.json_schema);
    const ttt::GenerationDefaults& defaults = loaded_.generation;
    sampling_.temperature = flags_.temperature.value_or(defaults.temperature.value_or(0));
    sampling_.top_k = flags_.top_k.value_or(defaults.top_k.value_or(0));
    sampling_.top_p = flags_.top_p.value_or(defaults.top_p.value_or(1));
    sampling_.min_p = flags_.min_p.value_or(defaults.min_p.value_or(0));
    sampling_.repetition_penalty =
        flags_.repetition_penalty.value_or(defaults.repetition_penalty.value_or(1));
    ttt::validate(sampling_, loaded_.model->spec().vocab);
  }

  const RunFlags& flags_;
  ttt::testing::PeakMemory memory_;
  ttt::LoadedModel loaded_;
  double load_seconds_ = 0;
  bool raw_ = false;
  ttt::SamplingParams sampling_;
  std::optional<ttt::Generator> generator_;
  std::optional<ttt::ChatSession> chat_;
};

void print_json_result(Session& session, const ttt::GenerationResult& result) {
  Json object{{"text", ttt::utf8::repair(result.text)}, {"finish_reason", ttt::name(result.finish_reason)}};
  object.update(session.report(result).json());
  print_json(object);
}

constexpr const char* chat_help =
    "/help           this list\n"
    "/system TEXT    replace the system message; without TEXT remove it\n"
    "/reset          forget the conversation\n"
    "/exit           quit, as the end of input does\n"
    "Ctrl-C          stop the answer; twice: quit\n";

// Runs a line that begins with '/'; false: quit.
bool command(Session& session, const std::string& line) {
  const std::size_t space = line.find(' ');
  const std::string name = line.substr(0, space),
                    rest = space == std::string::npos ? "" : line.substr(space + 1);
  if (name == "/exit" || name == "/quit") return false;
  if (name == "/help") {
    std::fputs(chat_help, stdout);
  } else if (name == "/reset") {
    session.reset();
  } else if (name == "/system") {
    if (!session.set_system(rest)) std::fputs("error: /system without a chat template\n", stderr);
  } else {
    std::fprintf(stderr, "error: no command %s, see /help\n", ttt::printable(name).c_str());
  }
  return true;
}

void chat(Session& session) {
  if (is_terminal(stdin)) std::fprintf(stderr, "%s. /help lists the commands.\n", session.title().c_str());
  LineReader reader;
  std::string line;
  std::optional<ttt::GenerationResult> last;
  for (;;) {
    if (!reader.read("> ", line)) {
      if (!Interrupt::pending()) break;
      std::fputs("\n(Ctrl-C again or /exit quits)\n", stderr);
      continue;
    }
    Interrupt::reset();
    if (line.empty()) continue;
    if (line.front() == '/' && !session.raw()) {
      if (!command(session, line)) break;
      continue;
    }
    try {
      last = session.answer(line);
      std::fputs(last->finish_reason == ttt::FinishReason::cancelled ? " [stopped]\n" : "\n", stdout);
      std::fflush(stdout);
    } catch (const ttt::Error& error) {  // the conversation goes on
      std::fprintf(stderr, "error: %s\n", error.what());
    }
    Interrupt::reset();
  }
  if (last) session.report(*last).print(stderr);
}

void run(Program& program, const RunFlags& flags) {
  if (flags.json && !flags.prompt)
    throw ttt::Error("--json without --prompt", "ttt run", "give a --prompt; a chat has no single answer");
  Session session(flags);
  const Interrupt interrupt([&session] { session.cancel(); });
  if (!flags.prompt) {
    chat(session);
    return;
  }
  const ttt::GenerationResult result = session.answer(*flags.prompt == "-" ? read_text("-") : *flags.prompt);
  if (flags.json) {
    print_json_result(session, result);
  } else {
    std::fputc('\n', stdout);
    std::fflush(stdout);
    session.report(result).print(stderr);
  }
  if (result.finish_reason == ttt::FinishReason::cancelled) program.status = 130;
}

}  // namespace

void add_run(Program& program) {
  CLI::App* app = program.app.add_subcommand("run", "Generate text: answer one prompt, or chat");
  auto flags = std::make_shared<RunFlags>();
  flags->model.add_to(app);
  app->add_option("--prompt", flags->prompt,
                  "Answer this and end; - reads standard input. Without it: an interactive chat")
      ->type_name("TEXT");
  app->add_option("--system", flags->system, "System message of the chat template")->type_name("TEXT");
  app->add_flag("--raw", flags->raw, "Continue the text as it is, without the chat template");
  app->add_option("--max-new-tokens", flags->sampling.max_new_tokens, "Longest answer")
      ->check(positive())
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--context", flags->context,
                  "Tokens of prompt and answer; default: the model's, as far as 1 GiB of KV cache holds")
      ->check(positive())
      ->type_name("N");
  app->add_option("--prompt-lookup-tokens", flags->prompt_lookup_tokens,
                  "Speculate by up to N tokens that followed the same words before; the answer does not "
                  "change; 0: off")
      ->check(CLI::NonNegativeNumber.description(""))
      ->capture_default_str()
      ->type_name("N");
  app->add_option("--temperature", flags->temperature,
                  "0 is greedy; default of this and the next four: the checkpoint's own, else greedy")
      ->type_name("T")
      ->group("Sampling");
  app->add_option("--top-k", flags->top_k, "Choose among the K likeliest tokens")
      ->type_name("K")
      ->group("Sampling");
  app->add_option("--top-p", flags->top_p, "Choose among the likeliest tokens whose probabilities reach P")
      ->type_name("P")
      ->group("Sampling");
  app->add_option("--min-p", flags->min_p, "Choose among tokens at least P times as likely as the likeliest")
      ->type_name("P")
      ->group("Sampling");
  app->add_option("--repetition-penalty", flags->repetition_penalty,
                  "Above 1: make what was said less likely")
      ->type_name("F")
      ->group("Sampling");
  app->add_option("--seed", flags->sampling.seed, "Repeat the same choices; default: new ones each time")
      ->type_name("S")
      ->group("Sampling");
  app->add_option("--stop", flags->sampling.stop,
                  "End the answer before this text; may be given more than once")
      ->type_name("TEXT")
      ->group("Sampling");
  app->add_option(
         "--json-schema", flags->json_schema,
         std::string("Answer by a value of this JSON schema: a file, or the schema itself, from its { on") +
             (ttt::Generator::follows_schemas() ? "" : " (this build can not: it lacks xgrammar)"))
      ->type_name("FILE|JSON");
  add_json_flag(app, flags->json);
  examples(app, {"ttt run --model model.gguf                                         chat",
                 "ttt run --model model.gguf --prompt \"What is the capital of France?\"",
                 "ttt run --model model.gguf --raw --prompt \"Once upon a time\" --temperature 0.8 --seed 1",
                 "ttt run --model checkpoint/ --precision performance --json --prompt - < question.txt"});
  app->callback([&program, flags] { run(program, *flags); });
}

}  // namespace ttt_cli
