// The `ttt` program. It knows commands, no model: these come from the libraries of the install folder,
// --models and $TTT_MODELS.
#include <cstdio>
#include <iostream>
#include <new>

#include "cli.h"
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

// "ttt eval golden" of the deepest command that was named.
std::string command_line_so_far(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* sub : app.get_subcommands()) return name + " " + command_line_so_far(*sub);
  return name;
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
       {ttt_cli::add_run, ttt_cli::add_eval, ttt_cli::add_bench, ttt_cli::add_inspect, ttt_cli::add_tokenize,
        ttt_cli::add_template, ttt_cli::add_models, ttt_cli::add_hw, ttt_cli::add_completion})
    add(program);

  try {
    app.parse(count, arguments);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    const std::string command = command_line_so_far(app);
    if (count == 1) std::fputs(app.help().c_str(), stderr);
    return fail(std::string(error.what()) + ", " + command + ", see " + command + " --help");
  }
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout)
    return fail("can not write to standard output, check the disk or pipe");
  return program.status;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count, arguments);
  } catch (const ttt::Error& error) { return fail(error.what()); } catch (const std::bad_alloc&) {
    return fail("out of memory, choose a smaller model, context or batch, or a lower --precision");
  } catch (const std::exception& error) { return fail(error.what()); }
}
