#include "text/model.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "text/unicode.h"

namespace ttt::inline v2::text {

// --- cache
// -----------------------------------------------------------------------------------------------------

const std::int32_t* WordCache::find(std::string_view word, std::uint64_t hash, std::size_t& count) const {
  if (entries_.empty()) return nullptr;
  for (std::size_t i = hash % slots;; i = (i + 1) % slots) {
    const Entry& entry = entries_[i];
    if (entry.word_size == 0) return nullptr;
    if (entry.hash == hash && std::string_view(words_).substr(entry.word, entry.word_size) == word) {
      count = entry.count;
      return ids_.data() + entry.ids;
    }
  }
}

void WordCache::insert(std::string_view word, std::uint64_t hash, const std::int32_t* ids,
                       std::size_t count) {
  if (word.empty() || word.size() > longest_word || count > 255) return;
  if (entries_.empty() || size_ >= most_entries) {
    entries_.assign(slots, Entry{});
    words_.clear();
    ids_.clear();
    size_ = 0;
  }
  std::size_t i = hash % slots;
  while (entries_[i].word_size != 0) i = (i + 1) % slots;
  entries_[i] = {hash, static_cast<std::uint32_t>(words_.size()), static_cast<std::uint32_t>(ids_.size()),
                 static_cast<std::uint16_t>(word.size()), static_cast<std::uint16_t>(count)};
  words_ += word;
  ids_.insert(ids_.end(), ids, ids + count);
  ++size_;
}

bool Model::find_byte_tokens() {
  byte_tokens_.fill(-1);
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  for (std::int32_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') continue;
    const int high = digit(token[3]), low = digit(token[4]);
    if (high >= 0 && low >= 0) byte_tokens_[static_cast<std::size_t>(high * 16 + low)] = id;
  }
  return std::none_of(byte_tokens_.begin(), byte_tokens_.end(), [](std::int32_t id) { return id < 0; });
}

namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581

// Takes the first word off `text`: space marks and what follows up to the next one.
std::string_view take_word(std::string_view& text) {
  std::size_t i = 0;
  while (text.substr(i).starts_with(space_mark)) i += space_mark.size();
  const std::size_t end = std::min(text.find(space_mark, i), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

}  // namespace

bool Model::splits_at_space_mark(const std::vector<std::uint32_t>& ranks) const {
  for (std::int32_t id = 0; id < tokens.size(); ++id) {
    if (!tokens.contains(id) || (!ranks.empty() && ranks[static_cast<std::size_t>(id)] == no_rank)) continue;
    std::string_view token = tokens[id];
    if (token.size() <= space_mark.size()) continue;
    take_word(token);
    if (!token.empty()) return false;
  }
  return true;
}

// --- merging
// ---------------------------------------------------------------------------------------------------

namespace {

bool worse(const Scratch::Candidate& a, const Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

// Joins symbols, the merge of the lowest rank first and among equals the leftmost, until none is left.
// `find(left, right, rank, merged)` says whether two neighbours merge. Afterwards the symbols are contiguous
// again.
template <class Find>
void merge_symbols(Scratch& scratch, const Find& find) {
  auto& symbols = scratch.symbols;
  const std::size_t n = symbols.size();
  if (n < 2) return;
  const auto look_up = [&](Scratch::Symbol& left, const Scratch::Symbol& right) {
    if (!find(left, right, left.rank, left.merged)) left.rank = no_rank;
  };
  for (std::size_t i = 0; i + 1 < n; ++i) look_up(symbols[i], symbols[i + 1]);
  symbols[n - 1].rank = no_rank;

  constexpr std::size_t short_word = 40;  // scanning for the best beats a heap up to here
  if (n <= short_word) {
    std::size_t size = n;
    while (size > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < size; ++i) {
        if (symbols[i].rank < symbols[best].rank) best = i;
      }
      if (symbols[best].rank == no_rank) break;
      symbols[best].size += symbols[best + 1].size;
      symbols[best].id = symbols[best].merged;
      std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
                symbols.begin() + static_cast<std::ptrdiff_t>(size),
                symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
      --size;
      if (best + 1 < size) {
        look_up(symbols[best], symbols[best + 1]);
      } else {
        symbols[best].rank = no_rank;
      }
      if (best > 0) look_up(symbols[best - 1], symbols[best]);
    }
    symbols.resize(size);
    return;
  }

  auto& heap = scratch.heap;
  heap.clear();
  for (std::size_t i = 0; i < n; ++i) {
    symbols[i].previous = static_cast<std::int32_t>(i) - 1;
    symbols[i].next = i + 1 < n ? static_cast<std::int32_t>(i) + 1 : -1;
    if (symbols[i].rank != no_rank) heap.push_back({symbols[i].rank, static_cast<std::int32_t>(i)});
  }
  std::make_heap(heap.begin(), heap.end(), worse);
  const auto push = [&](std::int32_t position) {
    const std::uint32_t rank = symbols[static_cast<std::size_t>(position)].rank;
    if (rank == no_rank) return;
    heap.push_back({rank, position});
    std::push_heap(heap.begin(), heap.end(), worse);
  };
  while (!heap.empty()) {
    const Scratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), worse);
    heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<std::size_t>(top.position)];
    // A symbol that was merged away has rank no_rank; one that has grown has another rank or was pushed
    // again.
    if (left.rank != top.rank || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    left.size += right.size;
    left.id = left.merged;
    left.next = right.next;
    right.rank = no_rank;
    right.size = 0;
    if (left.next >= 0) {
      Scratch::Symbol& next = symbols[static_cast<std::size_t>(left.next)];
      next.previous = top.position;
      look_up(left, next);
      push(top.position);
    } else {
      left.rank = no_rank;
    }
    if (left.previous >= 0) {
      look_up(symbols[static_cast<std::size_t>(left.previous)], left);
      push(left.previous);
    }
  }
  std::size_t kept = 0;
  for (std::int32_t i = 0; i >= 0; i = symbols[static_cast<std::size_t>(i)].next) {
    if (kept != static_cast<std::size_t>(i)) {
      const std::int32_t next = symbols[static_cast<std::size_t>(i)].next;
      symbols[kept] = symbols[static_cast<std::size_t>(i)];
      symbols[static_cast<std::size_t>(i)].next = next;
    }
    ++kept;
  }
  symbols.resize(kept);
}

}  // namespace

