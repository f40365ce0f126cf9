// Reads the rows of data/tuning.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "hw/built_in.h"
#include "ttt/base/error.h"
#include "ttt/hw/choose.h"

namespace ttt::inline v2::hw {

namespace {

constexpr std::array<std::string_view, 5> fields = {"program_config", "in", "product", "out",
                                                    "weight_memory"};
constexpr std::array<std::string_view, 7> keys = {"sku", "rows", "in", "out", "weights", "field", "value"};

std::string text_of(const nlohmann::json& row, const char* key, const std::string& where) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_string()) throw Error(std::string("no text \"") + key + "\"", where);
  return found->get<std::string>();
}

std::int64_t extent_of(const nlohmann::json& value, const char* key, const std::string& where) {
  constexpr std::int64_t most = std::int64_t{1} << 24;
  if (!value.is_number_integer() || value.get<std::int64_t>() < 1 || value.get<std::int64_t>() > most)
    throw Error(std::string("\"") + key + "\" is no size", where, "write a number from 1 to 16777216");
  return value.get<std::int64_t>();
}

TuningRow parse_row(const nlohmann::json& row, const std::string& where) {
  if (!row.is_object()) throw Error("a row is no object", where);
  for (const auto& [key, value] : row.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end() && key != "source") {
      const std::string guess = nearest(key, keys);
      throw Error("unknown key \"" + printable(key) + "\"", where,
                  guess.empty() ? "" : "did you mean \"" + guess + "\"?");
    }
  }
  for (std::string_view key : keys) {
    if (!row.contains(key)) throw Error("no \"" + std::string(key) + "\"", where);
  }
  TuningRow parsed{.sku = text_of(row, "sku", where),
                   .field = text_of(row, "field", where),
                   .value = text_of(row, "value", where),
                   .source = row.contains("source") ? text_of(row, "source", where) : ""};
  if (parsed.sku != "*") find(parsed.sku);
  if (std::find(fields.begin(), fields.end(), parsed.field) == fields.end())
    throw Error("unknown field \"" + printable(parsed.field) + "\"", where,
                "use program_config, in, product, out or weight_memory");
  const nlohmann::json& rows = row.at("rows");
  if (!rows.is_array() || rows.size() != 2) throw Error("\"rows\" is no pair", where, "write [least, most]");
  parsed.least_rows = extent_of(rows[0], "rows", where);
  parsed.most_rows = extent_of(rows[1], "rows", where);
  parsed.in = extent_of(row.at("in"), "in", where);
  parsed.out = extent_of(row.at("out"), "out", where);
  try {
    parsed.weights = parse_dtype(text_of(row, "weights", where));
    if (parsed.field == "program_config") {
      parse_program_config(parsed.value);
    } else {
      parse_memory_config(parsed.value);
    }
  } catch (const Error& error) { throw Error(error.problem(), where, error.fix()); }
  return parsed;
}

}  // namespace

std::vector<TuningRow> parse_tuning(std::string_view json, std::string_view origin) {
  nlohmann::json rows;
  try {
    rows = nlohmann::json::parse(json);
  } catch (const nlohmann::json::exception& error) {
    throw Error("no valid JSON: " + printable(error.what(), 200), origin);
  }
  if (!rows.is_array()) throw Error("no list of rows", origin);
  std::vector<TuningRow> parsed;
  for (std::size_t i = 0; i < rows.size(); ++i)
    parsed.push_back(parse_row(rows[i], std::string(origin) + ": row " + std::to_string(i + 1)));
  return parsed;
}

const std::vector<TuningRow>& tuning() {
  static const std::vector<TuningRow> all = [] {
    std::vector<TuningRow> rows;
    for (const BuiltIn& file : tuning_files()) {
      std::vector<TuningRow> part =
          parse_tuning(file.json, "data/tuning/" + std::string(file.name) + ".json");
      rows.insert(rows.end(), part.begin(), part.end());
    }
    return rows;
  }();
  return all;
}

std::optional<std::string> tuned(const std::vector<TuningRow>& rows, const Sku& sku, const MatmulShape& s,
                                 std::string_view field) {
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
    if (row->field == field && (row->sku == "*" || row->sku == sku.name) && row->in == s.in &&
        row->out == s.out && row->weights == s.weights && row->least_rows <= s.rows &&
        s.rows <= row->most_rows)
      return row->value;
  }
  return std::nullopt;
}

}  // namespace ttt::inline v2::hw
