// Who owns which KV block. Blocks are counted, full blocks are known by their contents, and those that nobody
// holds keep them until they are needed for something else, the longest unused first.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace ttt::inline v2::runtime {

class BlockManager {
 public:
  // A full block's contents: its tokens after everything before them. Equal numbers, equal contents; 0 is the
  // empty prefix.
  using Content = std::uint64_t;

  struct Match {
    std::vector<std::int32_t> blocks;
    std::vector<Content> contents;  // one per block
  };

  // `hash_mask`: bits of the hash in use; tests take bits away to make collisions common.
  BlockManager(std::int64_t blocks, int block_size, bool reuse, std::uint64_t hash_mask = ~std::uint64_t{0});

  // The longest run of full blocks with the first `tokens`, compared token by token. Takes no reference.
  Match find(std::span<const std::int32_t> tokens) const;
  void acquire(std::int32_t block);  // one more holder
  // A block of undefined contents with one holder; nothing when all are held.
  std::optional<std::int32_t> allocate();
  // One holder less for each; of blocks that are free then, the last of the span is taken first.
  void release(std::span<const std::int32_t> blocks);
  // `block` now holds `tokens` (block_size of them) after the prefix `before`. Returns the contents' number,
  // which is that of an earlier block when one has the same.
  Content publish(std::int32_t block, Content before, std::span<const std::int32_t> tokens);

  bool held(std::int32_t block) const { return at(block).holders > 0; }
  int block_size() const { return block_size_; }
  std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
  std::int64_t available() const { return available_; }  // held by nobody
  std::int64_t cached() const { return cached_; }        // of these, with known contents

 private:
  struct Block {
    std::int32_t holders = 0;
    std::int32_t previous = -1, next = -1;  // among those that nobody holds
    Content content = 0, before = 0;        // content 0: unknown
    std::uint64_t hash = 0;
    std::vector<std::int32_t> tokens;
  };
  Block& at(std::int32_t block) { return blocks_[static_cast<std::size_t>(block)]; }
  const Block& at(std::int32_t block) const { return blocks_[static_cast<std::size_t>(block)]; }
  std::uint64_t hash(Content before, std::span<const std::int32_t> tokens) const;
  const Block* lookup(Content before, std::span<const std::int32_t> tokens, std::int32_t* index) const;
  void link(std::int32_t block, bool front);
  void unlink(std::int32_t block);
  void forget(std::int32_t block);

  std::vector<Block> blocks_;
  std::unordered_multimap<std::uint64_t, std::int32_t> by_hash_;
  std::int32_t first_ = -1, last_ = -1;  // first_ is taken next
  std::int64_t available_ = 0, cached_ = 0;
  Content next_content_ = 1;
  std::uint64_t hash_mask_;
  int block_size_;
  bool reuse_;
};

}  // namespace ttt::inline v2::runtime