// --- Bpe
// -------------------------------------------------------------------------------------------------------

void Bpe::reserve_merges(std::size_t count) {
  merges_.assign(std::bit_ceil(std::max<std::size_t>(count * 2, 16)), Merge{});
  merge_mask_ = merges_.size() - 1;
}

namespace {
std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}
std::size_t pair_hash(std::uint64_t pair) { return static_cast<std::size_t>(mix(pair, 0x9E3779B97F4A7C15u)); }
}  // namespace

std::int32_t JoinedTokens::find(std::int32_t left, std::int32_t right) {
  joined_.assign(tokens_[left]);
  joined_ += tokens_[right];
  for (std::int32_t guess = std::max(last_, 0); guess <= last_ + 1; ++guess) {
    const auto index = static_cast<std::size_t>(guess);
    if (!tokens_.contains(guess) || (!visible_.empty() && !visible_[index])) continue;
    if (tokens_[guess] == joined_) return last_ = guess;
  }
  const std::int32_t id = tokens_.find(joined_);
  if (id >= 0) last_ = id;
  return id;
}

void Bpe::add_merge(std::int32_t left, std::int32_t right, std::int32_t merged) {
  const std::uint32_t rank = merge_count_++;
  const std::uint64_t pair = pair_key(left, right);
  std::size_t i = pair_hash(pair) & merge_mask_;
  while (merges_[i].merged >= 0 && merges_[i].pair != pair) i = (i + 1) & merge_mask_;
  merges_[i] = {pair, rank, merged};  // of a merge that is listed twice the reference keeps the last rank
}

