#include "ttt/convert/checkpoint.h"
#include "paths.h"

#include <gtest/gtest.h>

#include <cmath>

#include "convert/files.h"
#include "ttt/convert/safetensors.h"

namespace ttt {
namespace {

using test::GgufBytes;
using test::TemporaryFolder;
using Values = std::vector<float>;
const std::string data_folder = ttt::test::source_dir() + "/tests/convert/data";

void write_tensors(const std::filesystem::path& path, const std::vector<std::string>& names) {
  static const Values values{1, 2, 3, 4};
  std::vector<SafetensorsEntry> entries;
  for (const std::string& name : names) entries.push_back(make_entry(name, {2, 2}, values));
  write_safetensors(path, entries);
}

Values read(const WeightSourcePtr& source) {
  Values out(static_cast<std::size_t>(source->rows() * source->cols()));
  source->read(0, source->rows(), out.data());
  return out;
}

TEST(Checkpoint, AFolderWithOneFile) {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors", {"a", "b"});
  folder.write("config.json", R"({"architectures": ["XForCausalLM"], "hidden_size": 4, "a": Infinity})");
  const Checkpoint c = Checkpoint::open(folder.path());
  EXPECT_EQ(c.format(), CheckpointFormat::safetensors);
  EXPECT_EQ(c.architecture(), "XForCausalLM");
  EXPECT_EQ(c.tensors().size(), 2u);
  EXPECT_EQ(c.shapes()[1].name, "b");
  EXPECT_EQ(read(c.source("a")), (Values{1, 2, 3, 4}));
  EXPECT_EQ(read(c.transposed_source("a")), (Values{1, 3, 2, 4}));
  EXPECT_EQ(c.config().get<int>("hidden_size"), 4);
  EXPECT_TRUE(std::isinf(HfConfig::parse(c.config_json()).get<float>("a")));
  EXPECT_FALSE(c.quantised());
  EXPECT_FALSE(c.has_tokenizer());
  EXPECT_ERROR(c.tokenizer(), "no tokenizer");
  EXPECT_ERROR(c.source("bb"), "no tensor bb");
  EXPECT_NE(c.source("a")->fingerprint(), c.source("b")->fingerprint());
  EXPECT_EQ(c.source("a")->fingerprint(),
            Checkpoint::open(folder.path() / "model.safetensors").source("a")->fingerprint());
  EXPECT_NE(c.table().find("a     [2, 2]  F32               16  model.safetensors"), std::string::npos)
      << c.table();
  EXPECT_NE(c.to_json().find("\"type\": \"F32\""), std::string::npos);
  const WeightSourcePtr kept = Checkpoint::open(folder.path()).source("a");  // the source keeps the mapping
  EXPECT_EQ(read(kept), (Values{1, 2, 3, 4}));
  kept->release();
  EXPECT_EQ(read(kept), (Values{1, 2, 3, 4}));
}

TEST(Checkpoint, AChangedFileHasAnotherFingerprint) {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors", {"a"});
  const std::uint64_t before = Checkpoint::open(folder.path()).source("a")->fingerprint();
  std::filesystem::last_write_time(folder.path() / "model.safetensors",
                                   std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_NE(Checkpoint::open(folder.path()).source("a")->fingerprint(), before);
}

TEST(Checkpoint, Shards) {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "x-1.safetensors", {"a", "both"});
  write_tensors(folder.path() / "x-2.safetensors", {"b", "both"});
  const auto index = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", R"({"metadata": {}, "weight_map": {)" + map + "}}");
  };
  index(R"("a": "x-1.safetensors", "b": "x-2.safetensors", "both": "x-2.safetensors")");
  const Checkpoint c = Checkpoint::open(folder.path());
  EXPECT_EQ(c.files().size(), 2u);
  EXPECT_EQ(c.tensors().size(), 3u);
  EXPECT_EQ(c.find("both")->file, 1u);

