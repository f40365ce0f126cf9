// ttt tests and ttt expect.
#pragma once

#include <string>
#include <vector>

#include "cli.h"
#include "ttt/testing/expectations.h"
#include "ttt/testing/selection.h"

namespace ttt_cli {

void add_tests(Program&);
void add_expect(Program&);

// The flags that choose tests.
void add_selection_flags(CLI::App*, ttt::testing::SelectionOptions&, std::vector<std::string>& libraries);

// The rows of a file; without one, those of the release for the processor.
std::vector<ttt::testing::Expectation> expectations_of(const std::string& file);

}  // namespace ttt_cli
