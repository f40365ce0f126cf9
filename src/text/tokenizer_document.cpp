#include "text/tokenizer_document.h"

#include <algorithm>
#include <limits>

namespace ttt::inline v2::text {

namespace {

class Reader final : public nlohmann::json_sax<Json> {
 public:
  Reader(TokenizerDocument& file, const std::string& source) : file_(file), source_(source) {}

  bool null() override { return value(Json(nullptr)); }
  bool boolean(bool b) override { return value(Json(b)); }
  bool number_integer(number_integer_t n) override { return number(static_cast<double>(n), n, Json(n)); }
  bool number_unsigned(number_unsigned_t n) override {
    const auto clamped =
        static_cast<std::int64_t>(std::min<std::uint64_t>(n, std::numeric_limits<std::int64_t>::max()));
    return number(static_cast<double>(n), clamped, Json(n));
  }
  bool number_float(number_float_t n, const string_t&) override { return number(n, -1, Json(n)); }
  bool string(string_t& text) override {
    switch (mode_) {
      case Mode::document:
        return value(Json(std::move(text)));
      case Mode::vocab_entry:
        if (position_ != 0) break;
        file_.scored_vocab.emplace_back(std::move(text), 0);
        ++position_;
        return true;
      case Mode::merges:
        file_.merge_lines.push_back(std::move(text));
        return true;
      case Mode::merge:
        if (position_ == 0) {
          file_.merges.emplace_back(std::move(text), std::string());
        } else if (position_ == 1) {
          file_.merges.back().second = std::move(text);
        } else {
          break;
        }
        ++position_;
        return true;
      default:
        break;
    }
    return wrong();
  }
  bool binary(binary_t&) override { return wrong(); }

  bool start_object(std::size_t) override {
    if (mode_ != Mode::document) return wrong();
    if (in_model() && key_ == "vocab") {
      mode_ = Mode::vocab_object;
      file_.vocab_is_object = true;
      return true;
    }
    return open(Json::object());
  }
  bool key(string_t& text) override {
    key_ = std::move(text);
    return true;
  }
  bool end_object() override {
    if (mode_ == Mode::vocab_object) {
      mode_ = Mode::document;
      return true;
    }
    if (stack_.back() == model_) model_ = nullptr;
    stack_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    switch (mode_) {
      case Mode::document:
        if (in_model() && key_ == "vocab") {
          mode_ = Mode::vocab_array;
          file_.vocab_is_array = true;
          return true;
        }
        if (in_model() && key_ == "merges") {
          mode_ = Mode::merges;
          file_.has_merges = true;
          return true;
        }
        return open(Json::array());
      case Mode::vocab_array:
        mode_ = Mode::vocab_entry;
        break;
      case Mode::merges:
        mode_ = Mode::merge;
        break;
      default:
        return wrong();
    }
    position_ = 0;
    return true;
  }
  bool end_array() override {
    switch (mode_) {
      case Mode::vocab_array:
      case Mode::merges:
        mode_ = Mode::document;
        return true;
      case Mode::vocab_entry:
        mode_ = Mode::vocab_array;
        return position_ == 2 || wrong();
      case Mode::merge:
        mode_ = Mode::merges;
        return position_ == 2 || wrong();
      default:
        stack_.pop_back();
        return true;
    }
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    throw Error("not valid JSON at byte " + std::to_string(position), source_, "download the file again");
  }

 private:
  enum class Mode { document, vocab_object, vocab_array, vocab_entry, merges, merge };

  bool in_model() const { return stack_.size() == 2 && model_ && stack_.back() == model_; }

  bool wrong() const {
    const char* field = mode_ == Mode::merges || mode_ == Mode::merge ? "model.merges" : "model.vocab";
    throw Error("an entry has the wrong type", source_ + ": " + field, "download the file again");
  }

  bool number(double n, std::int64_t integer, Json json) {
    switch (mode_) {
      case Mode::document:
        return value(std::move(json));
      case Mode::vocab_object:
        file_.vocab.emplace_back(std::move(key_), integer);
        return true;
      case Mode::vocab_entry:
        if (position_ != 1) return wrong();
        file_.scored_vocab.back().second = n;
        ++position_;
        return true;
      default:
        return wrong();
    }
  }

  bool value(Json json) {
    if (mode_ != Mode::document) return wrong();
    if (stack_.empty()) {
      file_.rest = std::move(json);
    } else {
      add(std::move(json));
    }
    return true;
  }

  Json* add(Json json) {
    Json& top = *stack_.back();
    if (top.is_array()) {
      top.push_back(std::move(json));
      return &top.back();
    }
    return &(top[key_] = std::move(json));
  }

  bool open(Json json) {
    constexpr std::size_t deepest = 100;
    if (stack_.size() >= deepest)
      throw Error("nested too deep", source_,
                  "a tokenizer.json nests at most " + std::to_string(deepest) + " levels");
    if (stack_.empty()) {
      file_.rest = std::move(json);
      stack_.push_back(&file_.rest);
      return true;
    }
    const bool is_model = stack_.size() == 1 && key_ == "model" && json.is_object();
    Json* added = add(std::move(json));
    // Pointers into a growing object or array are only kept for its last element, which nothing moves while
    // open.
    stack_.push_back(added);
    if (is_model) model_ = added;
    return true;
  }

  TokenizerDocument& file_;
  const std::string& source_;
  std::vector<Json*> stack_;
  Json* model_ = nullptr;
  std::string key_;
  Mode mode_ = Mode::document;
  int position_ = 0;
};

}  // namespace

TokenizerDocument read_tokenizer_document(std::string_view text, const std::string& source) {
  TokenizerDocument document;
  Reader reader(document, source);
  Json::sax_parse(text.begin(), text.end(), &reader);
  if (!document.rest.is_object()) throw Error("is not a JSON object", source, "download the file again");
  return document;
}

}  // namespace ttt::inline v2::text
