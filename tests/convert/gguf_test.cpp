#include "ttt/convert/gguf.h"

#include <gtest/gtest.h>

#include "convert/files.h"

namespace ttt {
namespace {

using test::GgufBytes;

GgufFile parse(const std::string& bytes) { return GgufFile::from_bytes(test::bytes_of(bytes), "test"); }

std::string small_file() {
  GgufBytes out;
  out.header(2, 4)
      .string_value("general.architecture", "x")
      .u32_value("x.block_count", 2)
      .bools_value("x.flags", {true, false})
      .f32_value("x.eps", 0.5f);
  out.tensor("a", {2, 3}, 0, 0).tensor("b", {32, 1}, 8, 32).align();
  out.floats({1, 2, 3, 4, 5, 6}).align().number<std::uint16_t>(0x3C00);
  for (int i = 0; i < 32; ++i) out.number<std::int8_t>(static_cast<std::int8_t>(i));
  return out.bytes();
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const std::string bytes = small_file();
  const GgufFile file = parse(bytes);
  EXPECT_EQ(file.architecture(), "x");
  EXPECT_EQ(file.integer("x.block_count"), 2);
  EXPECT_EQ(file.number("x.eps"), 0.5);
  EXPECT_EQ(file.number("x.block_count"), 2.0);
  EXPECT_EQ(file.integer("x.absent"), std::nullopt);
  EXPECT_ERROR(file.integer("general.architecture"), "is no integer, general.architecture in test");
  EXPECT_EQ(std::get<std::vector<bool>>(std::get<GgufArray>(*file.find_value("x.flags"))),
            (std::vector<bool>{true, false}));
  ASSERT_NE(file.find("a"), nullptr);
  EXPECT_EQ(file.find("a")->shape, (std::vector<std::int64_t>{3, 2}));
  std::vector<float> values(6);
  to_float(StorageType::f32, file.bytes(*file.find("a")).data(), 6, values.data());
  EXPECT_EQ(values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  values.resize(32);
  to_float(file.find("b")->type, file.bytes(*file.find("b")).data(), 32, values.data());
  EXPECT_EQ(values[31], 31.0f);
}

TEST(Gguf, EveryMetadataType) {
  GgufBytes out;
  out.header(0, 13).string_value("general.architecture", "x");
  out.text("u8").number<std::uint32_t>(0).number<std::uint8_t>(255);
  out.text("i8").number<std::uint32_t>(1).number<std::int8_t>(-1);
  out.text("u16").number<std::uint32_t>(2).number<std::uint16_t>(65535);
  out.text("i16").number<std::uint32_t>(3).number<std::int16_t>(-2);
  out.text("i32").number<std::uint32_t>(5).number<std::int32_t>(-3);
  out.text("u64").number<std::uint32_t>(10).number<std::uint64_t>(1ull << 40);
  out.text("big").number<std::uint32_t>(10).number<std::uint64_t>(~0ull);
  out.text("i64").number<std::uint32_t>(11).number<std::int64_t>(-4);
  out.text("f64").number<std::uint32_t>(12).number<double>(0.1);
  out.strings_value("names", {"a", "", "\xff"}).u32s_value("numbers", {1, 2}).bool_value("flag", true);
  const GgufFile file = parse(out.bytes());
  EXPECT_EQ(file.integer("u8"), 255);
  EXPECT_EQ(file.integer("i8"), -1);
  EXPECT_EQ(file.integer("u16"), 65535);
  EXPECT_EQ(file.integer("i16"), -2);
  EXPECT_EQ(file.integer("i32"), -3);
  EXPECT_EQ(file.integer("u64"), std::int64_t{1} << 40);
  EXPECT_EQ(std::get<std::uint64_t>(*file.find_value("big")), ~0ull);
  EXPECT_EQ(file.integer("i64"), -4);
  EXPECT_EQ(file.number("f64"), 0.1);
  EXPECT_EQ(file.flag("flag"), true);
  EXPECT_EQ(std::get<std::vector<std::string>>(std::get<GgufArray>(*file.find_value("names")))[2], "\xff");
}

TEST(Gguf, RefusesWhatItIsNot) {
  EXPECT_ERROR(parse(""), "no GGUF file");
  EXPECT_ERROR(parse(std::string(100, 'x')), "no GGUF file");
  EXPECT_ERROR(parse(GgufBytes().header(0, 0, 1).bytes()), "GGUF version 1");
  EXPECT_ERROR(parse(GgufBytes().header(0, 0, 4).bytes()), "GGUF version 4");
  EXPECT_ERROR(parse(GgufBytes().header(0, 0, 3u << 24).bytes()), "big-endian");
  EXPECT_NO_THROW(parse(GgufBytes().header(0, 0, 2).bytes()));
}

TEST(Gguf, RefusesDamage) {
  EXPECT_ERROR(parse(GgufBytes().header(1ull << 60, 0).bytes()), "tensors and 0 values announced");
  EXPECT_ERROR(parse(GgufBytes().header(0, ~0ull).bytes()), "announced");
  GgufBytes twice;
  twice.header(0, 2).u32_value("k", 1).u32_value("k", 2);
  EXPECT_ERROR(parse(twice.bytes()), "a key that occurs twice, k in test");
  EXPECT_ERROR(
      parse(GgufBytes().header(0, 1).text("k").number<std::uint32_t>(13).number<std::uint64_t>(0).bytes()),
      "unknown metadata type 13");
  // A list that says it has 2^61 entries of 8 bytes.
  GgufBytes list;
  list.header(0, 1).text("k").number<std::uint32_t>(9).number<std::uint32_t>(12).number<std::uint64_t>(1ull
                                                                                                       << 61);
  EXPECT_ERROR(parse(list.bytes()), "ends in its header");
  GgufBytes nested;
  nested.header(0, 1)
      .text("k")
      .number<std::uint32_t>(9)
      .number<std::uint32_t>(9)
      .number<std::uint64_t>(1)
      .number<std::uint64_t>(0);
  EXPECT_ERROR(parse(nested.bytes()), "a list of lists");
  GgufBytes alignment;
  alignment.header(0, 1).u32_value("general.alignment", 48);
  EXPECT_ERROR(parse(alignment.bytes()), "an alignment of 48");

  const auto one = [](const std::vector<std::uint64_t>& extents, std::uint32_t type, std::uint64_t offset) {
    GgufBytes out;
    out.header(1, 0).tensor("t", extents, type, offset).align().floats({0, 0, 0, 0, 0, 0, 0, 0});
    return out.bytes();
  };
  EXPECT_NO_THROW(parse(one({8}, 0, 0)));
  EXPECT_ERROR(parse(one({9}, 0, 0)), "ends before the tensor does, t in test");
  EXPECT_ERROR(parse(one({8}, 0, 32)), "ends before the tensor does");
  EXPECT_ERROR(parse(one({8}, 0, ~0ull - 31)), "ends before the tensor does");
  EXPECT_ERROR(parse(one({4}, 0, 4)), "an offset of 4");
  EXPECT_ERROR(parse(one({8}, 99, 0)), "unknown tensor type 99");
  EXPECT_ERROR(parse(one({8}, 2, 0)), "rows of 8 values of Q4_0");
  EXPECT_ERROR(parse(one({1, 1, 1, 1, 1}, 0, 0)), "5 axes");
  EXPECT_ERROR(parse(one({1ull << 32, 1ull << 32}, 0, 0)), "damaged");
  EXPECT_ERROR(parse(one({1ull << 62}, 0, 0)), "damaged");
  GgufBytes overlap;
  overlap.header(2, 0).tensor("a", {8}, 0, 0).tensor("b", {4}, 0, 0).align().floats({0, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_ERROR(parse(overlap.bytes()), "overlaps");
  GgufBytes names;
  names.header(2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).align().floats(std::vector<float>(16));
  EXPECT_ERROR(parse(names.bytes()), "two tensors of one name");
}

TEST(Gguf, SurvivesTruncationAndBitFlips) {
  const std::string good = small_file();
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_THROW(parse(good.substr(0, length)), Error) << length;
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      try {
        const GgufFile file = parse(bad);
        for (const GgufTensor& t : file.tensors()) {
          std::vector<float> values(file.bytes(t).size() * 8);
          const BlockSize block = block_size(t.type);
          to_float(
              t.type, file.bytes(t).data(),
              file.bytes(t).size() / static_cast<unsigned>(block.bytes) * static_cast<unsigned>(block.values),
              values.data());
        }
      } catch (const Error&) {}
    }
  }
}

TEST(Gguf, SplitFiles) {
  const test::TemporaryFolder folder;
  const auto part = [&](int index, const char* name, float value) {
    GgufBytes out;
    out.header(1, 2)
        .u32_value("split.count", 2)
        .u32_value("split.tensors.count", 2)
        .tensor(name, {1}, 0, 0)
        .align()
        .floats({value});
    return folder.write("m-0000" + std::to_string(index) + "-of-00002.gguf", out.bytes());
  };
  const auto first = part(1, "a", 1);
  EXPECT_ERROR(GgufFile::open(first), "a part is missing");
  const auto second = part(2, "b", 2);
  for (const auto& path : {first, second}) {  // any part opens all
    const GgufFile file = GgufFile::open(path);
    ASSERT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.files().size(), 2u);
    EXPECT_EQ(file.find("b")->file, 1u);
    float value = 0;
    to_float(StorageType::f32, file.bytes(*file.find("b")).data(), 1, &value);
    EXPECT_EQ(value, 2.0f);
  }
  std::filesystem::copy(first, folder.path() / "renamed.gguf");
  EXPECT_ERROR(GgufFile::open(folder.path() / "renamed.gguf"), "one part of 2");
  part(2, "a", 2);
  EXPECT_ERROR(GgufFile::open(first), "two tensors of one name");
}

TEST(Gguf, Vocabulary) {
  GgufBytes out;
  out.header(0, 9)
      .string_value("tokenizer.ggml.model", "gpt2")
      .string_value("tokenizer.ggml.pre", "smollm")
      .strings_value("tokenizer.ggml.tokens", {"a", "b", "<e>"});
  out.u32s_value("tokenizer.ggml.token_type", {1, 1, 3})
      .strings_value("tokenizer.ggml.merges", {"a b"})
      .u32_value("tokenizer.ggml.eos_token_id", 2);
  out.u32_value("tokenizer.ggml.padding_token_id", 0xFFFFFFFFu)
      .bool_value("tokenizer.ggml.add_bos_token", false)
      .u32_value("tokenizer.ggml.seperator_token_id", 1);
  const Vocabulary v = parse(out.bytes()).vocabulary();
  EXPECT_EQ(v.model, "gpt2");
  EXPECT_EQ(v.pre, "smollm");
  EXPECT_EQ(v.tokens.size(), 3u);
  EXPECT_EQ(v.token_types[2], TokenType::control);
  EXPECT_EQ(v.merges, std::vector<std::string>{"a b"});
  EXPECT_EQ(v.eos_id, 2);
  EXPECT_EQ(v.padding_id, std::nullopt);
  EXPECT_EQ(v.separator_id, 1);
  EXPECT_EQ(v.add_bos, false);
  EXPECT_EQ(v.add_eos, std::nullopt);

  EXPECT_ERROR(parse(GgufBytes().header(0, 0).bytes()).vocabulary(), "has no vocabulary");
  GgufBytes bad;
  bad.header(0, 2).string_value("tokenizer.ggml.model", "gpt2").u32s_value("tokenizer.ggml.tokens", {1});
  EXPECT_ERROR(parse(bad.bytes()).vocabulary(), "a list of another type, tokenizer.ggml.tokens");
  GgufBytes type;
  type.header(0, 2).string_value("tokenizer.ggml.model", "gpt2").u32s_value("tokenizer.ggml.token_type", {9});
  EXPECT_ERROR(parse(type.bytes()).vocabulary(), "token type 9");
}

}  // namespace
}  // namespace ttt
