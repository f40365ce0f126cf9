// Texts that are part of the library, so that no file is looked up at run time.
#pragma once

#include <string_view>

namespace ttt::inline v2::testing {

extern const std::string_view report_page;  // of html_report(), from report.html
extern const std::string_view
    prose;  // what evaluate_suite() runs when it is given no text: docs/architecture.md

}  // namespace ttt::inline v2::testing