const Bpe::Merge* Bpe::find_merge(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_key(left, right);
  for (std::size_t i = pair_hash(pair) & merge_mask_;; i = (i + 1) & merge_mask_) {
    const Merge& merge = merges_[i];
    if (merge.merged < 0) return nullptr;
    if (merge.pair == pair) return &merge;
  }
}

void Bpe::finish() {
  if (merges_.empty()) reserve_merges(0);
  const bool all_known = options.byte_fallback && find_byte_tokens();
  splits_at_space_ = !options.bytes && !options.ignore_merges && options.continuing_prefix.empty() &&
                     options.end_suffix.empty() && (all_known || !unknown || !options.fuse_unknown) &&
                     splits_at_space_mark({});
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    initial_[byte] = options.bytes || byte < 0x80 ? tokens.find({&c, 1}) : -1;
  }
}

void Bpe::start_symbols(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](std::int32_t id, std::size_t begin, std::size_t size) {
    Scratch::Symbol& symbol = symbols.emplace_back();
    symbol.begin = begin;
    symbol.size = size;
    symbol.id = id;
  };
  if (options.bytes) {
    symbols.reserve(word.size());
    for (std::size_t i = 0; i < word.size(); ++i) {
      const std::int32_t id = initial_[static_cast<unsigned char>(word[i])];
      if (id >= 0) add(id, i, 1);
    }
    return;
  }
  const bool affixes = !options.continuing_prefix.empty() || !options.end_suffix.empty();
  std::string affixed;
  bool pending_unknown = false;
  for (std::size_t i = 0; i < word.size();) {
    const std::size_t size = std::min(char_length(word[i]), word.size() - i);
    const std::string_view character = word.substr(i, size);
    std::string_view text = character;
    if (affixes) {
      affixed.clear();
      if (i > 0) affixed += options.continuing_prefix;
      affixed += character;
      if (i + size == word.size()) affixed += options.end_suffix;
      text = affixed;
    }
    const std::int32_t id =
        text.size() == 1 ? initial_[static_cast<unsigned char>(text[0])] : tokens.find(text);
    if (id >= 0) {
      if (pending_unknown) add(*unknown, i, 0);
      pending_unknown = false;
      add(id, i, size);
    } else {
      bool fallback = options.byte_fallback;
      for (std::size_t k = 0; fallback && k < text.size(); ++k)
        fallback = byte_tokens_[static_cast<unsigned char>(text[k])] >= 0;
      if (fallback) {
        for (const char byte : text) add(byte_tokens_[static_cast<unsigned char>(byte)], i, 1);
      } else if (unknown) {
        if (pending_unknown && !options.fuse_unknown) add(*unknown, i, 0);
        pending_unknown = true;
      }
    }
    i += size;
  }
  if (pending_unknown) add(*unknown, word.size(), 0);
}

void Bpe::encode_uncached(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  start_symbols(word, scratch);
  merge_symbols(scratch, [this](const Scratch::Symbol& left, const Scratch::Symbol& right,
                                std::uint32_t& rank, std::int32_t& merged) {
    const Merge* merge = find_merge(left.id, right.id);
    if (!merge) return false;
    rank = merge->rank;
    merged = merge->merged;
    return true;
  });
  for (const Scratch::Symbol& symbol : scratch.symbols) ids.push_back(symbol.id);
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (!splits_at_space_) {
    encode_word(word, scratch, ids);
    return;
  }
  while (!word.empty()) encode_word(take_word(word), scratch, ids);
}

