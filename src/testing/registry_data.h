// The tables of data/models and data/expectations and the configurations of the goldens, built in.
#pragma once

#include <string_view>
#include <vector>

namespace ttt::inline v2::testing {

extern const std::string_view architectures_json;
extern const std::string_view evidence_json;

// The configuration of tests/golden/fixtures/NAME.json.
struct GoldenConfiguration {
  std::string_view name, config;
};
extern const std::vector<GoldenConfiguration> golden_configurations;

// data/expectations/SKU.jsonl.
struct ExpectationTable {
  std::string_view sku, lines;
};
extern const std::vector<ExpectationTable> expectation_tables;

}  // namespace ttt::inline v2::testing
