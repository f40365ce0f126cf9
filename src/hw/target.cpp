#include "ttt/hw/target.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "hw/built_in.h"
#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

constexpr std::array<std::string_view, 6> field_names = {"weights",       "kv",     "activations",
                                                         "math_fidelity", "memory", "program_config"};

// "[a:b]" with either bound absent. `end` is set behind the bracket.
struct Range {
  std::optional<int> begin, stop;
  std::size_t end = 0;
};

std::optional<Range> parse_range(std::string_view pattern, std::size_t at) {
  const std::size_t close = pattern.find(']', at);
  if (close == std::string_view::npos) return std::nullopt;
  const std::string_view inside = pattern.substr(at + 1, close - at - 1);
  const std::size_t colon = inside.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  Range range;
  range.end = close + 1;
  const auto bound = [](std::string_view text, std::optional<int>& value) {
    if (text.empty()) return true;
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    value = number;
    return error == std::errc() && end == text.data() + text.size();
  };
  if (!bound(inside.substr(0, colon), range.begin) || !bound(inside.substr(colon + 1), range.stop))
    return std::nullopt;
  return range;
}

bool contains(const Range& range, int layer, int layers) {
  const auto absolute = [layers](int bound) { return bound < 0 ? bound + layers : bound; };
  if (layers == 0 && (range.begin.value_or(0) < 0 || range.stop.value_or(0) < 0)) return false;
  return layer >= absolute(range.begin.value_or(0)) && (!range.stop || layer < absolute(*range.stop));
}

std::string trimmed_list(std::span<const std::string_view> names) {
  std::string text;
  for (std::string_view n : names) text += (text.empty() ? "" : ", ") + std::string(n);
  return text;
}

DataType checked_dtype(std::string_view value, std::initializer_list<DataType> choices) {
  std::string names;
  for (DataType t : choices) {
    if (name(t) == value) return t;
    names += (names.empty() ? "" : ", ") + std::string(name(t));
  }
  throw Error("the value \"" + printable(value) + "\" is not possible", {}, "use one of " + names);
}

std::string where_of(const Override& row) {
  std::string text = row.origin.empty() ? "" : row.origin + ": ";
  return text + printable(row.field) + " of \"" + printable(row.module) + "\"";
}

// The value of a checked or hand-made row: errors name the row.
template <class F>
auto value_of(const Override& row, F&& parse) {
  try {
    return parse(row.value);
  } catch (const Error& error) { throw Error(error.problem(), where_of(row), error.fix()); }
}

const Override* last_match(const Target& target, std::string_view module, std::string_view field) {
  for (auto row = target.rows.rbegin(); row != target.rows.rend(); ++row) {
    if (row->field == field && matches(row->module, module, target.layers)) return &*row;
  }
  return nullptr;
}

DataType parse_weights(std::string_view v) {
  return checked_dtype(v, {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b});
}
DataType parse_kv(std::string_view v) {
  return checked_dtype(v, {DataType::f32, DataType::bf16, DataType::bfp8_b});
}
DataType parse_activations(std::string_view v) { return checked_dtype(v, {DataType::f32, DataType::bf16}); }

std::vector<Override> parse_rows(const nlohmann::json& rows, const std::string& origin) {
  constexpr std::array<std::string_view, 3> keys = {"module", "field", "value"};
  if (!rows.is_array())
    throw Error("overrides are no list of rows", origin,
                R"(write [{"module": .., "field": .., "value": ..}, ..])");
  std::vector<Override> parsed;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string where = origin + ": row " + std::to_string(i + 1);
    const nlohmann::json& row = rows[i];
    if (!row.is_object())
      throw Error("a row is no object", where, R"(write {"module": .., "field": .., "value": ..})");
    for (const auto& [key, value] : row.items()) {
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      const std::string guess = nearest(key, keys);
      throw Error("unknown key \"" + printable(key) + "\"", where,
                  guess.empty() ? "" : "did you mean \"" + guess + "\"?");
    }
    const auto text = [&](const char* key) {
      const auto found = row.find(key);
      if (found == row.end() || !found->is_string())
        throw Error(std::string("no text \"") + key + "\"", where);
      return found->get<std::string>();
    };
    parsed.push_back({text("module"), text("field"), text("value"), origin});
    try {
      check_override(parsed.back());
    } catch (const Error& error) { throw Error(error.problem(), where, error.fix()); }
  }
  return parsed;
}

nlohmann::json parse_json(std::string_view text, const std::string& origin) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw Error("no valid JSON: " + printable(error.what(), 200), origin);
  }
}

}  // namespace

bool matches(std::string_view pattern, std::string_view module, int layers) {
  // Iterative, with one place to come back to: the last '*' and how much it has swallowed.
  std::size_t p = 0, m = 0, star = std::string_view::npos, swallowed = 0;
  while (true) {
    if (p == pattern.size() && m == module.size()) return true;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      swallowed = m;
      continue;
    }
    if (p < pattern.size() && m < module.size()) {
      if (pattern[p] == '[') {
        const std::optional<Range> range = parse_range(pattern, p);
        int layer = 0;
        const auto [end, error] = std::from_chars(module.data() + m, module.data() + module.size(), layer);
        if (range && error == std::errc() && module[m] != '-' && contains(*range, layer, layers)) {
          p = range->end;
          m = static_cast<std::size_t>(end - module.data());
          continue;
        }
      } else if (pattern[p] == module[m]) {
        ++p, ++m;
        continue;
      }
    }
    if (star == std::string_view::npos || swallowed >= module.size()) return false;
    p = star + 1;
    m = ++swallowed;
  }
}

