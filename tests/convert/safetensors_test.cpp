#include "ttt/convert/safetensors.h"

#include <gtest/gtest.h>

#include "convert/files.h"

namespace ttt {
namespace {

using test::safetensors_bytes;

SafetensorsFile parse(const std::string& bytes) {
  return SafetensorsFile::from_bytes(test::bytes_of(bytes), "test");
}
std::string failure(const std::string& header, const std::string& data) {
  const std::string bytes = safetensors_bytes(header, data);
  return test::error_of([&] { parse(bytes); });
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I32","shape":[2],"data_offsets":[8,16]},)"
      R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"none":{"dtype":"F32","shape":[0,3],"data_offsets":[16,16]}})";
  std::string data(16, '\0');
  const float floats[2] = {1.5f, -2.0f};
  const std::int32_t ints[2] = {7, -7};
  std::memcpy(data.data(), floats, 8);
  std::memcpy(data.data() + 8, ints, 8);
  const std::string bytes = safetensors_bytes(header, data);
  const SafetensorsFile file = parse(bytes);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "a");  // by offset
  EXPECT_EQ(file.floats("a"), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(file.integers("b"), (std::vector<std::int64_t>{7, -7}));
  EXPECT_EQ(file.floats("b"), (std::vector<float>{7, -7}));
  EXPECT_TRUE(file.floats("none").empty());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_ERROR(file.floats("nome"), "did you mean none");
  EXPECT_ERROR(file.integers("a"), "F32 values are no integers");
}

TEST(Safetensors, RefusesDamage) {
  const std::string eight(8, '\0');
  EXPECT_ERROR(parse(""), "shorter than its header");
  EXPECT_ERROR(parse(std::string(7, '\0')), "shorter than its header");
  EXPECT_ERROR(parse(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)),
               "a header of 18446744073709551615 bytes");
  EXPECT_ERROR(parse(std::string("\x10\0\0\0\0\0\0\0{}", 10)), "ends within its header");
  EXPECT_NE(failure("", "").find("does not begin with {"), std::string::npos);
  EXPECT_NE(failure("[]", "").find("does not begin with {"), std::string::npos);
  EXPECT_NE(failure(R"({"a":)", "").find("no JSON"), std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x)", eight).find("no JSON"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", eight)
                .find("unknown dtype F31, a in test"),
            std::string::npos);
  EXPECT_NE(
      failure(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", eight).find("do not fit F32 [3]"),
      std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", eight).find("do not fit"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", eight)
                .find("ends before the tensor does"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight)
                .find("a hole before a tensor, a"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight)
                .find("4 bytes behind the last tensor"),
            std::string::npos);
  EXPECT_NE(
      failure(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          eight)
          .find("two tensors overlap"),
      std::string::npos);
  EXPECT_NE(
      failure(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          eight)
          .find("two tensors of one name"),
      std::string::npos);
  // 2^62 * 4 bytes wraps to 0.
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", "")
                .find("do not fit"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", "")
                .find("beyond 2^63"),
            std::string::npos);
  EXPECT_NE(
      failure(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", eight).find("a negative number"),
      std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", eight).find("a fraction"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[2]}})", eight).find("is missing"), std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})", eight)
                .find("more than two offsets"),
            std::string::npos);
  EXPECT_NE(failure(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", eight)
                .find("fewer than two offsets"),
            std::string::npos);
  EXPECT_NE(
      failure(R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", eight).find("a list where"),
      std::string::npos);
  EXPECT_NE(failure(R"({"a":{"b":{}}})", "").find("unknown field b"), std::string::npos);
  EXPECT_NE(failure(R"({"a":3})", "").find("a number where"), std::string::npos);
  EXPECT_NE(
      failure(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", "")
          .find("more than 16 axes"),
      std::string::npos);
}

TEST(Safetensors, NestingCostsNothing) {
  std::string header = R"({"a":{"shape":)" + std::string(1'000'000, '[');
  EXPECT_NE(failure(header, "").find("a list where"), std::string::npos);
}

// Every prefix and every changed byte of a good file is either read or refused; never more.
TEST(Safetensors, SurvivesTruncationAndBitFlips) {
  const std::string good = safetensors_bytes(
      R"({"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
      std::string(11, '\1'));
  ASSERT_EQ(parse(good).tensors().size(), 2u);
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_THROW(parse(good.substr(0, length)), Error) << length;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      try {
        const SafetensorsFile file = parse(bad);
        for (const SafetensorsTensor& t : file.tensors()) file.floats(t.name);
      } catch (const Error&) {}
    }
  }
}

TEST(Safetensors, WritesWhatItReads) {
  const test::TemporaryFolder folder;
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> ids{-1, 1};
  const std::string packed(5, '\x7f');
  write_safetensors(folder.path() / "x.safetensors",
                    std::vector{make_entry("w\"eird", {2, 3}, values), make_entry("ids", {2}, ids),
                                make_entry("packed", {5}, StorageType::u8, test::bytes_of(packed)),
                                make_entry("empty", {0, 4}, std::span<const float>())},
                    {{"who", "test"}});
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "x.safetensors");
  EXPECT_EQ(file.floats("w\"eird"), values);
  EXPECT_EQ(file.integers("ids"), ids);
  EXPECT_EQ(file.integers("packed"), std::vector<std::int64_t>(5, 127));
  EXPECT_EQ(file.find("empty")->shape, (std::vector<std::int64_t>{0, 4}));
  EXPECT_EQ(file.metadata().at("who"), "test");
  EXPECT_EQ(file.tensors()[0].offset % 8, 0u);
}

TEST(Safetensors, AFailedWriteLeavesNothing) {
  const test::TemporaryFolder folder;
  const std::vector<float> values{1, 2, 3};
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(folder.path()),
                         std::filesystem::directory_iterator());
  };
  const std::filesystem::path path = folder.write("x.safetensors", "old");
  EXPECT_ERROR(write_safetensors(path, std::vector{make_entry("a", {4}, values)}), "12 bytes for F32 [4]");
  EXPECT_ERROR(
      write_safetensors(path, std::vector{make_entry("a", {3}, values), make_entry("a", {3}, values)}),
      "a tensor name that is taken");
  EXPECT_ERROR(write_safetensors(path, std::vector{make_entry("a", {-3}, values)}), "a negative extent");
  EXPECT_ERROR(write_safetensors(path, std::vector{make_entry("a", {1}, StorageType::q4_0, {})}),
               "has no place in safetensors");
  EXPECT_ERROR(write_safetensors(folder.path() / "no" / "x", std::vector{make_entry("a", {3}, values)}),
               "can not be written");
  SafetensorsEntry broken = make_entry("a", {3}, values);
  broken.write = [](const auto&) { throw Error("stop"); };
  EXPECT_ERROR(write_safetensors(path, std::vector{broken}), "stop");
  EXPECT_EQ(test::read_file(path), "old");
  EXPECT_EQ(count(), 1);
}

TEST(Safetensors, OpenNamesTheFile) {
  const test::TemporaryFolder folder;
  EXPECT_ERROR(SafetensorsFile::open(folder.path() / "absent.safetensors"), "absent.safetensors");
  EXPECT_ERROR(SafetensorsFile::open(folder.path()), "no regular file");
  EXPECT_ERROR(SafetensorsFile::open(folder.write("empty.safetensors", "")), "shorter than its header");
}

}  // namespace
}  // namespace ttt