  index(R"("a": "x-1.safetensors", "b": "x-2.safetensors")");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "a tensor in two files, both");
  index(R"("a": "x-1.safetensors", "c": "x-2.safetensors", "both": "x-1.safetensors")");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "does not hold c");
  index(R"("a": "x-3.safetensors")");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "a shard is missing");
  for (const char* evil : {"../x-1.safetensors", "/etc/passwd", "a/../x-1.safetensors", "..", "", "x-1.bin",
                           "a\\\\b.safetensors", "x\\u0000.safetensors"}) {
    index(R"("a": ")" + std::string(evil) + "\"");
    EXPECT_ERROR(Checkpoint::open(folder.path()), "an index names .safetensors files of its own folder")
        << evil;
  }
  index(R"("a": 3)");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "is no file name");
  folder.write("model.safetensors.index.json", "{}");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "has no weight_map");
}

TEST(Checkpoint, FoldersThatAreNone) {
  const TemporaryFolder folder;
  EXPECT_ERROR(Checkpoint::open(folder.path() / "nowhere"), "no such file or folder");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "holds no checkpoint");
  EXPECT_ERROR(Checkpoint::open(folder.write("notes.txt", "hello")), "is no checkpoint");
  folder.write("pytorch_model.bin", "x");
  folder.write("config.json", "{}");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "PyTorch weights");
  EXPECT_ERROR(Checkpoint::open(folder.path()), "save_pretrained");
  EXPECT_ERROR(Checkpoint::open(folder.path() / "pytorch_model.bin"), "PyTorch weights");
  write_tensors(folder.path() / "one.safetensors", {"a"});
  EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 1u);
  write_tensors(folder.path() / "two.safetensors", {"b"});
  EXPECT_ERROR(Checkpoint::open(folder.path()), "several .safetensors files and no index");

  const TemporaryFolder config_only;
  config_only.write("config.json", R"({"architectures": ["X"]})");
  EXPECT_TRUE(Checkpoint::open(config_only.path()).tensors().empty());
  const TemporaryFolder adapter;
  adapter.write("adapter_config.json", "{}");
  write_tensors(adapter.path() / "adapter_model.safetensors", {"a"});
  EXPECT_ERROR(Checkpoint::open(adapter.path()), "an adapter without its model");
  const TemporaryFolder weights_only;
  write_tensors(weights_only.path() / "model.safetensors", {"a"});
  EXPECT_ERROR(Checkpoint::open(weights_only.path()).config(), "no config.json");
}

TEST(Checkpoint, TemplatesTokensAndGeneration) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"eos_token_id": [5, 6]})");
  Checkpoint c = Checkpoint::open(folder.path());
  EXPECT_EQ(c.chat_template(), std::nullopt);
  EXPECT_EQ(c.generation().eos_ids, (std::vector<std::int32_t>{5, 6}));
  EXPECT_EQ(c.generation().temperature, std::nullopt);

  folder.write(
      "tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null, "image_token": "<i>",
    "add_bos_token": true, "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  folder.write("special_tokens_map.json", R"({"bos_token": "<other>", "unk_token": "<unk>"})");
  folder.write("generation_config.json",
               R"({"eos_token_id": 7, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "do_sample": true})");
  c = Checkpoint::open(folder.path());
  EXPECT_EQ(c.chat_template(), "D");
  const SpecialTokens tokens = c.special_tokens();
  EXPECT_EQ(tokens.bos, "<s>");
  EXPECT_EQ(tokens.eos, "</s>");
  EXPECT_EQ(tokens.unk, "<unk>");
  EXPECT_EQ(tokens.pad, std::nullopt);
  EXPECT_EQ(tokens.others, (std::map<std::string, std::string>{{"image_token", "<i>"}}));
  const GenerationDefaults g = c.generation();
  EXPECT_EQ(g.eos_ids, std::vector<std::int32_t>{7});
  EXPECT_EQ(g.temperature, 0.6f);
  EXPECT_EQ(g.top_k, 20);
  EXPECT_EQ(g.top_p, 0.9f);
  EXPECT_EQ(g.min_p, std::nullopt);

  folder.write("chat_template.json", R"({"chat_template": "J"})");
  EXPECT_EQ(c.chat_template(), "J");
  folder.write("chat_template.jinja", "{{ x }}\n");
  EXPECT_EQ(c.chat_template(), "{{ x }}\n");
}

// --- GGUF ---

