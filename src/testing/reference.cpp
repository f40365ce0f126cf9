#include "ttt/testing/reference.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "ttt/base/error.h"
#include "ttt/convert/safetensors.h"

namespace ttt::inline v2::testing {

struct Reference::State {
  std::filesystem::path path;
  SafetensorsFile file;
  std::vector<std::int32_t> input_ids, continuation, top5_ids;
  std::int64_t vocab = 0;
  std::vector<float> logits, decode_logits;
  std::map<std::string, std::string, std::less<>> hidden_states;  // tap -> tensor

  [[noreturn]] void fail(const std::string& what, const std::string& tensor) const {
    throw Error(what, tensor + " in " + printable(path.string(), 200), "write the file with tools/reference");
  }

  std::vector<std::int32_t> ids(const char* name) const {
    if (!file.find(name)) return {};
    const std::vector<std::int64_t> wide = file.integers(name);
    std::vector<std::int32_t> narrow;
    narrow.reserve(wide.size());
    for (std::int64_t id : wide) {
      if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) fail("an id out of range", name);
      narrow.push_back(static_cast<std::int32_t>(id));
    }
    return narrow;
  }

  std::vector<float> rows(const char* name, std::size_t count) {
    const SafetensorsTensor* tensor = file.find(name);
    if (!tensor) return {};
    if (tensor->shape.size() != 2 || tensor->shape[0] != static_cast<std::int64_t>(count) ||
        tensor->shape[1] <= 0 || (vocab != 0 && vocab != tensor->shape[1]))
      fail("a shape that contradicts the ids", name);
    vocab = tensor->shape[1];
    return file.floats(name);
  }

  // hidden_states.0 is the embedding, .K the output of layer K - 1, the last one that of the final norm.
  void name_hidden_states() {
    int last = -1;
    while (file.find("hidden_states." + std::to_string(last + 1))) ++last;
    for (int k = 0; k <= last; ++k)
      hidden_states[k == 0      ? "embed"
                    : k == last ? "norm"
                                : "layers." + std::to_string(k - 1)] = "hidden_states." + std::to_string(k);
  }
};

Reference Reference::open(const std::filesystem::path& path) {
  auto state = std::make_shared<State>(State{.path = path, .file = SafetensorsFile::open(path)});
  state->input_ids = state->ids("input_ids");
  if (state->input_ids.empty()) state->fail("no tokens", "input_ids");
  state->continuation = state->ids("continuation");
  state->logits = state->rows("logits", state->input_ids.size());
  state->decode_logits = state->rows("decode_logits", state->continuation.size());
  state->top5_ids = state->ids("top5_ids");
  if (!state->top5_ids.empty() && state->top5_ids.size() != 5 * state->input_ids.size())
    state->fail("not five ids per position", "top5_ids");
  state->name_hidden_states();
  Reference reference;
  reference.state_ = std::move(state);
  return reference;
}

const std::filesystem::path& Reference::path() const { return state_->path; }
const std::vector<std::int32_t>& Reference::input_ids() const { return state_->input_ids; }
const std::vector<std::int32_t>& Reference::continuation() const { return state_->continuation; }
std::int64_t Reference::vocab() const { return state_->vocab; }
const std::vector<float>& Reference::logits() const { return state_->logits; }
const std::vector<float>& Reference::decode_logits() const { return state_->decode_logits; }
const std::vector<std::int32_t>& Reference::top5_ids() const { return state_->top5_ids; }

std::string Reference::metadata(std::string_view key) const {
  const auto& all = state_->file.metadata();
  const auto found = all.find(std::string(key));
  return found == all.end() ? std::string() : found->second;
}

std::string Reference::precision() const {
  const std::string dtype = metadata("dtype");
  return dtype.empty() || dtype == "float32" ? "f32" : dtype == "bfloat16" ? "bf16" : dtype;
}

std::optional<double> Reference::bf16_pcc() const {
  const std::string text = metadata("bf16_pcc");
  if (text.empty()) return {};
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= -1 && value <= 1))
    state_->fail("no correlation: '" + printable(text) + "'", "metadata bf16_pcc");
  return value;
}

std::vector<std::string> Reference::taps() const {
  constexpr std::string_view others[] = {"input_ids", "continuation", "decode_logits", "top5_ids",
                                         "top5_logits"};
  std::vector<std::string> names;
  for (const auto& [tap, tensor] : state_->hidden_states) names.push_back(tap);
  for (const SafetensorsTensor& tensor : state_->file.tensors()) {
    if (std::ranges::find(others, tensor.name) == std::end(others) &&
        !tensor.name.starts_with("hidden_states.") && !state_->hidden_states.contains(tensor.name))
      names.push_back(tensor.name);
  }
  return names;
}

std::optional<Reference::Intermediate> Reference::intermediate(std::string_view tap) const {
  const auto hidden = state_->hidden_states.find(tap);
  const std::string name = hidden == state_->hidden_states.end() ? std::string(tap) : hidden->second;
  const SafetensorsTensor* tensor = state_->file.find(name);
  if (!tensor || tensor->shape.empty()) return {};
  Intermediate result{.values = state_->file.floats(name), .rows = 0, .features = tensor->shape.back()};
  if (result.features <= 0) return {};
  result.rows = static_cast<std::int64_t>(result.values.size()) / result.features;
  return result;
}

}  // namespace ttt::inline v2::testing
