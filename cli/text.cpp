// ttt tokenize, ttt template: the text side of a checkpoint; no weight is read.
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/runtime/chat.h"

namespace ttt_cli {

namespace {

namespace fs = std::filesystem;

// A checkpoint brings its tokenizer; a tokenizer's own file, or a folder without weights or config, is read
// as it is.
ttt::Tokenizer open_tokenizer(const fs::path& path) {
  const bool plain = fs::is_directory(path)
                         ? !fs::exists(path / "config.json") && fs::exists(path / "tokenizer.json")
                         : path.extension() != ".gguf" && path.extension() != ".safetensors";
  return plain ? ttt::Tokenizer::from_file(path) : ttt::Checkpoint::open(path).tokenizer();
}

std::vector<std::int32_t> parse_ids(const std::string& text) {
  std::vector<std::int32_t> ids;
  std::string separated = text;
  for (char& c : separated) {
    if (c == ',' || c == '[' || c == ']') c = ' ';
  }
  std::istringstream words(separated);
  for (std::string word; words >> word;) {
    std::size_t used = 0;
    long value = -1;
    try {
      value = std::stol(word, &used);
    } catch (const std::exception&) { used = 0; }
    if (used != word.size() || value < 0 || value > std::numeric_limits<std::int32_t>::max())
      throw ttt::Error("'" + ttt::printable(word) + "' is no token id", "ttt tokenize --decode",
                       "write ids separated by spaces or commas");
    ids.push_back(static_cast<std::int32_t>(value));
  }
  return ids;
}

Json pieces_of(const ttt::Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  Json pieces = Json::array();
  for (std::int32_t id : ids) pieces.push_back(std::string(tokenizer.id_to_token(id).value_or("")));
  return pieces;
}

void print_ids(const std::vector<std::int32_t>& ids) {
  std::string line;
  for (std::int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
  std::printf("%s\n", line.c_str());
}

// ---------------------------------------------------------------- tokenize

struct TokenizeFlags {
  std::string model;
  std::vector<std::string> text;
  bool no_special = false, decode = false, json = false;
};

void tokenize(const TokenizeFlags& flags) {
  const ttt::Tokenizer tokenizer = open_tokenizer(flags.model);
  std::string text;
  for (const std::string& part : flags.text) text += (text.empty() ? "" : " ") + part;
  if (flags.text.empty() || text == "-") text = read_text("-");
  if (flags.decode) {
    const std::vector<std::int32_t> ids = parse_ids(text);
    const std::string decoded = tokenizer.decode(ids, {.skip_special_tokens = flags.no_special});
    if (flags.json) {
      print_json({{"ids", ids}, {"tokens", pieces_of(tokenizer, ids)}, {"text", decoded}});
    } else {
      std::fwrite(decoded.data(), 1, decoded.size(), stdout);  // the text itself, so that it can be piped
      if (is_terminal(stdout) && !decoded.ends_with('\n')) std::fputc('\n', stdout);
    }
    return;
  }
  const std::vector<std::int32_t> ids = tokenizer.encode(text, {.add_special_tokens = !flags.no_special});
  if (flags.json) {
    print_json({{"text", ttt::utf8::repair(text)}, {"ids", ids}, {"tokens", pieces_of(tokenizer, ids)}});
  } else {
    print_ids(ids);
  }
}

// ---------------------------------------------------------------- template

struct TemplateFlags {
  std::string model, messages, tools, variables;
  bool no_generation_prompt = false, tokens = false, json = false;
};

void render(const TemplateFlags& flags) {
  const ttt::Checkpoint checkpoint = ttt::Checkpoint::open(flags.model);
  const std::optional<std::string> source = checkpoint.chat_template();
  if (!source)
    throw ttt::Error("no chat template", ttt::printable(flags.model, 200),
                     "use a checkpoint that was tuned for chat");
  const ttt::ChatTemplate chat(*source, checkpoint.special_tokens());
  ttt::RenderOptions options{.add_generation_prompt = !flags.no_generation_prompt};
  if (!flags.tools.empty()) options.tools = read_text(flags.tools);
  options.variables = flags.variables;
  const ttt::RenderedPrompt prompt = chat.render_json(read_text(flags.messages), options);
  std::vector<std::int32_t> ids;
  if (flags.tokens) ids = ttt::encode_prompt(checkpoint.tokenizer(), prompt);
  if (flags.json) {
    Json object{{"text", prompt.text}};
    if (flags.tokens) object["ids"] = ids;
    print_json(object);
  } else if (flags.tokens) {
    print_ids(ids);
  } else {
    std::fwrite(prompt.text.data(), 1, prompt.text.size(), stdout);
  }
}

}  // namespace

void add_tokenize(Program& program) {
  CLI::App* app = program.app.add_subcommand("tokenize", "Text to token ids, or back");
  auto flags = std::make_shared<TokenizeFlags>();
  app->add_option("--model", flags->model, "Hugging Face folder, GGUF file, or a tokenizer's own file")
      ->required()
      ->type_name("PATH");
  app->add_option("TEXT", flags->text,
                  "What to tokenize (ids with --decode); without it, or with -, standard input");
  app->add_flag("--no-special", flags->no_special,
                "Add no BOS or EOS; with --decode, leave special tokens out");
  app->add_flag("--decode", flags->decode, "Ids to text");
  add_json_flag(app, flags->json);
  examples(app, {"ttt tokenize --model model.gguf \"Hello, world\"",
                 "ttt tokenize --model model.gguf --decode 19556 28 905",
                 "ttt tokenize --model tokenizer.json --json < text.txt"});
  app->callback([flags] { tokenize(*flags); });
}

void add_template(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("template", "Render a conversation by the checkpoint's chat template");
  auto flags = std::make_shared<TemplateFlags>();
  app->add_option("--model", flags->model, "Hugging Face folder or GGUF file")->required()->type_name("PATH");
  app->add_option("--messages", flags->messages,
                  "JSON array of {role, content}, or an object with messages and tools; - is standard input")
      ->required()
      ->type_name("FILE");
  app->add_option("--tools", flags->tools, "JSON array of tool definitions")->type_name("FILE");
  app->add_option("--variables", flags->variables, "JSON object of further variables of the template")
      ->type_name("JSON");
  app->add_flag("--no-generation-prompt", flags->no_generation_prompt, "End after the last message");
  app->add_flag("--tokens", flags->tokens, "Print token ids in place of text");
  add_json_flag(app, flags->json);
  examples(app, {"ttt template --model model.gguf --messages conversation.json",
                 "echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | ttt template --model model.gguf "
                 "--messages - --tokens"});
  app->callback([flags] { render(*flags); });
}

}  // namespace ttt_cli