GgufBytes model_file(std::uint64_t more_values) {
  GgufBytes out;
  out.header(2, 12 + more_values)
      .string_value("general.architecture", "arch")
      .u32_value("arch.block_count", 2)
      .u32_value("arch.embedding_length", 8)
      .u32_value("arch.feed_forward_length", 16)
      .u32_value("arch.context_length", 128)
      .u32_value("arch.attention.head_count", 2)
      .u32s_value("arch.attention.head_count_kv", {1, 1})
      .f32_value("arch.attention.layer_norm_rms_epsilon", 1e-5f)
      .f32_value("arch.rope.freq_base", 5e5f)
      .u32_value("arch.rope.dimension_count", 4)
      .u32_value("arch.mystery", 3)
      .string_value("tokenizer.chat_template", "T");
  return out;
}

std::string with_tensors(GgufBytes out) {
  out.tensor("token_embd.weight", {8, 5}, 0, 0).tensor("blk.0.attn_q.weight", {32, 1}, 8, 160).align();
  out.floats(Values(40, 1)).number<std::uint16_t>(0x3C00);
  for (int i = 0; i < 32; ++i) out.number<std::int8_t>(2);
  return out.bytes();
}

TEST(Checkpoint, AGgufFileHasAConfig) {
  const TemporaryFolder folder;
  const auto path = folder.write("m.gguf", with_tensors(model_file(0)));
  const Checkpoint c = Checkpoint::open(path);
  EXPECT_EQ(c.format(), CheckpointFormat::gguf);
  EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 2u);  // the only file of a folder
  EXPECT_EQ(c.architecture(), "arch");
  EXPECT_EQ(c.find("token_embd.weight")->shape, (std::vector<std::int64_t>{5, 8}));
  EXPECT_EQ(read(c.source("blk.0.attn_q.weight")), Values(32, 2));
  EXPECT_FALSE(c.quantised());
  EXPECT_EQ(c.chat_template(), "T");
  EXPECT_FALSE(c.has_tokenizer());
  EXPECT_TRUE(c.generation().eos_ids.empty());
  const HfConfig config = c.config();
  EXPECT_EQ(config.layers(), 2);
  EXPECT_EQ(config.get<int>("hidden_size"), 8);
  EXPECT_EQ(config.kv_heads(), 1);
  EXPECT_EQ(config.get<int>("vocab_size"), 5);
  EXPECT_TRUE(config.get<bool>("tie_word_embeddings"));
  EXPECT_EQ(config.norm_eps(), 1e-5f);
  EXPECT_EQ(config.rope(), (RopeSpec{.theta = 5e5f}));
  EXPECT_EQ(config.get<int>("intermediate_size") + config.get<int>("max_position_embeddings"), 144);
  EXPECT_EQ(config.unread(), std::vector<std::string>{"arch.mystery"});
  EXPECT_EQ(config.get<int>("arch.mystery"), 3);
  EXPECT_TRUE(config.unread().empty());

  const std::vector<GgufKey> keys{
      {"secret", "{arch}.mystery"}, {"hidden_act", "=\"gelu\""}, {"layer_types", "=[\"a\"]"}};
  const HfConfig more = c.config(keys);
  EXPECT_EQ(more.get<int>("secret"), 3);
  EXPECT_EQ(more.act().op, UnaryOp::gelu);
  EXPECT_EQ(more.layer_type(0), "a");
}

