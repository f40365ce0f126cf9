// Drives a tokenizer from scripts: tokenizer_tool COMMAND SOURCE [OPTION...]
//   encode   standard input: records of a 32-bit little-endian size and that many bytes; a line of ids for
//   each decode   standard input: lines of ids; a record of text for each stream   as decode, through
//   StreamDecoder, one id at a time; fails on text that is not UTF-8 bench    standard input: one text;
//   processor seconds to load, to encode and to decode info     one JSON object export   the tokenizer.json
//   of GGUF metadata
// SOURCE: what Tokenizer::from_file takes, or NAME.vocab.json with GGUF metadata.
// Options: --no-special (add none), --no-parse (read none in the text), --keep-special (decode),
//          --pattern REGEX --special JSON (for rank files)
#include <cstring>
#include <ctime>
#include <iostream>
#include <iterator>
#include <sstream>

#include "text/vocabulary_json.h"
#include "ttt/base/error.h"
#include "ttt/base/utf8.h"
#include "ttt/text/stream_decoder.h"
#include "ttt/text/tokenizer.h"

namespace {

// Processor time: everything here runs on one thread, and other programs must not count.
double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }
double seconds_since(double start) { return now() - start; }

bool read_record(std::istream& in, std::string& record) {
  unsigned char size[4];
  if (!in.read(reinterpret_cast<char*>(size), 4)) return false;
  record.resize(size[0] | size[1] << 8 | size[2] << 16 | static_cast<std::size_t>(size[3]) << 24);
  return static_cast<bool>(in.read(record.data(), static_cast<std::streamsize>(record.size())));
}

void write_record(std::ostream& out, const std::string& record) {
  const std::size_t n = record.size();
  const char size[4] = {static_cast<char>(n), static_cast<char>(n >> 8), static_cast<char>(n >> 16),
                        static_cast<char>(n >> 24)};
  out.write(size, 4);
  out.write(record.data(), static_cast<std::streamsize>(n));
}

int run(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tokenizer_tool encode|decode|stream|bench|info|export SOURCE [OPTION...]\n";
    return 2;
  }
  const std::string command = argv[1], source = argv[2];
  ttt::EncodeOptions encode;
  ttt::DecodeOptions decode;
  ttt::RankEncoding ranks;
  for (int i = 3; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--no-special") encode.add_special_tokens = false;
    if (option == "--no-parse") encode.parse_special = false;
    if (option == "--keep-special") decode.skip_special_tokens = false;
    if (option == "--pattern" && i + 1 < argc) ranks.pattern = argv[++i];
    if (option == "--special" && i + 1 < argc) {
      const auto special = nlohmann::json::parse(argv[++i]);
      for (const auto& [token, id] : special.items()) ranks.special_tokens.emplace_back(token, id);
    }
  }

  const auto vocabulary = [&] {
    std::ifstream file(source);
    return vocabulary_from_json(nlohmann::json::parse(file), source);
  };
  if (command == "export") {
    std::cout << ttt::tokenizer_json(vocabulary()) << "\n";
    return 0;
  }

  double load = 0;
  const ttt::Tokenizer tokenizer = [&] {
    if (source.ends_with(".vocab.json")) {
      ttt::Vocabulary v = vocabulary();
      const auto start = now();
      auto result = ttt::Tokenizer::from_vocabulary(std::move(v));
      load = seconds_since(start);
      return result;
    }
    const auto start = now();
    auto result = [&] {
      if (ranks.pattern.empty()) return ttt::Tokenizer::from_file(source);
      std::ifstream file(source, std::ios::binary);
      const std::string bytes{std::istreambuf_iterator<char>(file), {}};
      return ttt::Tokenizer::from_ranks(bytes, ranks, source);
    }();
    load = seconds_since(start);
    return result;
  }();

  std::ios::sync_with_stdio(false);
  std::string record;
  if (command == "encode") {
    std::string out;
    while (read_record(std::cin, record)) {
      out.clear();
      for (const std::int32_t id : tokenizer.encode(record, encode)) {
        out += std::to_string(id);
        out += ' ';
      }
      out += '\n';
      std::cout << out;
    }
  } else if (command == "decode" || command == "stream") {
    while (std::getline(std::cin, record)) {
      std::istringstream line(record);
      const std::vector<std::int32_t> ids{std::istream_iterator<std::int32_t>(line), {}};
      if (command == "decode") {
        write_record(std::cout, tokenizer.decode(ids, decode));
        continue;
      }
      ttt::StreamDecoder stream(tokenizer, decode);
      std::string text;
      const auto add = [&](const std::string& part) {
        if (part != ttt::utf8::repair(part)) throw ttt::Error("the stream emitted broken UTF-8");
        text += part;
      };
      for (const std::int32_t id : ids) add(stream.push(id));
      add(stream.finish());
      write_record(std::cout, text);
    }
  } else if (command == "bench") {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    std::vector<std::int32_t> ids;
    double first = 0, best = 1e9, best_decode = 1e9;
    for (int repeat = 0; repeat < 5; ++repeat) {
      const auto start = now();
      ids = tokenizer.encode(text, encode);
      const double seconds = seconds_since(start);
      if (repeat == 0) first = seconds;
      best = std::min(best, seconds);
    }
    for (int repeat = 0; repeat < 3; ++repeat) {
      const auto start = now();
      const std::string back = tokenizer.decode(ids, decode);
      best_decode = std::min(best_decode, seconds_since(start));
    }
    std::cout << nlohmann::json{{"load_s", load},          {"first_encode_s", first}, {"encode_s", best},
                                {"decode_s", best_decode}, {"bytes", text.size()},    {"tokens", ids.size()}}
              << "\n";
  } else if (command == "info") {
    nlohmann::json info{{"vocab_size", tokenizer.vocab_size()},   {"adds_bos", tokenizer.adds_bos()},
                        {"adds_eos", tokenizer.adds_eos()},       {"end_ids", tokenizer.end_ids()},
                        {"fingerprint", tokenizer.fingerprint()}, {"load_s", load}};
    if (tokenizer.bos_id()) info["bos_id"] = *tokenizer.bos_id();
    if (tokenizer.eos_id()) info["eos_id"] = *tokenizer.eos_id();
    if (tokenizer.pad_id()) info["pad_id"] = *tokenizer.pad_id();
    if (tokenizer.unk_id()) info["unk_id"] = *tokenizer.unk_id();
    std::cout << info << "\n";
  } else {
    std::cerr << "unknown command " << command << "\n";
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