void Bpe::encode_word(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (options.ignore_merges) {
    const std::int32_t id = tokens.find(word);
    if (id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  if (word.size() > WordCache::longest_word) {
    encode_uncached(word, scratch, ids);
    return;
  }
  const std::uint64_t hash = hash_bytes(word);
  std::size_t count = 0;
  if (const std::int32_t* known = scratch.cache.find(word, hash, count)) {
    ids.insert(ids.end(), known, known + count);
    return;
  }
  const std::size_t first = ids.size();
  encode_uncached(word, scratch, ids);
  scratch.cache.insert(word, hash, ids.data() + first, ids.size() - first);
}

// --- RankedBpe
// -------------------------------------------------------------------------------------------------

void RankedBpe::finish() {
  has_byte_tokens_ = byte_fallback && find_byte_tokens();
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    initial_[byte] = bytes || byte < 0x80 ? tokens.find({&c, 1}) : -1;
  }
  splits_at_space_ = !bytes && splits_at_space_mark(ranks);
}

void RankedBpe::encode_uncached(std::string_view word, Scratch& scratch,
                                std::vector<std::int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (std::size_t i = 0; i < word.size();) {
    const std::size_t size = bytes ? 1 : std::min(char_length(word[i]), word.size() - i);
    Scratch::Symbol& symbol = symbols.emplace_back();
    symbol.begin = i;
    symbol.size = size;
    symbol.id = size == 1 ? initial_[static_cast<unsigned char>(word[i])] : tokens.find(word.substr(i, size));
    i += size;
  }
  // Where a token was joined from; only needed for tokens that are taken apart again.
  std::vector<std::pair<std::int32_t, std::size_t>> joints;
  merge_symbols(scratch, [&](const Scratch::Symbol& left, const Scratch::Symbol& right, std::uint32_t& rank,
                             std::int32_t& merged) {
    const std::size_t size = left.size + right.size;
    if (size > tokens.longest()) return false;
    const std::int32_t id = tokens.find(word.substr(left.begin, size));
    if (id < 0 || ranks[static_cast<std::size_t>(id)] == no_rank) return false;
    rank = ranks[static_cast<std::size_t>(id)];
    merged = id;
    if (!unused.empty() && unused[static_cast<std::size_t>(id)]) joints.emplace_back(id, left.size);
    return true;
  });
  std::vector<std::string_view> stack;
  bool after_unknown = false;
  for (const Scratch::Symbol& symbol : symbols) {
    stack.push_back(word.substr(symbol.begin, symbol.size));
    while (!stack.empty()) {
      const std::string_view piece = stack.back();
      stack.pop_back();
      const std::int32_t id = piece.size() == symbol.size ? symbol.id : tokens.find(piece);
      if (id >= 0 && !unused.empty() && unused[static_cast<std::size_t>(id)]) {
        const auto joint =
            std::find_if(joints.rbegin(), joints.rend(), [&](const auto& j) { return j.first == id; });
        if (joint != joints.rend() && joint->second < piece.size()) {
          stack.push_back(piece.substr(joint->second));
          stack.push_back(piece.substr(0, joint->second));
          continue;
        }
      }
      if (id >= 0) {
        ids.push_back(id);
        after_unknown = unknown && id == *unknown;
      } else if (has_byte_tokens_) {
        for (const char byte : piece) ids.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
        after_unknown = false;
      } else if (unknown) {
        if (!after_unknown || !fuse_unknown) ids.push_back(*unknown);
        after_unknown = true;
      }
    }
  }
}

void RankedBpe::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  // Words end where a space mark follows another character, if no token reaches across. Unknown tokens fuse
  // over words, so their runs need the words' borders: there all is one word.
  const bool splits = splits_at_space_ && (has_byte_tokens_ || !fuse_unknown);
  while (!word.empty()) {
    const std::string_view part = splits ? take_word(word) : std::exchange(word, {});
    if (whole_word) {
      const std::int32_t id = tokens.find(part);
      if (id >= 0 && ranks[static_cast<std::size_t>(id)] != no_rank) {
        ids.push_back(id);
        continue;
      }
    }
    if (part.size() > WordCache::longest_word) {
      encode_uncached(part, scratch, ids);
      continue;
    }
    const std::uint64_t hash = hash_bytes(part);
    std::size_t count = 0;
    if (const std::int32_t* known = scratch.cache.find(part, hash, count)) {
      ids.insert(ids.end(), known, known + count);
      continue;
    }
    const std::size_t first = ids.size();
    encode_uncached(part, scratch, ids);
    scratch.cache.insert(part, hash, ids.data() + first, ids.size() - first);
  }
}

