// The `ttt` program from outside: its commands over a tiny checkpoint, its output, its errors.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "paths.h"
#include "ttt/base/version.h"
#include "ttt/runtime/generator.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Outcome {
  int status = -1;
  std::string out, err;
  json object() const { return json::parse(out); }
};

const fs::path source = ttt::test::source_dir();

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Cli : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder() = fs::path(testing::TempDir()) / ("cli-" + std::to_string(getpid()));
    write_checkpoint("llama", model());
    setenv("TTT_CACHE", (folder() / "cache").c_str(), 1);
  }
  static void TearDownTestSuite() { fs::remove_all(folder()); }
  static fs::path& folder() {
    static fs::path path;
    return path;
  }
  static fs::path model() { return folder() / "model"; }
  static void write_checkpoint(const std::string& fixture, const fs::path& to) {
    ttt::testing::write_fixture(source / "tests/golden/fixtures" / (fixture + ".json"), to);
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      fs::copy_file(source / "tests/cli/data/tiny_tokenizer" / name, to / name);
  }

  // Runs `ttt ARGUMENTS` by a shell; `input` is its standard input.
  static Outcome ttt(const std::string& arguments, const std::string& input = "") {
    const fs::path out = folder() / "out", err = folder() / "err", in = folder() / "in";
    std::ofstream(in, std::ios::binary) << input;
    const std::string command = ttt::test::build_dir() + "/bin/ttt " + arguments + " < " + in.string() +
                                " > " + out.string() + " 2> " + err.string();
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read(out), read(err)};
  }
  static std::string with_model(const std::string& command) {
    return command + " --model " + model().string() + " ";
  }

  // One line "error: what, where, what to change" on standard error, nothing on standard output, status 1.
  static void expect_error(const Outcome& outcome, const std::string& words) {
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_TRUE(outcome.err.starts_with("error: ")) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err;
  }
};

TEST_F(Cli, HelpTeaches) {
  const Outcome top = ttt("--help");
  EXPECT_EQ(top.status, 0);
  for (const char* command : {"run", "serve", "eval", "bench", "inspect", "check", "new", "convert",
                              "tokenize", "template", "models", "tests", "expect", "hw", "completion"}) {
    EXPECT_NE(top.out.find(command), std::string::npos) << command;
  }
  for (const char* command : {"run",
                              "serve",
                              "eval golden",
                              "eval perplexity",
                              "eval tokens",
                              "bench",
                              "inspect spec",
                              "inspect weights",
                              "inspect plan",
                              "inspect instances",
                              "inspect memory",
                              "inspect roofline",
                              "check",
                              "new",
                              "convert",
                              "tokenize",
                              "template",
                              "models",
                              "tests select",
                              "tests run",
                              "expect record",
                              "expect check",
                              "hw",
                              "completion bash"}) {
    const Outcome help = ttt(std::string(command) + " --help");
    EXPECT_EQ(help.status, 0) << command;
    EXPECT_NE(help.out.find("Examples:"), std::string::npos) << command;
  }
}

TEST_F(Cli, Version) { EXPECT_EQ(ttt("--version").out, std::string("ttt ") + ttt::version() + "\n"); }

