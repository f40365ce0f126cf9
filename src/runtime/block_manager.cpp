#include "runtime/block_manager.h"

#include <algorithm>

namespace ttt::inline v2::runtime {

BlockManager::BlockManager(std::int64_t blocks, int block_size, bool reuse, std::uint64_t hash_mask)
    : blocks_(static_cast<std::size_t>(blocks)),
      hash_mask_(hash_mask),
      block_size_(block_size),
      reuse_(reuse) {
  for (std::int64_t i = 0; i < blocks; ++i) link(static_cast<std::int32_t>(i), false);
}

void BlockManager::link(std::int32_t block, bool front) {
  Block& b = at(block);
  if (front) {
    b.previous = -1, b.next = first_;
    (first_ < 0 ? last_ : at(first_).previous) = block;
    first_ = block;
  } else {
    b.next = -1, b.previous = last_;
    (last_ < 0 ? first_ : at(last_).next) = block;
    last_ = block;
  }
  ++available_;
  cached_ += b.content != 0;
}

void BlockManager::unlink(std::int32_t block) {
  Block& b = at(block);
  (b.previous < 0 ? first_ : at(b.previous).next) = b.next;
  (b.next < 0 ? last_ : at(b.next).previous) = b.previous;
  --available_;
  cached_ -= b.content != 0;
}

void BlockManager::forget(std::int32_t block) {
  Block& b = at(block);
  if (b.content == 0) return;
  const auto [begin, end] = by_hash_.equal_range(b.hash);
  by_hash_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == block; }));
  b.content = 0;
}

std::uint64_t BlockManager::hash(Content before, std::span<const std::int32_t> tokens) const {
  std::uint64_t h = before * 0x9E3779B97F4A7C15u;
  for (const std::int32_t token : tokens) {
    h = (h ^ static_cast<std::uint32_t>(token)) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
  }
  return h & hash_mask_;
}

const BlockManager::Block* BlockManager::lookup(Content before, std::span<const std::int32_t> tokens,
                                                std::int32_t* index) const {
  const auto [begin, end] = by_hash_.equal_range(hash(before, tokens));
  for (auto entry = begin; entry != end; ++entry) {
    const Block& b = at(entry->second);
    if (b.before != before || !std::equal(tokens.begin(), tokens.end(), b.tokens.begin(), b.tokens.end()))
      continue;
    if (index) *index = entry->second;
    return &b;
  }
  return nullptr;
}

BlockManager::Match BlockManager::find(std::span<const std::int32_t> tokens) const {
  Match match;
  const auto size = static_cast<std::size_t>(block_size_);
  Content before = 0;
  for (std::size_t begin = 0; begin + size <= tokens.size(); begin += size) {
    std::int32_t index = -1;
    const Block* block = lookup(before, tokens.subspan(begin, size), &index);
    if (!block) break;
    before = block->content;
    match.blocks.push_back(index);
    match.contents.push_back(before);
  }
  return match;
}

void BlockManager::acquire(std::int32_t block) {
  if (at(block).holders++ == 0) unlink(block);
}

std::optional<std::int32_t> BlockManager::allocate() {
  if (first_ < 0) return std::nullopt;
  const std::int32_t block = first_;
  unlink(block);
  forget(block);
  at(block).holders = 1;
  return block;
}

void BlockManager::release(std::span<const std::int32_t> blocks) {
  // A chain is of use from its beginning only: its end goes first.
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block)
    if (--at(*block).holders == 0) link(*block, at(*block).content == 0);
}

BlockManager::Content BlockManager::publish(std::int32_t block, Content before,
                                            std::span<const std::int32_t> tokens) {
  if (!reuse_) return 0;
  if (const Block* same = lookup(before, tokens, nullptr)) return same->content;
  Block& b = at(block);
  b.tokens.assign(tokens.begin(), tokens.end());
  b.before = before;
  b.content = next_content_++;
  b.hash = hash(before, tokens);
  by_hash_.emplace(b.hash, block);
  return b.content;
}

}  // namespace ttt::inline v2::runtime
