// The `ttt` program. It knows commands, no model: these come from the libraries of the install folder,
// --models and $TTT_MODELS.
#include <csignal>
#include <cstdio>
#include <iostream>
#include <new>

#include "cli.h"
#include "serve/serve.h"
#include "tests.h"
#include "ttt/base/error.h"
#include "ttt/base/version.h"

namespace {

// One line, whatever the message holds.
int fail(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", text.c_str());
  return 1;
}

// A command line that can not be read, as "what, where, what to change".
std::string explained(const CLI::ParseError& error, const CLI::App& program) {
  const CLI::App* app = &program;
  std::string command = app->get_name();  // "ttt eval golden": the deepest that was named
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    command += " " + app->get_name();
  }
  const std::string message = error.what(), help = ", see " + command + " --help";
  const std::vector<std::string> unknown = app->remaining();
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !app->get_subcommands({}).empty()) {
    std::vector<std::string> names;
    for (const CLI::App* sub : app->get_subcommands({})) names.push_back(sub->get_name());
    if (unknown.empty()) return "a command is missing, " + command + help;
    const std::string near = ttt::nearest(unknown.front(), names);
    return "no command \"" + ttt::printable(unknown.front()) + "\", " + command + help +
           (near.empty() ? "" : "; the nearest is " + near);
  }
  // What the flags' checks say: "--flag: message".
  if (dynamic_cast<const CLI::ValidationError*>(&error) != nullptr) {
    if (const auto colon = message.find(": "); colon != std::string::npos)
      return message.substr(colon + 2) + ", " + message.substr(0, colon) + help;
  }
  // "Could not convert: --flag = value"
  if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) {
    const auto colon = message.find(": "), equals = message.find(" = ");
    if (colon != std::string::npos && equals != std::string::npos && colon < equals)
      return "\"" + message.substr(equals + 3) + "\" can not be read, " +
             message.substr(colon + 2, equals - colon - 2) + help;
  }
  return message + ", " + command + help;
}

int run(int count, char** arguments) {
  ttt_cli::Program program;
  CLI::App& app = program.app;
  app.name("ttt");
  app.set_version_flag("--version", std::string("ttt ") + ttt::version(), "Print the version");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->label("Subcommands", "Commands");
  app.get_formatter()->label("REQUIRED", "(required)");
  app.footer("ttt COMMAND --help explains a command and gives examples.");
  for (auto add :
       {ttt_cli::add_run, ttt_cli::add_serve, ttt_cli::add_eval, ttt_cli::add_bench, ttt_cli::add_perf,
        ttt_cli::add_inspect, ttt_cli::add_check, ttt_cli::add_debug, ttt_cli::add_new, ttt_cli::add_convert,
        ttt_cli::add_tokenize, ttt_cli::add_template, ttt_cli::add_models, ttt_cli::add_tests,
        ttt_cli::add_expect, ttt_cli::add_hw, ttt_cli::add_completion})
    add(program);

  try {
    app.parse(count, arguments);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    if (count == 1) std::fputs(app.help().c_str(), stderr);
    return fail(explained(error, app));
  }
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout)
    return fail("can not write to standard output, check the disk or pipe");
  return program.status;
}

}  // namespace

int main(int count, char** arguments) {
  // A file that grows beyond the limit of the process is an error like a full disk, not the end.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(count, arguments);
  } catch (const ttt::Error& error) { return fail(error.what()); } catch (const std::bad_alloc&) {
    return fail("out of memory, choose a smaller model, context or batch, or a lower --precision");
  } catch (const std::exception& error) { return fail(error.what()); }
}
