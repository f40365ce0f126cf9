// ttt tests and ttt expect.
#pragma once

#include <string>
#include <vector>

#include "cli.h"
#include "ttt/testing/selection.h"

namespace ttt_cli {

void add_tests(Program&);
void add_expect(Program&);

// The flags that choose tests.
void add_selection_flags(CLI::App*, ttt::testing::SelectionOptions&, std::vector<std::string>& libraries);

}  // namespace ttt_cli