std::optional<std::string> Target::find(std::string_view module, std::string_view field) const {
  const Override* row = last_match(*this, module, field);
  return row != nullptr ? std::optional(row->value) : std::nullopt;
}

DataType Target::weight_dtype(std::string_view module) const {
  const Override* row = last_match(*this, module, "weights");
  return row != nullptr ? value_of(*row, parse_weights) : DataType::bf16;
}

DataType Target::activation_dtype() const {
  const Override* row = last_match(*this, "", "activations");
  return row != nullptr ? value_of(*row, parse_activations) : DataType::bf16;
}

DataType Target::kv_dtype(std::string_view module) const {
  const Override* row = last_match(*this, module, "kv");
  return row != nullptr ? value_of(*row, parse_kv) : activation_dtype();
}

ComputeKernelConfig Target::compute_config(std::string_view module) const {
  ComputeKernelConfig config;
  if (const Override* row = last_match(*this, module, "math_fidelity")) {
    config.math_fidelity = value_of(*row, parse_math_fidelity);
  } else {
    switch (weight_dtype(module)) {
      case DataType::bfp4_b:
        config.math_fidelity = MathFidelity::lofi;
        break;
      case DataType::bfp8_b:
        config.math_fidelity = MathFidelity::hifi2;
        break;
      default:
        config.math_fidelity = MathFidelity::hifi4;
        break;
    }
  }
  // At LoFi the products have too few bits for a float32 accumulator to matter.
  config.fp32_dest_acc_en = config.math_fidelity != MathFidelity::lofi;
  return config;
}

std::optional<MemoryConfig> Target::memory_config(std::string_view module) const {
  const Override* row = last_match(*this, module, "memory");
  if (row == nullptr) return std::nullopt;
  return value_of(*row, parse_memory_config);
}

std::optional<MatmulProgramConfig> Target::program_config(std::string_view module) const {
  const Override* row = last_match(*this, module, "program_config");
  if (row == nullptr) return std::nullopt;
  return value_of(*row, parse_program_config);
}

void check_override(const Override& row) {
  if (row.module.empty()) throw Error("a row for no module", row.origin, "\"*\" stands for all");
  for (std::size_t i = row.module.find('['); i != std::string::npos; i = row.module.find('[', i + 1)) {
    if (!parse_range(row.module, i)) {
      throw Error("the range in \"" + printable(row.module) + "\" cannot be read", row.origin,
                  "write it as layers.[30:] or layers.[0:2]");
    }
  }
  if (std::find(field_names.begin(), field_names.end(), row.field) == field_names.end()) {
    const std::string guess = nearest(row.field, field_names);
    throw Error(
        "unknown field \"" + printable(row.field) + "\"", row.origin,
        guess.empty() ? "use one of " + trimmed_list(field_names) : "did you mean \"" + guess + "\"?");
  }
  if (row.field == "weights") value_of(row, parse_weights);
  if (row.field == "kv") value_of(row, parse_kv);
  if (row.field == "math_fidelity") value_of(row, parse_math_fidelity);
  if (row.field == "memory") value_of(row, parse_memory_config);
  if (row.field == "program_config") value_of(row, parse_program_config);
  if (row.field == "activations") {
    value_of(row, parse_activations);
    if (row.module != "*")
      throw Error("activations have one dtype in the whole model", where_of(row), "set them for \"*\"");
  }
}

std::vector<std::string> precision_names() {
  std::vector<std::string> names = {"f32", "bf16", "bfp8_b", "bfp4_b"};
  for (const hw::BuiltIn& recipe : hw::recipes()) {
    if (std::find(names.begin(), names.end(), recipe.name) == names.end()) names.emplace_back(recipe.name);
  }
  return names;
}

Target make_target(const Sku& sku, std::string_view precision, Mesh mesh) {
  if (sku.arch != Arch::cpu && (mesh.rows < 1 || mesh.cols < 1 || mesh.devices() > sku.mesh.devices())) {
    throw Error("a mesh of " + to_string(mesh) + " devices",
                std::string(sku.name) + " has " + std::to_string(sku.mesh.devices()));
  }
  for (const hw::BuiltIn& recipe : hw::recipes()) {
    if (recipe.name != precision) continue;
    Target target{.sku = sku, .mesh = mesh, .precision = std::string(precision)};
    const std::string origin = "recipe " + std::string(precision);
    target.rows = parse_rows(parse_json(recipe.json, origin).at("rows"), origin);
    return target;
  }
  std::string choices;
  const std::vector<std::string> names = precision_names();
  for (const std::string& n : names) choices += (choices.empty() ? "" : ", ") + n;
  throw Error("unknown precision \"" + printable(precision) + "\"", {}, "use one of " + choices);
}

void add_overrides(Target& target, const std::filesystem::path& file) {
  constexpr std::uintmax_t largest = std::uintmax_t{16} << 20;
  std::error_code failed;
  const std::uintmax_t size = std::filesystem::file_size(file, failed);
  if (failed) throw Error("the overrides cannot be read: " + failed.message(), file.string());
  if (size > largest) throw Error("the overrides are larger than 16 MiB", file.string());
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw Error("the overrides cannot be read", file.string());
  add_overrides(target, text.str(), file.string());
}

void add_overrides(Target& target, std::string_view json, std::string_view origin) {
  std::vector<Override> rows = parse_rows(parse_json(json, std::string(origin)), std::string(origin));
  target.rows.insert(target.rows.end(), std::make_move_iterator(rows.begin()),
                     std::make_move_iterator(rows.end()));
}

}  // namespace ttt::inline v2
