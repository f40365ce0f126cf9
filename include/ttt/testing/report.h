// Results as JSON documents, and documents as one HTML page that needs no network: charts a person would
// rather look at than read logs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/testing/debug.h"
#include "ttt/testing/profile.h"

namespace ttt::inline v2::testing {

// What a document says of the model besides what was measured.
struct ReportSubject {
  std::string model;                       // file or folder name
  std::string architecture, family;        // as LoadedModel has them
  std::vector<std::string> token_texts{};  // of the prompt; empty: there is no tokenizer
};

// Of a loaded checkpoint under a name; with the texts of a prompt's tokens.
ReportSubject report_subject(const LoadedModel&, std::string name, std::span<const std::int32_t> prompt = {});

// One JSON object each; "kind" says which: debug_run, debug_compare, perf.
std::string to_json(const DebugRun&, const ReportSubject&);
std::string to_json(const Comparison&, const ReportSubject&);
std::string to_json(const ProfileResult&, const ReportSubject&);  // without the trace

// A page that shows the documents, one after the other. Error: a text that is no such document (names its
// index and what it lacks).
std::string html_report(std::span<const std::string> documents);

}  // namespace ttt::inline v2::testing
