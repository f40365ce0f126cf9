#include "runtime/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/prompt_lookup.h"
#include "ttt/base/utf8.h"

namespace ttt::runtime {
namespace {

TEST(StopMatcher, HoldsBackWhatMayBeABeginning) {
  const std::vector<std::string> stops = {"</end>"};
  StopMatcher matcher(stops, false);
  EXPECT_EQ(matcher.push("a </e"), "a ");
  EXPECT_EQ(matcher.push("xit></"), "</exit>");
  EXPECT_EQ(matcher.push("end> tail"), "");
  ASSERT_NE(matcher.matched(), nullptr);
  EXPECT_EQ(*matcher.matched(), "</end>");
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, MayIncludeTheMatchAndMayBeDisarmed) {
  const std::vector<std::string> stops = {"ab", "b"};
  StopMatcher matcher(stops, true);
  EXPECT_EQ(matcher.push("xab", false), "xab");
  EXPECT_EQ(matcher.push("cab!"), "cab");
  EXPECT_EQ(*matcher.matched(), "ab") << "the longest of those complete at one place";
}

TEST(StopMatcher, WithoutMatchEverythingComesOut) {
  const std::vector<std::string> stops = {"aab"};
  StopMatcher matcher(stops, false);
  EXPECT_EQ(matcher.push("aaa"), "a");
  EXPECT_EQ(matcher.finish(), "aa");
}

// Against a search over the whole text, for any cut into pieces.
TEST(StopMatcher, DoesNotDependOnThePieces) {
  const std::vector<std::string> letters = {"a", "b", "é", "日"};
  for (unsigned seed = 0; seed < 3000; ++seed) {
    std::mt19937 rng(seed);
    const auto word = [&](std::size_t most) {
      std::string text;
      for (std::size_t n = 1 + rng() % most; n > 0; --n) text += letters[rng() % letters.size()];
      return text;
    };
    std::vector<std::string> stops;
    for (std::size_t n = rng() % 4; n > 0; --n) stops.push_back(word(4));
    const bool include = rng() % 2 == 0;
    StopMatcher matcher(stops, include);
    std::string text, out;
    for (int piece = 0; piece < 6; ++piece) {
      const std::string next = word(3);
      text += next;
      const std::string emitted = matcher.push(next);
      EXPECT_EQ(utf8::repair(emitted), emitted);
      out += emitted;
    }
    out += matcher.finish();
    std::string expected = text, match;
    for (std::size_t end = 1; end <= text.size() && match.empty(); ++end) {
      for (const std::string& stop : stops)
        if (stop.size() > match.size() && text.substr(0, end).ends_with(stop)) match = stop;
      if (!match.empty()) expected = text.substr(0, end - (include ? 0 : match.size()));
    }
    ASSERT_EQ(out, expected) << "seed " << seed;
    ASSERT_EQ(matcher.matched() ? *matcher.matched() : "", match);
  }
}

TEST(PromptLookup, FindsTheLastEarlierOccurrence) {
  const std::vector<std::int32_t> tokens = {1, 2, 3, 9, 1, 2, 3, 7, 8, 1, 2, 3};
  const auto ids = [](std::span<const std::int32_t> s) {
    return std::vector<std::int32_t>(s.begin(), s.end());
  };
  EXPECT_EQ(ids(prompt_lookup(tokens, 3, 2)), (std::vector<std::int32_t>{7, 8}));
  EXPECT_EQ(ids(prompt_lookup(tokens, 8, 20)), (std::vector<std::int32_t>{7, 8, 1, 2, 3}))
      << "shorter ends follow";
  EXPECT_TRUE(prompt_lookup(tokens, 3, 0).empty());
  EXPECT_TRUE(prompt_lookup(std::vector<std::int32_t>{1, 2, 3, 4}, 3, 4).empty());
  EXPECT_TRUE(prompt_lookup(std::vector<std::int32_t>{1}, 3, 4).empty());
  EXPECT_EQ(ids(prompt_lookup(std::vector<std::int32_t>{5, 5, 5}, 3, 4)), (std::vector<std::int32_t>{5}))
      << "they may overlap";
}

}  // namespace
}  // namespace ttt::runtime