TEST(Checkpoint, GgufRopeScaling) {
  const auto rope = [](auto add, std::uint64_t values) {
    const TemporaryFolder folder;
    GgufBytes out = model_file(values);
    add(out);
    return Checkpoint::open(folder.write("m.gguf", with_tensors(out))).config().rope();
  };
  EXPECT_EQ(rope([](GgufBytes& g) { g.string_value("arch.rope.scaling.type", "none"); }, 1)->scaling.kind,
            RopeScalingKind::none);
  const auto linear = rope(
      [](GgufBytes& g) {
        g.string_value("arch.rope.scaling.type", "linear").f32_value("arch.rope.scaling.factor", 8);
      },
      2);
  EXPECT_EQ(linear->scaling, (RopeScaling{.kind = RopeScalingKind::linear, .factor = 8}));
  const auto yarn = rope(
      [](GgufBytes& g) {
        g.string_value("arch.rope.scaling.type", "yarn")
            .f32_value("arch.rope.scaling.factor", 4)
            .u32_value("arch.rope.scaling.original_context_length", 32);
      },
      3);
  EXPECT_EQ(yarn->scaling,
            (RopeScaling{.kind = RopeScalingKind::yarn, .factor = 4, .original_max_positions = 32}));
  EXPECT_ERROR(rope([](GgufBytes& g) { g.string_value("arch.rope.scaling.type", "magic"); }, 1),
               "unknown rope scaling magic");

  // Scaling worked out per frequency, as converters write it for the llama3 kind.
  const TemporaryFolder folder;
  GgufBytes out;
  out.header(2, 5)
      .string_value("general.architecture", "arch")
      .u32_value("arch.embedding_length", 8)
      .u32_value("arch.attention.head_count", 2);
  out.u32_value("arch.context_length", 64).f32_value("arch.rope.freq_base", 1e4f);
  out.tensor("token_embd.weight", {8, 1}, 0, 0)
      .tensor("rope_freqs.weight", {2}, 0, 32)
      .align()
      .floats(Values(8, 1))
      .floats({1, 8});
  const auto fixed = Checkpoint::open(folder.write("m.gguf", out.bytes())).config().rope();
  EXPECT_EQ(fixed->scaling.kind, RopeScalingKind::longrope);
  EXPECT_EQ(fixed->scaling.short_factor, (Values{1, 8}));
  EXPECT_EQ(fixed->scaling.long_factor, (Values{1, 8}));
  EXPECT_EQ(fixed->scaling.attention_factor, 1.0f);
}

