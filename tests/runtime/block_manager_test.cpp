#include "runtime/block_manager.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace ttt::runtime {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(BlockManager, TakesTheLongestUnusedFirst) {
  BlockManager blocks(3, 2, true);
  const Ids tokens = {1, 2, 3, 4, 5, 6};
  std::vector<std::int32_t> chain;
  BlockManager::Content before = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    chain.push_back(*blocks.allocate());
    before = blocks.publish(chain.back(), before, std::span(tokens).subspan(2 * i, 2));
  }
  EXPECT_FALSE(blocks.allocate());
  blocks.release(chain);
  EXPECT_EQ(blocks.available(), 3);
  EXPECT_EQ(blocks.cached(), 3);
  EXPECT_EQ(blocks.find(tokens).blocks, chain);
  EXPECT_EQ(*blocks.allocate(), chain[2]) << "the end of a chain goes first";
  EXPECT_EQ(blocks.find(tokens).blocks.size(), 2u);
  EXPECT_EQ(blocks.find(Ids{1, 2, 3}).blocks.size(), 1u) << "full blocks only";
  EXPECT_TRUE(blocks.find(Ids{3, 4}).blocks.empty()) << "the same tokens after another prefix";
}

// Against a plain record of what each block holds; with a hash of 0 to 3 bits nearly all blocks collide.
TEST(BlockManager, NeverMistakesAPrefix) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 rng(seed);
    const int size = 1 + static_cast<int>(rng() % 4);
    BlockManager blocks(12, size, true, (std::uint64_t{1} << seed % 4) - 1);
    std::map<std::int32_t, Ids> held_tokens;  // block -> all tokens up to its end
    struct Chain {
      Ids tokens;
      std::vector<std::int32_t> blocks;
    };
    std::vector<Chain> chains;
    for (int op = 0; op < 300; ++op) {
      if (rng() % 2 == 0 && !chains.empty()) {
        const auto i = rng() % chains.size();
        blocks.release(chains[i].blocks);
        chains.erase(chains.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        Chain chain;
        const std::size_t count = static_cast<std::size_t>(size) * (1 + rng() % 4);
        while (chain.tokens.size() < count) chain.tokens.push_back(static_cast<std::int32_t>(rng() % 2));
        const auto match = blocks.find(chain.tokens);
        BlockManager::Content before = 0;
        for (std::size_t b = 0; b < match.blocks.size(); ++b) {
          const Ids prefix(
              chain.tokens.begin(),
              chain.tokens.begin() + static_cast<std::ptrdiff_t>((b + 1) * static_cast<std::size_t>(size)));
          ASSERT_EQ(held_tokens.at(match.blocks[b]), prefix);
          blocks.acquire(match.blocks[b]);
          chain.blocks.push_back(match.blocks[b]);
          before = match.contents[b];
        }
        while (chain.blocks.size() * static_cast<std::size_t>(size) < chain.tokens.size()) {
          const auto block = blocks.allocate();
          if (!block) break;
          for (const Chain& other : chains)
            ASSERT_EQ(std::count(other.blocks.begin(), other.blocks.end(), *block), 0)
                << "a block that is held";
          const std::size_t begin = chain.blocks.size() * static_cast<std::size_t>(size);
          held_tokens[*block].assign(chain.tokens.begin(),
                                     chain.tokens.begin() + static_cast<std::ptrdiff_t>(begin) + size);
          before = blocks.publish(*block, before,
                                  std::span(chain.tokens).subspan(begin, static_cast<std::size_t>(size)));
          chain.blocks.push_back(*block);
        }
        chains.push_back(std::move(chain));
      }
      std::map<std::int32_t, int> held;
      for (const Chain& chain : chains)
        for (const auto b : chain.blocks) ++held[b];
      ASSERT_EQ(blocks.available(), 12 - static_cast<std::int64_t>(held.size()));
      for (std::int32_t b = 0; b < 12; ++b) ASSERT_EQ(blocks.held(b), held.contains(b));
    }
  }
}

TEST(BlockManager, KeepsNothingWithoutReuse) {
  BlockManager blocks(2, 1, false);
  const auto block = *blocks.allocate();
  EXPECT_EQ(blocks.publish(block, 0, Ids{7}), 0u);
  blocks.release(Ids{block});
  EXPECT_TRUE(blocks.find(Ids{7}).blocks.empty());
  EXPECT_EQ(blocks.cached(), 0);
}

}  // namespace
}  // namespace ttt::runtime