TEST_F(Cli, ErrorsAreOneLine) {
  expect_error(ttt("nonsense"), "no command \"nonsense\", ttt, see ttt --help");
  expect_error(ttt("benhc"), "the nearest is bench");
  expect_error(ttt("eval"), "a command is missing, ttt eval, see ttt eval --help");
  expect_error(ttt("run --prompt x"), "--model");
  expect_error(ttt("run --model " + (folder() / "nothing").string() + " --prompt x"), "nothing");
  expect_error(ttt(with_model("run") + "--prompt x --precision fp7"), "fp7");
  expect_error(ttt(with_model("run") + "--prompt x --backend nothing"), "nothing");
  expect_error(ttt(with_model("run") + "--prompt x --backend null"), "null");
  expect_error(ttt(with_model("run") + "--prompt x --mesh 2by4"), "2by4");
  expect_error(ttt(with_model("run") + "--prompt x --max-new-tokens many"), "\"many\" is no number");
  expect_error(ttt(with_model("run") + "--prompt x --threads -1"),
               "\"-1\" is no number above zero, --threads,");
  expect_error(ttt(with_model("run") + "--prompt x --threads 99999999999"), "can not be read, --threads,");
  expect_error(ttt(with_model("run") + "--prompt x --seed s"), "\"s\" can not be read, --seed,");
  expect_error(ttt(with_model("run") + "--prompt x --frobnicate"), "--frobnicate");
  expect_error(ttt(with_model("run") + "--prompt x --temperature -1"), "temperature");
  expect_error(ttt(with_model("run") + "--json", "line\n"), "--prompt");
  expect_error(ttt(with_model("eval perplexity") + "--text " + (folder() / "no.txt").string()), "no.txt");
  expect_error(ttt(with_model("eval perplexity") + "--text - --bos maybe", "text"),
               "auto, yes and no, --bos,");
  expect_error(ttt("completion csh"), "completion");
}

TEST_F(Cli, RunAnswersAPromptAndSaysHowFast) {
  const Outcome outcome =
      ttt(with_model("run") + "--prompt 'The other thing' --max-new-tokens 5 --precision f32");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out, "\n");
  for (const char* label :
       {"time to first token:", "tokens per second per user:", "precision:", "peak memory:"})
    EXPECT_NE(outcome.err.find(label), std::string::npos) << label;
  EXPECT_EQ(outcome.out.find("peak memory"), std::string::npos);  // an answer can be piped
}

TEST_F(Cli, RunSpeculatesByThePrompt) {
  const std::string flags =
      with_model("run") + "--raw --prompt 'abc abc abc abc' --max-new-tokens 40 --precision f32 --json";
  const json plain = ttt(flags).object(), drafted = ttt(flags + " --prompt-lookup-tokens 4").object();
  EXPECT_EQ(drafted.at("text"), plain.at("text"));
  EXPECT_EQ(drafted.at("new_tokens"), plain.at("new_tokens"));
  EXPECT_GT(drafted.at("drafted_tokens"), 0);
  EXPECT_GE(drafted.at("drafted_tokens"), drafted.at("accepted_tokens"));
  EXPECT_FALSE(plain.contains("drafted_tokens"));
  const fs::path recurrent = folder() / "recurrent";
  write_checkpoint("mamba", recurrent);
  expect_error(ttt("run --prompt x --raw --prompt-lookup-tokens 4 --model " + recurrent.string()),
               "prompt_lookup_tokens");
}

TEST_F(Cli, ACacheThatCanNotBeWrittenIsNoted) {
  const fs::path file = folder() / "a_file", wide = folder() / "wide";  // small weights are never cached
  std::ofstream(file) << "not a folder";
  write_checkpoint("llama@16heads", wide);
  const Outcome outcome = ttt("run --raw --prompt x --max-new-tokens 1 --precision f32 --model " +
                              wide.string() + " --cache " + (file / "cache").string());
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("note: "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("a_file"), std::string::npos) << outcome.err;
}

TEST_F(Cli, RunAsJson) {
  const json object =
      ttt(with_model("run") + "--raw --prompt 'The other thing' --max-new-tokens 5 --precision bf16 --json")
          .object();
  EXPECT_EQ(object.at("new_tokens"), 5);
  EXPECT_EQ(object.at("prompt_tokens"), 10);  // BOS and nine pieces
  EXPECT_EQ(object.at("precision"), "bf16");
  EXPECT_EQ(object.at("finish_reason"), "length");
  EXPECT_GT(object.at("time_to_first_token_ms"), 0);
  EXPECT_GT(object.at("tokens_per_second_per_user"), 0);
  EXPECT_GT(object.at("weights_mb"), 0);
  EXPECT_GT(object.at("peak_memory_mb"), 0);
  EXPECT_TRUE(object.at("text").is_string());
}