TEST(Checkpoint, GgufTokensAndSampling) {
  const TemporaryFolder folder;
  GgufBytes out;
  out.header(0, 7).string_value("general.architecture", "arch").string_value("tokenizer.ggml.model", "gpt2");
  out.strings_value("tokenizer.ggml.tokens", {"<s>", "</s>", "<eot>"})
      .u32_value("tokenizer.ggml.bos_token_id", 0);
  out.u32_value("tokenizer.ggml.eos_token_id", 1)
      .u32_value("tokenizer.ggml.eot_token_id", 2)
      .f32_value("general.sampling.temp", 0.5f);
  const Checkpoint c = Checkpoint::open(folder.write("m.gguf", out.bytes()));
  EXPECT_TRUE(c.has_tokenizer());
  EXPECT_EQ(c.special_tokens().bos, "<s>");
  EXPECT_EQ(c.special_tokens().eos, "</s>");
  EXPECT_EQ(c.special_tokens().unk, std::nullopt);
  EXPECT_EQ(c.generation().eos_ids, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(c.generation().temperature, 0.5f);
  EXPECT_EQ(c.config().get<int>("vocab_size"), 3);
  const HfConfig metadata = HfConfig::parse(c.metadata_json());
  EXPECT_EQ(metadata.get<std::string>("tokenizer.ggml.model"), "gpt2");
}

// --- packed weights ---

class Packed : public ::testing::TestWithParam<const char*> {};

TEST_P(Packed, EqualsTheReference) {
  const std::filesystem::path folder = std::filesystem::path(data_folder) / GetParam();
  const Checkpoint c = Checkpoint::open(folder / "model.safetensors");
  const SafetensorsFile expected = SafetensorsFile::open(folder / "expected.safetensors");
  ASSERT_EQ(c.tensors().size(), expected.tensors().size()) << c.table();
  EXPECT_TRUE(c.quantised());
  for (const SafetensorsTensor& t : expected.tensors()) {
    const CheckpointTensor* tensor = c.find(t.name);
    ASSERT_NE(tensor, nullptr) << t.name << "\n" << c.table();
    EXPECT_EQ(tensor->shape, t.shape) << t.name;
    const WeightSourcePtr source = c.source(t.name);
    const Values values = expected.floats(t.name);
    EXPECT_EQ(read(source), values) << t.name << " " << tensor->scheme;
    Values rows(values.size());
    for (std::int64_t r = source->rows(); r-- > 0;) source->read(r, 1, rows.data() + r * source->cols());
    EXPECT_EQ(rows, values) << t.name;
    EXPECT_EQ(source->fingerprint(), c.source(t.name)->fingerprint());
    if (t.shape.size() < 2) continue;
    // Transposed twice is the tensor again.
    const WeightSourcePtr flipped = c.transposed_source(t.name);
    const std::int64_t out = t.shape[t.shape.size() - 2], in = t.shape.back();
    const Values turned = read(flipped);
    for (std::int64_t e = 0; e < source->rows() / out; ++e) {
      for (std::int64_t o = 0; o < out; ++o) {
        for (std::int64_t i = 0; i < in; ++i)
          ASSERT_EQ(turned[static_cast<std::size_t>((e * in + i) * out + o)],
                    values[static_cast<std::size_t>((e * out + o) * in + i)])
              << t.name;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Schemes, Packed,
                         ::testing::Values("fp8", "mxfp4", "gptq", "gptq3", "awq", "compressed"),
                         [](const auto& scheme) { return std::string(scheme.param); });

TEST(Checkpoint, PackedPartsThatDoNotBelongTogether) {
  const TemporaryFolder folder;
  const std::vector<std::byte> zeros(4096);
  const auto entry = [&](const char* name, std::vector<std::int64_t> shape, StorageType type) {
    std::int64_t n = block_size(type).bytes;
    for (std::int64_t extent : shape) n *= extent;
    return make_entry(name, std::move(shape), type, std::span(zeros).first(static_cast<std::size_t>(n)));
  };
  const auto open = [&](std::vector<SafetensorsEntry> entries) {
    write_safetensors(folder.path() / "model.safetensors", entries);
    return Checkpoint::open(folder.path() / "model.safetensors");
  };
  const StorageType i32 = StorageType::i32, f16 = StorageType::f16, u8 = StorageType::u8,
                    f8 = StorageType::f8_e4m3;
  EXPECT_ERROR(open({entry("a.qweight", {4, 8}, i32)}), "is missing beside a.qweight, a.qzeros");
  EXPECT_ERROR(
      open({entry("a.qweight", {4, 8}, i32), entry("a.qzeros", {1, 1}, i32), entry("a.scales", {1, 9}, f16)}),
      "do not belong together");
  EXPECT_ERROR(
      open({entry("a.qweight", {4, 8}, i32), entry("a.qzeros", {2, 1}, i32), entry("a.scales", {1, 8}, f16)}),
      "do not belong together");
  EXPECT_ERROR(open({entry("a.qweight", {4, 8}, i32), entry("a.qzeros", {1, 1}, i32),
                     entry("a.scales", {1, 8}, f16), entry("a.g_idx", {31}, i32)}),
               "do not belong together");
  EXPECT_ERROR(open({entry("a_blocks", {2, 1, 16}, u8), entry("a_scales", {2, 2}, u8)}),
               "do not belong together");
  EXPECT_ERROR(open({entry("a_blocks", {2, 1, 15}, u8), entry("a_scales", {2, 1}, u8)}),
               "do not belong together");
  EXPECT_ERROR(open({entry("a.weight", {4, 8}, f8), entry("a.weight_scale_inv", {3, 2}, StorageType::f32)}),
               "do not belong together");
  // A group number beyond the groups would read outside of the scales.
  std::vector<std::int32_t> order(32, 1);
  auto bad = std::vector{entry("a.qweight", {4, 8}, i32), entry("a.qzeros", {1, 1}, i32),
                         entry("a.scales", {1, 8}, f16),
                         make_entry("a.g_idx", {32}, i32, std::as_bytes(std::span(order)))};
  EXPECT_ERROR(open(bad), "do not belong together");
  folder.write("config.json", R"({"quantization_config": {"quant_method": "bitsandbytes"}})");
  EXPECT_ERROR(open({entry("a.weight", {16, 1}, u8)}), "weights packed as \"bitsandbytes\", a.weight");
  folder.write("config.json", "{}");
  EXPECT_EQ(open({entry("a.weight", {16, 1}, u8)}).tensors().size(), 1u);
  // An 8-bit float weight without scales is plain numbers.
  EXPECT_EQ(open({entry("a.weight", {4, 8}, f8)}).find("a.weight")->scheme, "");
}

}  // namespace
}  // namespace ttt
