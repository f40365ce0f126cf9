// The parts of a tokenizer.json and its kin, read but not yet understood.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/base/error.h"

namespace ttt::inline v2::text {

using Json = nlohmann::ordered_json;

// The large parts of the file in flat arrays, the rest as a document.
struct TokenizerDocument {
  Json rest;
  bool vocab_is_object = false, vocab_is_array = false;
  std::vector<std::pair<std::string, std::int64_t>> vocab;   // object: token, id
  std::vector<std::pair<std::string, double>> scored_vocab;  // array: token, score
  bool has_merges = false;
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<std::string> merge_lines;  // "left right"
};

// Throws Error with `source`.
TokenizerDocument read_tokenizer_document(std::string_view text, const std::string& source);

// A value of the document and the way to it, for messages.
class Node {
 public:
  Node(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {}

  [[noreturn]] void fail(const std::string& what, const std::string& fix = "download the file again") const {
    throw Error(what, path_, fix);
  }
  const std::string& path() const { return path_; }
  bool is_null() const { return json_->is_null(); }
  const Json& json() const { return *json_; }

  // The member, or a null node.
  Node operator[](const std::string& key) const {
    static const Json none;
    if (!json_->is_object()) fail("is not an object");
    const auto it = json_->find(key);
    return {it == json_->end() ? none : *it, path_ + (path_.ends_with(": ") ? "" : ".") + key};
  }
  bool has(const std::string& key) const { return json_->is_object() && json_->contains(key); }
  std::vector<Node> items() const {
    if (!json_->is_array()) fail("is not an array");
    std::vector<Node> nodes;
    for (std::size_t i = 0; i < json_->size(); ++i)
      nodes.emplace_back((*json_)[i], path_ + "[" + std::to_string(i) + "]");
    return nodes;
  }
  std::string string() const {
    if (!json_->is_string()) fail("is not a string");
    return json_->get<std::string>();
  }
  std::string string_or(const std::string& fallback) const { return is_null() ? fallback : string(); }
  bool boolean_or(bool fallback) const {
    if (is_null()) return fallback;
    if (!json_->is_boolean()) fail("is not true or false");
    return json_->get<bool>();
  }
  std::int64_t integer() const {
    if (!json_->is_number_integer()) fail("is not an integer");
    if (json_->is_number_unsigned() && json_->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
      fail("is too large");
    return json_->get<std::int64_t>();
  }
  std::size_t size_or(std::size_t fallback) const {
    if (is_null()) return fallback;
    const std::int64_t n = integer();
    if (n < 0) fail("is negative");
    return static_cast<std::size_t>(n);
  }

 private:
  const Json* json_;
  std::string path_;
};

}  // namespace ttt::inline v2::text
