// The models: from a word to ids.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/token_table.h"

namespace ttt::inline v2::text {

// Words seen before and their ids. Bounded; forgets everything when full.
class WordCache {
 public:
  // The ids of `word`, or null. The pointer lives until the next insert.
  const std::int32_t* find(std::string_view word, std::uint64_t hash, std::size_t& count) const;
  void insert(std::string_view word, std::uint64_t hash, const std::int32_t* ids, std::size_t count);
  static constexpr std::size_t longest_word = 64;

 private:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint32_t word = 0, ids = 0;
    std::uint16_t word_size = 0, count = 0;  // word_size 0: free
  };
  static constexpr std::size_t slots = 1 << 15, most_entries = slots / 2;
  std::vector<Entry> entries_;
  std::string words_;
  std::vector<std::int32_t> ids_;
  std::size_t size_ = 0;
};

// Buffers of one encode(); kept between calls.
struct Scratch {
  struct Symbol {
    std::size_t begin = 0, size = 0;
    std::int32_t id = -1;
    std::int32_t previous = -1, next = -1;  // positions in `symbols`
    std::uint32_t rank = 0;                 // of the merge with the next symbol
    std::int32_t merged = -1;               // the token of that merge
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
  };
  WordCache cache;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<double> scores;
  std::vector<float> float_scores;
  std::vector<std::int32_t> tokens, starts;
};

constexpr std::uint32_t no_rank =
    std::numeric_limits<std::uint32_t>::max();  // rank of what is no merge's result

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;
  // Appends the ids of `word`.
  virtual void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const = 0;

  TokenTable tokens;  // as the model looks them up
  std::optional<std::int32_t> unknown;

 protected:
  // The "<0xNN>" tokens of byte fallback, indexed or not; false unless all 256 exist.
  bool find_byte_tokens();
  // Whether no token reaches from another character into a space mark (U+2581), so that words may be cut
  // before one. Tokens with rank `no_rank` do not count.
  bool splits_at_space_mark(const std::vector<std::uint32_t>& ranks) const;
  std::array<std::int32_t, 256> byte_tokens_{};
};

// Finds the token that two others make together. Merges are mostly listed in the order of their ids, so the
// id after the last one is tried first, which saves a look-up.
class JoinedTokens {
 public:
  // `visible`: which tokens may be found, as in TokenTable::index().
  JoinedTokens(const TokenTable& tokens, const std::vector<bool>& visible)
      : tokens_(tokens), visible_(visible) {}
  // -1 when there is none.
  std::int32_t find(std::int32_t left, std::int32_t right);

 private:
  const TokenTable& tokens_;
  const std::vector<bool>& visible_;
  std::string joined_;
  std::int32_t last_ = -1;
};

// Byte-pair encoding by a list of merges.
class Bpe final : public Model {
 public:
  struct Options {
    bool bytes = false;  // words are raw bytes, tokens too (a byte-level tokenizer without its alphabet)
    bool byte_fallback = false, fuse_unknown = false, ignore_merges = false;
    std::string continuing_prefix, end_suffix;
  };
  Options options;
  // Call once `tokens` is indexed. `left`, `right`: ids; `merged`: the id of both.
  void reserve_merges(std::size_t count);
  void add_merge(std::int32_t left, std::int32_t right, std::int32_t merged);  // best first
  void finish();
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const override;

 private:
  struct Merge {
    std::uint64_t pair = ~std::uint64_t{0};
    std::uint32_t rank = 0;
    std::int32_t merged = -1;
  };
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  void encode_word(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void encode_uncached(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void start_symbols(std::string_view word, Scratch& scratch) const;

  std::vector<Merge> merges_;
  std::size_t merge_mask_ = 0;
  std::uint32_t merge_count_ = 0;
  bool splits_at_space_ = false;
  std::array<std::int32_t, 256> initial_{};  // ids of single bytes
};

// Byte-pair encoding where any two neighbours merge whose joined text is a token, in the order of the tokens'
// ranks: SentencePiece (by score) and rank files (by id).
class RankedBpe final : public Model {
 public:
  bool bytes = false;          // words are raw bytes; else characters, with byte fallback
  bool whole_word = false;     // a word that is a token needs no merges
  bool fuse_unknown = false;   // neighbouring unknown characters give one unknown token
  bool byte_fallback = false;  // unknown characters become their bytes' tokens
  std::vector<std::uint32_t>
      ranks;                 // by id, lowest first; `no_rank` keeps a token from being a merge's result
  std::vector<bool> unused;  // tokens that are taken apart again at the end; may be empty

  void finish();
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const override;

 private:
  void encode_uncached(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  bool has_byte_tokens_ = false;
  bool splits_at_space_ = false;
  std::array<std::int32_t, 256> initial_{};
};

// Byte-wise trie: children sorted, root expanded.
class Trie {
 public:
  // `entries`: key and value >= 0; of equal keys the last wins.
  explicit Trie(std::vector<std::pair<std::string_view, std::int32_t>> entries = {});
  bool empty() const { return nodes_.size() <= 1; }
  struct Cursor {
    std::uint32_t node = 0;
  };
  // Follows `byte`; false when there is no such child.
  bool step(Cursor& cursor, char byte) const {
    const Node& node = nodes_[cursor.node];
    const auto label = static_cast<unsigned char>(byte);
    if (cursor.node == 0) {
      const std::uint32_t child = root_[label];
      cursor.node = child;
      return child != 0;
    }
    std::uint32_t low = node.first_child, high = node.first_child + node.children;
    while (low < high) {
      const std::uint32_t middle = (low + high) / 2;
      if (nodes_[middle].label < label) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low == node.first_child + node.children || nodes_[low].label != label) return false;
    cursor.node = low;
    return true;
  }
  std::int32_t value(const Cursor& cursor) const { return nodes_[cursor.node].value; }
  // Longest key that `text` begins with; its size, or 0.
  std::size_t longest_prefix(std::string_view text, std::int32_t& value) const;

 private:
  struct Node {
    std::uint32_t first_child = 0;
    std::int32_t value = -1;
    std::uint16_t children = 0;
    unsigned char label = 0;
  };
  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> root_{};
};

// Unigram language model: the segmentation of the highest score.
class Unigram final : public Model {
 public:
  std::vector<double> scores;  // by id
  bool byte_fallback = false;
  bool fuse_unknown = true;
  std::vector<bool> hidden;        // never part of a segmentation; may be empty
  std::vector<bool> user_defined;  // preferred to any other segmentation; may be empty
  bool single_precision =
      false;      // sums in float, as SentencePiece; else in double, as the tokenizers package
  void finish();  // builds the trie; call once everything is set
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const override;

 private:
  template <class Score>
  void best_path(std::string_view word, Scratch& scratch, std::vector<Score>& best) const;
  Trie trie_;
  double unknown_score_ = 0, highest_score_ = 0;
  bool has_byte_tokens_ = false;
};

// Greedy longest match from the left; all of the word or the unknown token.
class WordPiece final : public Model {
 public:
  std::string continuing_prefix = "##";
  std::size_t longest_word = 100;  // characters
  void finish();
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const override;

 private:
  Trie initial_, continuing_;
};

class WordLevel final : public Model {
 public:
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const override;
};

}  // namespace ttt::inline v2::text