TEST_F(Cli, RunFollowsASchema) {
  const std::string schema = R"({"enum": [true, false]})", file = (folder() / "schema.json").string();
  std::ofstream(file) << schema;
  const std::string flags =
      with_model("run") + "--raw --prompt abc --max-new-tokens 20 --json --json-schema ";
  expect_error(ttt(flags + file + ".none"), "schema.json.none");
  for (const std::string& given : {file, "'" + schema + "'"}) {
    if (ttt::Generator::follows_schemas())
      EXPECT_TRUE(json::parse(ttt(flags + given).object().at("text").get<std::string>()).is_boolean())
          << given;
    else
      expect_error(ttt(flags + given), "xgrammar");
  }
}

TEST_F(Cli, RunRepeatsASeed) {
  const std::string flags =
      with_model("run") + "--raw --prompt abc --max-new-tokens 12 --temperature 1.5 --json --seed ";
  const json first = ttt(flags + "7").object(), again = ttt(flags + "7").object(),
             other = ttt(flags + "8").object();
  EXPECT_EQ(first.at("text"), again.at("text"));
  EXPECT_NE(first.at("text"), other.at("text"));
}

TEST_F(Cli, AConvertedFolderAnswersAsItsSource) {
  const fs::path out = folder() / "converted";
  const json object =
      ttt(with_model("convert") + "--precision performance --json --out " + out.string()).object();
  EXPECT_EQ(object.at("precision"), "performance");
  EXPECT_EQ(object.at("architecture"), "LlamaForCausalLM");
  EXPECT_GT(object.at("weights_mb"), 0);
  const std::string flags = " --raw --prompt 'The other thing' --max-new-tokens 12 --json";
  const json original = ttt(with_model("run") + "--precision performance" + flags).object();
  const json converted = ttt("run --model " + out.string() + flags).object();
  EXPECT_EQ(converted.at("text"), original.at("text"));
  EXPECT_EQ(converted.at("precision"), "performance");
  expect_error(ttt(with_model("convert") + "--out " + out.string()), "is there already");
  fs::remove_all(out);
}

TEST_F(Cli, AConversionThatFailsLeavesNothing) {
  const fs::path out = folder() / "fails";
  const auto left = [&] {
    return std::ranges::any_of(fs::directory_iterator(folder()), [](const fs::directory_entry& entry) {
      return entry.path().filename().string().starts_with("fails");
    });
  };
  expect_error(ttt(with_model("convert") + "--precision fp7 --out " + out.string()), "fp7");
  expect_error(ttt(with_model("convert") + "--out /proc/nothing"), "can not be written");
  EXPECT_FALSE(left());
  // A limit of 8 blocks stands for a disk that fills up while it is written.
  std::ofstream(folder() / "limited.sh") << "ulimit -f 8; exec \"$@\"";
  const std::string command = "sh " + (folder() / "limited.sh").string() + " " + ttt::test::build_dir() +
                              "/bin/ttt " + with_model("convert") + "--out " + out.string() + " 2> " +
                              (folder() / "limited").string();
  const int status = std::system(command.c_str());
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 1);
  EXPECT_NE(read(folder() / "limited").find("is the disk full?"), std::string::npos)
      << read(folder() / "limited");
  EXPECT_FALSE(left());
}

TEST_F(Cli, TheTemplateChangesWhatTheModelSees) {
  const json chat =
      ttt(with_model("run") + "--prompt hi --system 'Be brief' --max-new-tokens 1 --json").object();
  const json raw = ttt(with_model("run") + "--prompt hi --raw --max-new-tokens 1 --json").object();
  EXPECT_GT(chat.at("prompt_tokens"), raw.at("prompt_tokens"));
}

