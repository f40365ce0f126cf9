#include <filesystem>
#include <fstream>
#include <system_error>

#include "text/tokenizer_impl.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

std::string read_file(const std::filesystem::path& path) {
  constexpr std::uintmax_t largest = std::uintmax_t{1} << 30;
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error)
    throw Error("cannot read the file: " + error.message(), path.string(), "give a tokenizer file or folder");
  if (size > largest) throw Error("the file is too large", path.string(), "a tokenizer has at most 1 GiB");
  std::ifstream in(path, std::ios::binary);
  std::string bytes(static_cast<std::size_t>(size), '\0');
  if (!in.read(bytes.data(), static_cast<std::streamsize>(size)))
    throw Error("cannot read the file", path.string(), "check its permissions");
  return bytes;
}

std::string read_if_exists(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) ? read_file(path) : std::string();
}

text::SideFiles side_files(const std::filesystem::path& folder) {
  return {read_if_exists(folder / "tokenizer_config.json"),
          read_if_exists(folder / "special_tokens_map.json"),
          read_if_exists(folder / "generation_config.json")};
}

// "base64 rank" lines: printable ASCII with a blank before the number in the first line.
bool looks_like_ranks(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find('\n'));
  const std::size_t blank = line.find(' ');
  if (blank == 0 || blank == line.npos || blank + 1 >= line.size()) return false;
  for (const char c : line.substr(0, blank)) {
    const bool base64 = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                        c == '+' || c == '/' || c == '=';
    if (!base64) return false;
  }
  return line[blank + 1] >= '0' && line[blank + 1] <= '9';
}

}  // namespace

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    for (const char* name :
         {"tokenizer.json", "tekken.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
      if (std::filesystem::is_regular_file(path / name, error)) return from_file(path / name);
    }
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
      if (entry.path().extension() == ".tiktoken" && (found.empty() || entry.path() < found))
        found = entry.path();
    }
    if (!found.empty()) return from_file(found);
    throw Error("the folder holds no tokenizer", path.string(),
                "it needs a tokenizer.json, tokenizer.model, tekken.json or *.tiktoken");
  }
  const std::string bytes = read_file(path);
  const std::string source = path.string();
  if (bytes.empty()) throw Error("the file is empty", source, "download it again");
  const std::size_t first = bytes.find_first_not_of(" \t\r\n");
  if (first != bytes.npos && bytes[first] == '{') {
    // Both kinds of JSON; only tekken files have ranks under "vocab" and their settings under "config".
    const bool tekken =
        path.filename().string().starts_with("tekken") ||
        (bytes.find("\"default_vocab_size\"") != bytes.npos && bytes.find("\"token_bytes\"") != bytes.npos);
    if (tekken) return Tokenizer(text::read_tekken(bytes, source));
    return Tokenizer(text::read_tokenizer_json(bytes, source, side_files(path.parent_path())));
  }
  if (looks_like_ranks(bytes))
    return Tokenizer(text::read_ranks(bytes, text::published_encoding(bytes, source), source));
  constexpr std::string_view first_fields = "\x0A\x12\x1A";  // of the message: pieces and settings
  if (first_fields.find(bytes[0]) == std::string_view::npos)
    throw Error("is no tokenizer", source,
                "give a tokenizer.json, a SentencePiece model, a *.tiktoken or a tekken.json");
  return Tokenizer(text::read_sentencepiece(bytes, source, side_files(path.parent_path())));
}

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view source) {
  return Tokenizer(text::read_tokenizer_json(json, std::string(source), {}));
}

Tokenizer Tokenizer::from_sentencepiece(std::string_view model, std::string_view source) {
  return Tokenizer(text::read_sentencepiece(model, std::string(source), {}));
}

Tokenizer Tokenizer::from_ranks(std::string_view ranks, const RankEncoding& encoding,
                                std::string_view source) {
  return Tokenizer(text::read_ranks(ranks, encoding, std::string(source)));
}

}  // namespace ttt::inline v2
