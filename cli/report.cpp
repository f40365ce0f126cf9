#include <algorithm>
#include <cctype>
#include <cstdio>
#include <iostream>

#include "cli.h"
#include "ttt/base/utf8.h"

namespace ttt_cli {

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

double megabytes(std::size_t bytes) { return static_cast<double>(bytes) / 1e6; }

const char* word(ttt::testing::Outcome outcome) {
  using ttt::testing::Outcome;
  return outcome == Outcome::passed ? "pass" : outcome == Outcome::failed ? "FAIL" : "skip";
}

std::string joined(const std::vector<std::string>& texts, std::string_view separator) {
  std::string all;
  for (const std::string& text : texts) {
    if (!all.empty()) all += separator;
    all += text;
  }
  return all;
}

std::string Report::key(std::string_view label, std::string_view unit) {
  std::string text(label);
  if (!unit.empty()) text += " " + std::string(unit == "%" ? "percent" : unit);
  std::string key;
  for (char c : text) {
    if (c == '/') {
      key += "_per_";
    } else if (std::isalnum(static_cast<unsigned char>(c))) {
      key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!key.empty() && key.back() != '_') {
      key += '_';
    }
  }
  return key;
}

void Report::add(std::string_view label, double value, std::string_view unit, int decimals) {
  std::string text = fixed(value, decimals);
  if (!unit.empty()) text += " " + std::string(unit);
  rows_.push_back({std::string(label), key(label, unit), text, value});
}
void Report::add(std::string_view label, std::size_t value, std::string_view unit) {
  std::string text = std::to_string(value);
  if (!unit.empty()) text += " " + std::string(unit);
  rows_.push_back({std::string(label), key(label, unit), text, value});
}
void Report::add(std::string_view label, std::string_view value) {
  rows_.push_back({std::string(label), key(label, ""), std::string(value), ttt::utf8::repair(value)});
}
void Report::add(std::string_view label, bool value) {
  rows_.push_back({std::string(label), key(label, ""), value ? "yes" : "no", value});
}
void Report::add_json_only(std::string_view label, Json value) {
  rows_.push_back({"", key(label, ""), "", std::move(value)});
}

void Report::print(std::FILE* file) const {
  std::size_t width = 0;
  for (const Row& row : rows_) width = std::max(width, row.label.size());
  for (const Row& row : rows_) {
    if (!row.label.empty())
      std::fprintf(file, "%s:%s %s\n", row.label.c_str(), std::string(width - row.label.size(), ' ').c_str(),
                   row.text.c_str());
  }
}

Json Report::json() const {
  Json object = Json::object();
  for (const Row& row : rows_) object[row.key] = row.value;
  return object;
}

void Table::print(std::FILE* file) const {
  std::vector<std::size_t> widths(rows_.front().size());
  std::vector<bool> right(widths.size(), rows_.size() > 1);
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    for (std::size_t c = 0; c < widths.size(); ++c) {
      const std::string& cell = rows_[r][c];
      widths[c] = std::max(widths[c], cell.size());
      if (r > 0 && !cell.empty() && !(std::isdigit(static_cast<unsigned char>(cell[0])) || cell[0] == '-'))
        right[c] = false;
    }
  }
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - row[c].size(), ' ');
      line += (c > 0 ? "  " : "") + (right[c] ? pad + row[c] : row[c] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    std::fprintf(file, "%s\n", line.c_str());
  }
}

void print_json(const Json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

}  // namespace ttt_cli
