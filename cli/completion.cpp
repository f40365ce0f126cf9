// ttt completion SHELL: scripts made from the commands and flags themselves.
#include <cstdio>
#include <functional>

#include "cli.h"

namespace ttt_cli {

namespace {

struct Command {
  std::string path;  // "ttt eval golden"
  std::string description;
  std::vector<std::pair<std::string, std::string>> subcommands;  // name, description
  struct Flag {
    std::string name, description;
    bool takes_value = false;
    std::vector<std::string> choices;  // "a|b" of its type name
  };
  std::vector<Flag> flags;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

void collect(const CLI::App& app, const std::string& path, std::vector<Command>& commands) {
  Command command{.path = path, .description = app.get_description(), .subcommands = {}, .flags = {}};
  const std::vector<const CLI::App*> subcommands = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : subcommands)
    command.subcommands.emplace_back(sub->get_name(), sub->get_description());
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty()) continue;
    Command::Flag flag{.name = "--" + option->get_lnames().front(),
                       .description = option->get_description(),
                       .takes_value = option->get_type_size_max() > 0,
                       .choices = {}};
    const std::string type = option->get_type_name();
    if (type.find('|') != std::string::npos) flag.choices = split(type, '|');
    if (flag.name == "--precision") flag.choices = ttt::precision_names();
    command.flags.push_back(std::move(flag));
  }
  commands.push_back(std::move(command));
  for (const CLI::App* sub : subcommands) collect(*sub, path + " " + sub->get_name(), commands);
}

std::string words(const Command& command) {
  std::string text;
  for (const auto& [name, description] : command.subcommands) text += name + " ";
  for (const Command::Flag& flag : command.flags) text += flag.name + " ";
  if (!text.empty()) text.pop_back();
  return text;
}

// As the inside of a single-quoted string; also without what zsh and fish would read.
std::string quoted(std::string text) {
  std::erase_if(text, [](char c) {
    return c == '\'' || c == '[' || c == ']' || c == ':' || c == '\\' || c == '`' || c == '$';
  });
  return text;
}

void bash(const std::vector<Command>& commands) {
  std::printf("# bash completion of ttt; load it by: source <(ttt completion bash)\n");
  std::printf(
      "_ttt() {\n  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=ttt "
      "word words=\n");
  std::printf("  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case \"$command $word\" in\n");
  for (const Command& command : commands) {
    if (command.path != "ttt")
      std::printf("      '%s') command='%s' ;;\n", command.path.c_str(), command.path.c_str());
  }
  std::printf("    esac\n  done\n  case \"$command $previous\" in\n");
  for (const Command& command : commands) {
    for (const Command::Flag& flag : command.flags) {
      if (!flag.choices.empty())
        std::printf("    '%s %s') COMPREPLY=($(compgen -W '%s' -- \"$current\")); return ;;\n",
                    command.path.c_str(), flag.name.c_str(), joined(flag.choices, " ").c_str());
    }
  }
  std::printf("  esac\n  case \"$command\" in\n");
  for (const Command& command : commands)
    std::printf("    '%s') words='%s' ;;\n", command.path.c_str(), words(command).c_str());
  std::printf(
      "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}\ncomplete -o default -F _ttt ttt\n");
}

void zsh(const std::vector<Command>& commands) {
  std::printf(
      "#compdef ttt\n# zsh completion of ttt; put it as _ttt into a folder of $fpath\n_ttt() {\n  local "
      "command=ttt word\n");
  std::printf("  for word in ${words[2,CURRENT-1]}; do\n    case \"$command $word\" in\n");
  for (const Command& command : commands) {
    if (command.path != "ttt")
      std::printf("      '%s') command='%s' ;;\n", command.path.c_str(), command.path.c_str());
  }
  std::printf("    esac\n  done\n  case \"$command ${words[CURRENT-1]}\" in\n");
  for (const Command& command : commands) {
    for (const Command::Flag& flag : command.flags) {
      if (!flag.choices.empty())
        std::printf("    '%s %s') compadd -- %s; return ;;\n", command.path.c_str(), flag.name.c_str(),
                    joined(flag.choices, " ").c_str());
    }
  }
  std::printf("  esac\n  local -a choices\n  case \"$command\" in\n");
  for (const Command& command : commands) {
    std::printf("    '%s') choices=(", command.path.c_str());
    for (const auto& [name, description] : command.subcommands)
      std::printf("'%s:%s' ", name.c_str(), quoted(description).c_str());
    for (const Command::Flag& flag : command.flags)
      std::printf("'%s:%s' ", flag.name.c_str(), quoted(flag.description).c_str());
    std::printf(") ;;\n");
  }
  std::printf("  esac\n  _describe ttt choices\n  _files\n}\n_ttt \"$@\"\n");
}

void fish(const std::vector<Command>& commands) {
  std::printf("# fish completion of ttt; put it as ttt.fish into ~/.config/fish/completions\n");
  std::printf(
      "function __ttt_at\n  set -l command ttt\n  for word in (commandline -opc)[2..-1]\n    switch "
      "\"$command $word\"\n");
  for (const Command& command : commands) {
    if (command.path != "ttt")
      std::printf("      case '%s'\n        set command '%s'\n", command.path.c_str(), command.path.c_str());
  }
  std::printf("    end\n  end\n  test \"$command\" = \"$argv\"\nend\n");
  for (const Command& command : commands) {
    for (const auto& [name, description] : command.subcommands)
      std::printf("complete -c ttt -n '__ttt_at %s' -f -a %s -d '%s'\n", command.path.c_str(), name.c_str(),
                  quoted(description).c_str());
    for (const Command::Flag& flag : command.flags) {
      std::printf("complete -c ttt -n '__ttt_at %s' -l %s", command.path.c_str(), flag.name.c_str() + 2);
      if (!flag.choices.empty()) {
        std::printf(" -x -a '%s'", joined(flag.choices, " ").c_str());
      } else if (flag.takes_value) {
        std::printf(" -r");
      }
      std::printf(" -d '%s'\n", quoted(flag.description).c_str());
    }
  }
}

}  // namespace

void add_completion(Program& program) {
  CLI::App* app = program.app.add_subcommand("completion", "Print the completion script of a shell");
  app->require_subcommand(1);
  struct Row {
    const char *shell, *example;
    void (*print)(const std::vector<Command>&);
  };
  for (const Row& row : {Row{"bash", "source <(ttt completion bash)", bash},
                         Row{"zsh", "ttt completion zsh > ~/.zfunc/_ttt", zsh},
                         Row{"fish", "ttt completion fish > ~/.config/fish/completions/ttt.fish", fish}}) {
    CLI::App* sub = app->add_subcommand(row.shell, std::string("For ") + row.shell);
    examples(sub, {row.example});
    sub->callback([&program, print = row.print] {
      std::vector<Command> commands;
      collect(program.app, "ttt", commands);
      print(commands);
    });
  }
}

}  // namespace ttt_cli