TEST_F(Cli, ChatTakesLinesAndCommands) {
  const Outcome outcome = ttt(with_model("run") + "--max-new-tokens 3",
                              "/help\nhello\n/reset\n/nonsense\nagain\n/exit\nnever read\n");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("/reset"), std::string::npos);
  EXPECT_NE(outcome.err.find("error: no command /nonsense"), std::string::npos);
  EXPECT_NE(outcome.err.find("time to first token:"), std::string::npos);
}

TEST_F(Cli, EvalGoldenPassesAndFails) {
  const std::string fixture = (source / "tests/golden/fixtures/llama.json").string();
  const Outcome passed = ttt("eval golden " + fixture + " --json");
  EXPECT_EQ(passed.status, 0) << passed.err;
  const json runs = passed.object().at("results").at(0).at("runs");
  EXPECT_EQ(runs.at(0).at("precision"), "f32");
  EXPECT_EQ(runs.at(0).at("tokens_equal"), 8);
  EXPECT_LE(runs.at(0).at("largest_error"), 2e-3);
  EXPECT_EQ(runs.at(1).at("precision"), "bf16");
  EXPECT_GE(runs.at(1).at("pcc"), 0.99);

  const Outcome failed = ttt("eval golden " + fixture + " " + model().string());  // the second has no golden
  EXPECT_EQ(failed.status, 1);
  EXPECT_NE(failed.out.find("1 passed, 1 failed"), std::string::npos) << failed.out;
  EXPECT_TRUE(failed.err.starts_with("error: ")) << failed.err;
}

TEST_F(Cli, EvalPerplexity) {
  const std::string text =
      "The other thing is that\nnothing here means a lot: it is only text, of 12 words or 20.";
  const json object = ttt(with_model("eval perplexity") + "--text - --precision f32 --json", text).object();
  EXPECT_NEAR(object.at("perplexity"), 308.3459, 0.01);  // transformers 5.23, float32
  EXPECT_EQ(object.at("tokens"), 62);
  EXPECT_EQ(object.at("bos"), true);
  const json windows = ttt(with_model("eval perplexity") +
                               "--text - --precision f32 --context 16 --stride 5 --bos auto --json",
                           text)
                           .object();
  EXPECT_NEAR(windows.at("perplexity"), 334.8079, 0.01);
  EXPECT_EQ(windows.at("windows"), 11);
  const json few =
      ttt(with_model("eval perplexity") + "--text - --precision f32 --tokens 20 --bos yes --json", text)
          .object();
  EXPECT_NEAR(few.at("perplexity"), 261.9484, 0.01);
}

TEST_F(Cli, EvalTokens) {
  const std::string reference = (source / "tests/golden/reference/llama.safetensors").string();
  const json object =
      ttt(with_model("eval tokens") + "--reference " + reference + " --prefill 12 --precision f32 --json")
          .object();
  EXPECT_EQ(object.at("top_1_percent"), 100);
  EXPECT_EQ(object.at("top_5_percent"), 100);
  EXPECT_EQ(object.at("steps"), 11);
}

TEST_F(Cli, Bench) {
  const json object =
      ttt(with_model("bench") + "--prompt-tokens 8 --new-tokens 4 --batch 2 --repeats 1 --json").object();
  for (const char* key : {"time_to_first_token_ms", "prefill_tokens_per_second", "tokens_per_second_per_user",
                          "tokens_per_second", "moved_gb_per_s", "read_bandwidth_gb_per_s"})
    EXPECT_GT(object.at(key), 0) << key;
  EXPECT_EQ(object.at("batch_users"), 2);
}