// --- Trie
// ------------------------------------------------------------------------------------------------------

Trie::Trie(std::vector<std::pair<std::string_view, std::int32_t>> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  nodes_.emplace_back();
  struct Range {
    std::uint32_t node;
    std::size_t begin, end, depth;
  };
  std::vector<Range> queue = {{0, 0, entries.size(), 0}};
  for (std::size_t q = 0; q < queue.size(); ++q) {
    const Range range = queue[q];
    std::size_t i = range.begin;
    while (i < range.end && entries[i].first.size() == range.depth)
      nodes_[range.node].value = entries[i++].second;
    nodes_[range.node].first_child = static_cast<std::uint32_t>(nodes_.size());
    std::uint16_t children = 0;
    while (i < range.end) {
      const char label = entries[i].first[range.depth];
      std::size_t end = i + 1;
      while (end < range.end && entries[end].first[range.depth] == label) ++end;
      const auto child = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
      nodes_.back().label = static_cast<unsigned char>(label);
      queue.push_back({child, i, end, range.depth + 1});
      ++children;
      i = end;
    }
    nodes_[range.node].children = children;
  }
  const Node& root = nodes_[0];
  for (std::uint32_t i = 0; i < root.children; ++i)
    root_[nodes_[root.first_child + i].label] = root.first_child + i;
}

std::size_t Trie::longest_prefix(std::string_view text, std::int32_t& value_out) const {
  Cursor cursor;
  std::size_t best = 0;
  for (std::size_t i = 0; i < text.size() && step(cursor, text[i]); ++i) {
    if (value(cursor) >= 0) {
      best = i + 1;
      value_out = value(cursor);
    }
  }
  return best;
}

// --- Unigram
// ---------------------------------------------------------------------------------------------------

void Unigram::finish() {
  std::vector<std::pair<std::string_view, std::int32_t>> entries;
  entries.reserve(static_cast<std::size_t>(tokens.size()));
  double lowest = std::numeric_limits<double>::infinity(), highest = -lowest;
  for (std::int32_t id = 0; id < tokens.size(); ++id) {
    const auto i = static_cast<std::size_t>(id);
    if (!tokens.contains(id)) continue;
    const bool preferred = !user_defined.empty() && user_defined[i];
    if (!(single_precision && ((!hidden.empty() && hidden[i]) || preferred))) {
      lowest = std::min(lowest, scores[i]);
      highest = std::max(highest, scores[i]);
    }
    if (tokens[id].empty() || (!hidden.empty() && hidden[i])) continue;
    entries.emplace_back(tokens[id], id);
  }
  constexpr double unknown_penalty = 10;  // as SentencePiece has it
  unknown_score_ = lowest - unknown_penalty;
  highest_score_ = highest;
  trie_ = Trie(std::move(entries));
  has_byte_tokens_ = byte_fallback && find_byte_tokens();
}

