#include <gtest/gtest.h>

#include <array>

#include "ttt/base/error.h"
#include "ttt/base/utf8.h"

namespace {

TEST(Error, JoinsTheGivenParts) {
  EXPECT_STREQ(ttt::Error("no such file").what(), "no such file");
  EXPECT_STREQ(ttt::Error("no such file", "a.gguf").what(), "no such file, a.gguf");
  EXPECT_STREQ(ttt::Error("no such file", "", "check the path").what(), "no such file, check the path");
}

TEST(Error, PrintableEscapesWhatCouldHarmATerminal) {
  EXPECT_EQ(ttt::printable("a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
  EXPECT_EQ(ttt::printable("\xff é"), "\\xff é");
  EXPECT_EQ(ttt::printable("\xc2\x9b"), "\\xc2\\x9b");  // CSI as one C1 control
  EXPECT_EQ(ttt::printable("abcdef", 3), "abc...");
}

TEST(Error, NearestFindsTypingMistakesOnly) {
  const std::array<std::string, 2> names{"num_hidden_layers", "hidden_size"};
  EXPECT_EQ(ttt::nearest("num_hiden_layers", names), "num_hidden_layers");
  EXPECT_EQ(ttt::nearest("vocab", names), "");
}

TEST(Utf8, RejectsWhatUnicodeRejects) {
  for (const char* bad : {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "\xff"})
    EXPECT_EQ(ttt::utf8::valid_length(bad), 0u) << bad;
  EXPECT_EQ(ttt::utf8::valid_length("\xf0\x9f\x98\x80"), 4u);
  EXPECT_EQ(ttt::utf8::missing_bytes("\xf0\x9f"), 2u);
  EXPECT_EQ(ttt::utf8::missing_bytes("\xf0\x80"), 0u);
}

TEST(Utf8, RepairReplacesMaximalSubparts) {  // the example of Unicode 15, table 3-8
  EXPECT_EQ(ttt::utf8::repair("a\xf1\x80\x80\xe1\x80\xc2"
                              "b\x80"
                              "c\x80\xbf"
                              "d"),
            "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
            "b\xef\xbf\xbd"
            "c\xef\xbf\xbd\xef\xbf\xbd"
            "d");
}

TEST(Utf8, AppendAndDecodeAreInverse) {
  for (char32_t c : {U'a', U'\u00e9', U'\u20ac', U'\U0001F600', U'\U0010FFFF'}) {
    std::string text;
    ttt::utf8::append(text, c);
    EXPECT_EQ(ttt::utf8::valid_length(text), text.size());
    EXPECT_EQ(ttt::utf8::decode(text), c);
  }
}

}  // namespace