TEST_F(Cli, Inspect) {
  EXPECT_EQ(json::parse(ttt(with_model("inspect spec")).out).at("layers").size(), 3u);
  EXPECT_EQ(ttt(with_model("inspect spec") + "--json").object().at("architecture"), "LlamaForCausalLM");
  const json weights = ttt(with_model("inspect weights") + "--json").object();
  EXPECT_GE(weights.at("weights").size(), 20u);
  EXPECT_NE(ttt(with_model("inspect weights")).out.find("model.layers.0.self_attn.q_proj"),
            std::string::npos);
  const json plan =
      ttt(with_model("inspect plan") + "--backend null --sku n150 --precision performance --json").object();
  EXPECT_EQ(plan.at("sku"), "n150");
  EXPECT_EQ(plan.at("precision"), "performance");
  EXPECT_GT(plan.at("modules").size(), 10u);
  const json instances =
      ttt(with_model("inspect instances") + "--sku t3k --precision performance --json").object();
  std::size_t count = 0;
  for (const json& instance : instances.at("instances")) {
    if (instance.at("mode") == "prefill") count += instance.at("count").get<std::size_t>();
    EXPECT_TRUE(instance.at("key").get<std::string>().ends_with("t3k:1x1"));
  }
  EXPECT_EQ(count, instances.at("modules"));
  EXPECT_LT(instances.at("kinds"), instances.at("modules"));
  EXPECT_NE(ttt(with_model("inspect instances")).out.find("attention[rope]"), std::string::npos);
}

// A folder that holds nothing but a config.json says what fits and how fast it can be.
TEST_F(Cli, InspectMemoryAndRoofline) {
  const fs::path folder = fs::path(testing::TempDir()) / "ttt-cli-config";
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 4,
      "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
      "hidden_act": "silu", "tie_word_embeddings": false})";
  const std::string model = " --model " + folder.string() + " --precision performance ";
  const auto ask = [&](const std::string& what, const std::string& flags) {
    return ttt("inspect " + what + model + flags + " --json").object();
  };
  const json memory = ask("memory", "--sku n300 --batch 32 --context 2048");
  EXPECT_EQ(memory.at("mesh"), "1x2");
  EXPECT_EQ(memory.at("fits"), true);
  EXPECT_GT(memory.at("most_tokens_of_all_users"), 32 * 2048);
  EXPECT_GT(memory.at("tensors").size(), 4u * 9);
  EXPECT_LT(ask("memory", "--sku n300 --context 2048").at("kv_cache_mb"), memory.at("kv_cache_mb"));
  const json one = ask("roofline", "--sku n150"), two = ask("roofline", "--sku n300"),
             many = ask("roofline", "--sku n150 --batch 32 --context 4096");
  EXPECT_GT(two.at("tokens_per_second_per_user"), one.at("tokens_per_second_per_user"));
  EXPECT_LT(many.at("tokens_per_second_per_user"), one.at("tokens_per_second_per_user"));
  EXPECT_LT(one.at("time_to_first_token_ms"), many.at("time_to_first_token_ms"));
  EXPECT_GT(one.at("decode").size(), 10u);
  for (const char* key : {"op", "operands", "calls", "bound", "microseconds_each"})
    EXPECT_TRUE(one.at("decode").at(0).contains(key)) << key;
  EXPECT_NE(ttt("inspect roofline" + model + "--sku n150").out.find("bound by dram"), std::string::npos);
  const Outcome none = ttt("inspect roofline" + model);
  EXPECT_EQ(none.status, 1);
  EXPECT_NE(none.err.find("choose a --sku"), std::string::npos) << none.err;
  fs::remove_all(folder);
}

TEST_F(Cli, TokenizeAndBack) {  // ids of the Python package tokenizers
  EXPECT_EQ(ttt(with_model("tokenize") + "The other thing").out, "1 56 100 4 83 99 102 4 99 150\n");
  EXPECT_EQ(ttt(with_model("tokenize") + "--no-special", "The other thing").out,
            "56 100 4 83 99 102 4 99 150\n");
  EXPECT_EQ(ttt(with_model("tokenize") + "--decode --no-special 1 56 100 4 83 99 102 4 99 150").out,
            "The other thing");
  EXPECT_EQ(ttt("tokenize --json --model " +
                (source / "tests/cli/data/tiny_tokenizer/tokenizer.json").string() + " 'The'")
                .object()
                .at("tokens"),
            json({"<s>", "T", "he"}));
  expect_error(ttt(with_model("tokenize") + "--decode 12 x"), "'x'");
}