template <class Score>
void Unigram::best_path(std::string_view word, Scratch& scratch, std::vector<Score>& best) const {
  const std::size_t n = word.size();
  auto& token = scratch.tokens;
  auto& start = scratch.starts;
  best.assign(n + 1, 0);
  token.assign(n + 1, -1);
  start.assign(n + 1, -1);
  const auto offer = [&](std::size_t begin, std::size_t end, Score score, std::int32_t id) {
    const Score sum = best[begin] + score;
    if (start[end] >= 0 && sum <= best[end]) return;
    best[end] = sum;
    token[end] = id;
    start[end] = static_cast<std::int32_t>(begin);
  };
  for (std::size_t i = 0; i < n;) {
    const std::size_t size = std::min(char_length(word[i]), n - i);
    bool has_single = false;
    Trie::Cursor cursor;
    for (std::size_t k = i; k < n && trie_.step(cursor, word[k]); ++k) {
      const std::int32_t id = trie_.value(cursor);
      if (id < 0) continue;
      const auto index = static_cast<std::size_t>(id);
      const bool preferred = !user_defined.empty() && user_defined[index];
      const double score = preferred ? static_cast<double>(k + 1 - i) * highest_score_ - 0.1 : scores[index];
      offer(i, k + 1, static_cast<Score>(score), id);
      if (k + 1 - i == size) has_single = true;
    }
    if (!has_single) offer(i, i + size, static_cast<Score>(unknown_score_), -1);
    i += size;
  }
}

void Unigram::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (word.empty()) return;
  if (single_precision) {
    best_path(word, scratch, scratch.float_scores);
  } else {
    best_path(word, scratch, scratch.scores);
  }
  const std::size_t n = word.size();
  const auto& token = scratch.tokens;
  const auto& start = scratch.starts;
  auto& path = scratch.heap;  // begin and end of the pieces, last first
  path.clear();
  for (std::size_t end = n; end > 0; end = static_cast<std::size_t>(start[end]))
    path.push_back({static_cast<std::uint32_t>(start[end]), static_cast<std::int32_t>(end)});
  for (auto piece = path.rbegin(); piece != path.rend();) {
    const auto is_unknown = [&](const auto& p) {
      const std::int32_t id = token[static_cast<std::size_t>(p->position)];
      return id < 0 || (unknown && id == *unknown);
    };
    if (!is_unknown(piece)) {
      ids.push_back(token[static_cast<std::size_t>(piece->position)]);
      ++piece;
      continue;
    }
    // A run of unknown characters is one unknown token, unless its bytes have tokens.
    const auto first = piece;
    while (piece != path.rend() && is_unknown(piece) && (piece == first || fuse_unknown)) ++piece;
    const auto end = static_cast<std::size_t>(std::prev(piece)->position);
    const bool spelled = std::next(first) == piece && token[end] >= 0;  // the unknown token's own spelling
    if (has_byte_tokens_ && !spelled) {
      for (const char byte : word.substr(first->rank, end - first->rank))
        ids.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
    } else if (unknown) {
      ids.push_back(*unknown);
    }
  }
}

// --- WordPiece and WordLevel
// -----------------------------------------------------------------------------------

void WordPiece::finish() {
  std::vector<std::pair<std::string_view, std::int32_t>> initial, continuing;
  for (std::int32_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (token.empty()) continue;
    initial.emplace_back(token, id);
    if (token.starts_with(continuing_prefix) && token.size() > continuing_prefix.size())
      continuing.emplace_back(token.substr(continuing_prefix.size()), id);
  }
  initial_ = Trie(std::move(initial));
  continuing_ = Trie(std::move(continuing));
}

void WordPiece::encode(std::string_view word, Scratch&, std::vector<std::int32_t>& ids) const {
  std::size_t characters = 0;
  for (const char byte : word) characters += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  const std::size_t first = ids.size();
  bool known = characters <= longest_word;
  for (std::size_t i = 0; known && i < word.size();) {
    std::int32_t id = -1;
    const std::size_t size = (i == 0 ? initial_ : continuing_).longest_prefix(word.substr(i), id);
    if (size == 0) {
      known = false;
    } else {
      ids.push_back(id);
      i += size;
    }
  }
  if (!known) {
    ids.resize(first);
    if (unknown) ids.push_back(*unknown);
  }
}

void WordLevel::encode(std::string_view word, Scratch&, std::vector<std::int32_t>& ids) const {
  const std::int32_t id = tokens.find(word);
  if (id >= 0) {
    ids.push_back(id);
  } else if (unknown) {
    ids.push_back(*unknown);
  }
}

}  // namespace ttt::inline v2::text
