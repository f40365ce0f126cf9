// Replicas on the parts of a mesh answer as one model does.
#include "ttt/runtime/data_parallel.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "paths.h"
#include "ttt/base/error.h"
#include "ttt/convert/replicas.h"
#include "ttt/testing/fixture.h"

namespace ttt {
namespace {

namespace fs = std::filesystem;

class DataParallelModel : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("replicas-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    testing::write_fixture(fs::path(test::source_dir()) / "tests/golden/fixtures/llama@8heads.json", folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::vector<GenerationRequest> requests(std::int64_t vocab) {
    std::vector<GenerationRequest> all(7);
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (std::size_t k = 0; k < 3 + 5 * i; ++k)
        all[i].prompt_ids.push_back(
            static_cast<std::int32_t>((7 * i + 3 * k) % static_cast<std::size_t>(vocab)));
      all[i].sampling.max_new_tokens = 6;
      all[i].sampling.ignore_eos = true;
    }
    return all;
  }

  fs::path folder_;
};

TEST_F(DataParallelModel, AnswersAsOneModel) {
  const GeneratorOptions options{.max_batch = 4, .max_step_tokens = 32, .max_context = 64};
  const LoadedModel one = load(folder_, {.precision = "f32", .threads = 1});
  Generator generator(*one.model, nullptr, options);
  const std::vector<GenerationRequest> asked = requests(one.model->spec().vocab);
  const std::vector<GenerationResult> expected = generator.generate(asked);

  // Four devices as two replicas of two, which divide the network between them.
  const std::vector<LoadedModel> replicas =
      load_replicas(folder_, {.mesh = {1, 4}, .precision = "f32", .threads = 2}, {1, 2});
  ASSERT_EQ(replicas.size(), 2u);
  std::vector<const CausalLM*> models;
  for (const LoadedModel& replica : replicas) {
    EXPECT_EQ(replica.model->target().mesh, (Mesh{1, 2}));
    models.push_back(replica.model.get());
  }
  DataParallel parallel(models, nullptr, options);
  const std::vector<GenerationResult> results = parallel.generate(asked);
  ASSERT_EQ(results.size(), expected.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].ids, expected[i].ids) << i;
    EXPECT_EQ(results[i].prompt_tokens, asked[i].prompt_ids.size());
  }
  // Both had a share of the work.
  for (std::size_t r = 0; r < parallel.size(); ++r) {
    EXPECT_GE(parallel.replica(r).stats().submitted, 2u);
    EXPECT_TRUE(parallel.replica(r).idle());
  }
}

TEST_F(DataParallelModel, ErrorsOfAReplicaArrive) {
  const std::vector<LoadedModel> replicas = load_replicas(folder_, {.mesh = {1, 2}, .threads = 2}, {1, 1});
  const CausalLM* const models[] = {replicas[0].model.get(), replicas[1].model.get()};
  DataParallel parallel(models);
  std::vector<GenerationRequest> asked = requests(replicas[0].model->spec().vocab);
  asked[3].prompt_ids = {-1};
  EXPECT_THROW(parallel.generate(asked), Error);
  EXPECT_THROW(DataParallel({}), Error);
}

TEST_F(DataParallelModel, AMeshIsCutEvenly) {
  EXPECT_THROW(load_replicas(folder_, {.mesh = {1, 4}}, {1, 3}), Error);
  EXPECT_THROW(load_replicas(folder_, {.mesh = {2, 2}}, {4, 1}), Error);
  EXPECT_THROW(load_replicas(folder_, {}, {1, 1}), Error);  // no mesh
}

}  // namespace
}  // namespace ttt