TEST_F(Cli, HostileTokenizersAndTemplatesAreOneLineErrors) {
  const fs::path bad = folder() / "bad";
  fs::create_directory(bad);
  const auto file = [&](const std::string& name, const std::string& bytes) {
    std::ofstream(bad / name, std::ios::binary) << bytes;
    return (bad / name).string();
  };
  const std::pair<const char*, std::string> files[] = {
      {"empty.json", ""},
      {"cut.json", R"({"model": {"type": "BPE", "vocab": {"a")"},
      {"deep.json", R"({"normalizer": )" + std::string(1'000'000, '[')},
      {"id.json", R"({"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}})"},
      {"pattern.json",
       R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?<a"}, "behavior": "Isolated"},
                           "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})"},
      {"tekken.json", R"({"config": {"default_vocab_size": 1000000000000}, "vocab": [{"token_bytes": ""}]})"},
      {"bytes.model", std::string("\x0a\xff\xff\xff\xff\x0f\x00zz", 9)},
      {"notes.txt", "no tokenizer at all\n"},
      {"ranks.tiktoken", "YQ== 99999999999999999999\n"},
      {"vocabulary.gguf", "GGUF\x03" + std::string(3, '\0') + std::string(16, '\xff')}};
  for (const auto& [name, bytes] : files)
    expect_error(ttt("tokenize --model " + file(name, bytes) + " text"), name);

  const fs::path chat = folder() / "chat";
  fs::create_directory(chat);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"})
    fs::copy_file(model() / name, chat / name);
  const std::string messages = R"([{"role": "user", "content": "Hi"}])";
  const std::string loop = "{% for i in range(99999) %}";
  const std::pair<std::string, const char*> templates[] = {
      {loop + loop + loop + "{% endfor %}{% endfor %}{% endfor %}", "(limit: "},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "(limit: depth)"},
      {"{{ " + std::string(100'000, '-') + "1 }}", "nested deeper"},
      {"{% include 'secrets' %}", "'include' is not supported"},
      {"{{ messages[0].__class__ }}{{ ''.__class__.__mro__ }}", "line 1"}};
  for (const auto& [text, words] : templates) {
    std::ofstream(chat / "chat_template.jinja", std::ios::binary) << text;
    expect_error(ttt("template --messages - --model " + chat.string(), messages), words);
  }
}

TEST_F(Cli, Template) {  // as transformers renders and encodes it
  const std::string messages = R"([{"role": "user", "content": "Hi"}])";
  EXPECT_EQ(ttt(with_model("template") + "--messages -", messages).out, "<s>user: Hi\nassistant: ");
  EXPECT_EQ(ttt(with_model("template") + "--messages - --no-generation-prompt", messages).out,
            "<s>user: Hi\n");
  EXPECT_EQ(ttt(with_model("template") + "--messages - --tokens", messages).out,
            "1 89 87 102 30 4 44 77 3 125 87 115 88 103 88 30 4\n");
  expect_error(ttt(with_model("template") + "--messages -", "{"), "");
}

