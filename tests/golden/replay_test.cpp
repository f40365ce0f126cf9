// Decode steps of every network that replay a recorded one, against the same steps as their modules run them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "paths.h"
#include "ttt/convert/load.h"
#include "ttt/perf/zone.h"
#include "ttt/testing/fixture.h"

namespace {

namespace fs = std::filesystem;

constexpr std::int32_t pages = 3, block_size = 8, users = 3;

// Some users' next tokens, `count` of each; whose page k is page k * users + user.
std::vector<float> step(const ttt::CausalLM& lm, ttt::State& state, std::vector<std::int32_t>& context,
                        const std::vector<std::int32_t>& who, std::int32_t count, bool plain) {
  std::vector<std::int32_t> tokens, begin{0}, contexts, tables, wanted;
  for (const std::int32_t user : who) {
    std::int32_t& at = context[static_cast<std::size_t>(user)];
    contexts.push_back(at);
    for (std::int32_t k = 0; k < count; ++k, ++at) {
      wanted.push_back(static_cast<std::int32_t>(tokens.size()));
      tokens.push_back((at * 7 + user * 11 + 3) % std::min(lm.spec().vocab, 60));
    }
    begin.push_back(static_cast<std::int32_t>(tokens.size()));
    for (std::int32_t page = 0; page < pages; ++page) tables.push_back(page * users + user);
  }
  const ttt::Batch batch{.tokens = tokens,
                         .row_begin = begin,
                         .context = contexts,
                         .block_tables = tables,
                         .table_width = pages,
                         .slots = who,
                         .logit_rows = wanted};
  // Whoever listens to zones sees modules run.
  std::optional<ttt::perf::ZoneScope> somebody;
  if (plain) somebody.emplace([](const ttt::perf::ZoneRecord&) {});
  return lm.step(batch, state).logits;
}

TEST(GoldenReplay, EveryNetworksStepsAreThoseThatRun) {
  const fs::path folder = fs::path(testing::TempDir()) / ("replay-" + std::to_string(::getpid()));
  std::size_t networks = 0;
  for (const auto& fixture :
       fs::directory_iterator(fs::path(ttt::test::source_dir()) / "tests/golden/fixtures")) {
    if (fixture.path().extension() != ".json") continue;
    SCOPED_TRACE(fixture.path().stem());
    fs::remove_all(folder);
    ttt::testing::write_fixture(fixture, folder);
    const ttt::LoadedModel loaded =
        ttt::load(folder, {.precision = "bf16", .threads = 2, .cache = fs::path()});
    const ttt::CausalLM& lm = *loaded.model;
    const ttt::KvGeometry geometry{.blocks = pages * users, .block_size = block_size, .slots = users};
    const auto replayed = lm.allocate(geometry), plain = lm.allocate(geometry);
    std::vector<std::int32_t> contexts(users), plain_contexts(users);
    const auto both = [&](const std::vector<std::int32_t>& who, std::int32_t count) {
      EXPECT_EQ(step(lm, *replayed, contexts, who, count, false),
                step(lm, *plain, plain_contexts, who, count, true))
          << "at " << contexts[static_cast<std::size_t>(who[0])];
    };
    both({0}, 5), both({1}, 3), both({2}, 6);
    for (const std::vector<std::int32_t>& who : std::vector<std::vector<std::int32_t>>{
             {0, 1, 2}, {0, 1, 2}, {2, 0, 1}, {1}, {0}, {2}, {1}, {1, 2, 0}, {0, 1, 2}, {0}, {2}})
      both(who, 1);
    ++networks;
  }
  fs::remove_all(folder);
  EXPECT_GT(networks, 100u);
}

}  // namespace