TEST_F(Cli, ModelsAndHardware) {
  const json models = ttt("models --json").object().at("models");
  EXPECT_GE(models.size(), 15u);
  const Outcome matrix = ttt("models --markdown --source " + (source / "models").string());
  EXPECT_EQ(matrix.status, 0) << matrix.err;
  EXPECT_NE(matrix.out.find("| LlamaForCausalLM | [llama.cpp]("), std::string::npos) << matrix.out;
  EXPECT_NE(matrix.out.find("| alias |"), std::string::npos);
  const fs::path chart = folder() / "scaling.svg";
  const json scaling = ttt("models --scaling --sku n150 --sku t3k --json --svg " + chart.string()).object();
  EXPECT_EQ(scaling.at("platforms"), 2);
  EXPECT_GE(scaling.at("models").size(), 30u);
  EXPECT_TRUE(read(chart).starts_with("<svg"));
  EXPECT_TRUE(read(chart).ends_with("</svg>\n"));
  expect_error(ttt("models --svg x.svg"), "--scaling");
  expect_error(ttt("models --scaling --sku x1"), "x1");
  const Outcome table = ttt("hw");
  for (const char* sku : {"n150", "n300", "t3k", "galaxy", "p100", "p150"})
    EXPECT_NE(table.out.find(sku), std::string::npos) << sku;
  EXPECT_GE(ttt("hw --json").object().at("hw").size(), 8u);
  EXPECT_NE(ttt("hw p150").out.find("peak TFLOPS"), std::string::npos);
  EXPECT_EQ(ttt("hw t3k --json").object().at("topology"), "ring");
  EXPECT_EQ(ttt("hw n151").status, 1);
}

TEST_F(Cli, Completion) {
  EXPECT_NE(ttt("completion bash").out.find("complete -o default -F _ttt ttt"), std::string::npos);
  EXPECT_TRUE(ttt("completion zsh").out.starts_with("#compdef ttt"));
  EXPECT_NE(ttt("completion fish").out.find("-l max-new-tokens"), std::string::npos);
  // The script works: after "ttt eval gol" it offers golden, after --precision the formats.
  const fs::path script = folder() / "completion.sh";
  std::ofstream(script) << ttt("completion bash").out
                        << "try() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ttt; echo "
                           "\"${COMPREPLY[*]}\"; }\n"
                           "try ttt eval gol\ntry ttt run --precision bfp\ntry ttt inspect plan --sk\n";
  const fs::path out = folder() / "completed";
  ASSERT_EQ(std::system(("bash " + script.string() + " > " + out.string()).c_str()), 0);
  EXPECT_EQ(read(out), "golden\nbfp8_b bfp4_b\n--sku\n");
}

TEST_F(Cli, AFullDiskIsAnError) {
  const std::string command =
      ttt::test::build_dir() + "/bin/ttt hw > /dev/full 2> " + (folder() / "err").string();
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_TRUE(read(folder() / "err").starts_with("error: can not write"));
}

// ---------------------------------------------------------------- tests, expectations

TEST_F(Cli, TestsAreSelectedAndRun) {
  const json selected = ttt("tests select --json --model " + model().string()).object();
  EXPECT_EQ(selected.at("of_instances"), 14);
  EXPECT_EQ(selected.at("instances").at(0).at("kind"), "embedding");
  EXPECT_EQ(selected.at("instances").at(0).at("why"), "embed of LlamaForCausalLM");
  const Outcome table = ttt("tests select --module lm_head --model " + model().string());
  EXPECT_NE(table.out.find("2 of 14 (14.3 %) instances of 1 kinds"), std::string::npos) << table.out;

  const Outcome run = ttt("tests run --threads 2 --precision f32 --model " + model().string());
  EXPECT_EQ(run.status, 0) << run.out << run.err;
  EXPECT_NE(run.out.find("lowest PCC"), std::string::npos) << run.out;
  const json null = ttt("tests run --json --sku t3k --model " + model().string()).object();
  EXPECT_EQ(null.at("passed"), 14);
  EXPECT_EQ(null.at("failed"), 0);
  EXPECT_EQ(ttt("tests run --backend nothing --model " + model().string()).status, 1);

  const Outcome change = ttt("tests select --changed-file src/modules/lm_head.cpp --ctest");
  EXPECT_NE(change.out.find("arch"), std::string::npos) << change.out << change.err;
  expect_error(ttt("tests select --family lama"), "the nearest is llama");
  expect_error(ttt("tests select --changed HEAD --build " + folder().string()), "no build tree");
  expect_error(ttt("tests"), "a command is missing");
}

TEST_F(Cli, ExpectationsAreRecordedAndChecked) {
  const std::string file = (folder() / "cpu.jsonl").string();
  const std::string common = " --threads 1 --repeats 3 --model " + model().string() + " --file " + file;
  // Anything is noisy where tests run beside each other; what is refused depends on the machine.
  const Outcome record = ttt("expect record --spread 100" + common);
  EXPECT_EQ(record.status, 0) << record.out << record.err;
  EXPECT_NE(record.out.find("14 recorded"), std::string::npos) << record.out;
  const std::string rows = read(file);
  EXPECT_EQ(std::ranges::count(rows, '\n'), 14);
  const Outcome accuracy = ttt("expect check --accuracy-only" + common);
  EXPECT_EQ(accuracy.status, 0) << accuracy.out << accuracy.err;
  EXPECT_NE(accuracy.out.find("14 as expected"), std::string::npos) << accuracy.out;

  // A bound that nothing reaches fails.
  json row = json::parse(rows.substr(0, rows.find('\n')));
  row["pcc_at_least"] = 1.5;
  std::ofstream(file, std::ios::binary) << row.dump() << "\n";
  const Outcome worse = ttt("expect check --json --accuracy-only" + common);
  EXPECT_EQ(worse.status, 1);
  EXPECT_EQ(worse.object().at("counts").at("FAIL"), 1);

  const Outcome refused = ttt("expect record --spread 0.0000001" + common);
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.out.find("noisy"), std::string::npos) << refused.out;
  expect_error(ttt("expect record --model " + model().string()), "--file");
  expect_error(ttt("expect check --sku n150 --model " + model().string()), "can not be measured here");
  std::ofstream(file, std::ios::binary) << "nonsense\n";
  expect_error(ttt("expect check" + common), "line 1");
}

TEST_F(Cli, ANetworkStandsBesideTheExpectationsOfItsModules) {
  const std::string file = (folder() / "network.jsonl").string();
  EXPECT_EQ(ttt("expect record --spread 100 --threads 1 --repeats 3 --precision bfp8_b --model " +
                model().string() + " --file " + file)
                .status,
            0);
  const std::string perf = with_model("perf run") +
                           "--precision bfp8_b --threads 1 --prompt-tokens 16 --new-tokens 2 --repeats 1 "
                           "--no-serving";
  const json profiled = ttt(perf + " --json --expectations " + file).object();
  for (const json& phase : profiled.at("phases")) {
    const json& rows = phase.at("expectations");
    EXPECT_GE(rows.size(), 3u) << phase.at("phase");
    for (const json& row : rows) EXPECT_GT(row.at("ratio"), 0) << row;
  }
  const Outcome table = ttt(perf + " --expectations " + file);
  EXPECT_NE(table.out.find("modules beside what is recorded"), std::string::npos) << table.out << table.err;
  EXPECT_NE(ttt(perf).out.find("no time of these modules is recorded"), std::string::npos);

  const std::string compare =
      with_model("debug compare") + "--precision bfp8_b --threads 1 --against precision=f32";
  const Outcome alone = ttt(compare + " --isolate --expectations " + file);
  EXPECT_EQ(alone.status, 0) << alone.out << alone.err;
  EXPECT_NE(alone.out.find("modules, each by itself"), std::string::npos) << alone.out;
  const json strict = ttt(compare + " --isolate --pcc 1 --json").object();
  EXPECT_GT(strict.at("isolated_modules"), 1);
  EXPECT_EQ(strict.at("agrees"), false);
  std::ofstream(file, std::ios::binary) << "nonsense\n";
  expect_error(ttt(compare + " --isolate --expectations " + file), "line 1");
}

}  // namespace
