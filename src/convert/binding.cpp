#include "ttt/convert/binding.h"

#include <algorithm>
#include <climits>
#include <map>
#include <set>
#include <unordered_map>

#include "convert/json.h"
#include "convert/sources.h"
#include "convert/weight_map_impl.h"
#include "ttt/base/error.h"
#include "ttt/convert/checkpoint.h"

namespace ttt::inline v2 {

using Operation = WeightMap::Operation;
using Kind = Operation::Kind;

namespace {

using detail::fits, detail::matches_tensor, detail::substitute, detail::without_suffix;

// A tensor seen as [experts, out, in]: what split, slice and transpose work on.
struct Axes {
  std::int64_t experts = 1, out = 1, in = 1;
};

// One tensor's share of a slot: its matrix viewed as [experts * out, in], transposed per expert where asked
// for, rows taken.
struct Piece {
  std::uint32_t tensor = 0;
  bool transposed = false;
  bool whole = true;        // no rows to take: the matrix as it is
  Axes axes{};              // before the transposition
  detail::RowLoops rows{};  // after it
  std::int64_t rows_out = 0, cols_out = 0;
  std::vector<std::int64_t> order;  // concat position, then stacked numbers

  std::int64_t elements() const { return rows_out * cols_out; }
};

struct Recipe {
  WeightSlot slot;
  std::vector<Piece> pieces{};
  int alias = -1;  // another slot whose weight this is
  std::vector<Transform> transforms{};
  std::int64_t permute_heads = 0;
  bool optional = false;
};

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// At most 2^40 elements, none of the extents negative.
bool reasonable(const std::vector<std::int64_t>& shape) {
  constexpr std::int64_t limit = std::int64_t{1} << 40;
  std::int64_t elements = 1;
  for (std::int64_t extent : shape) {
    if (extent < 0 || extent > limit) return false;
    elements *= std::max<std::int64_t>(extent, 1);
    if (elements > limit) return false;
  }
  return true;
}

struct Rule {
  std::size_t operation = 0;
  std::size_t part = 0;  // concat: which of its tensors
  bool bias = false;     // matched with an implied ".bias"
  detail::RulePattern from;
  std::vector<detail::RulePattern> to;
};

class Binder {
 public:
  Binder(const WeightMap& map, std::span<const NamedShape> tensors, std::span<const WeightSlot> slots)
      : operations_(map.operations()), tensors_(tensors) {
    // Whatever a spec or a file says: sums and products of sizes below stay far from overflow.
    for (const NamedShape& tensor : tensors) {
      if (!reasonable(tensor.shape))
        throw Error("a shape of " + shape_text(tensor.shape), printable(tensor.name, 200));
    }
    for (const WeightSlot& slot : slots) {
      if (slot.experts < 1 || !reasonable({slot.rows, slot.cols}))
        throw Error("a weight of " + shape_text({slot.rows, slot.cols}), printable(slot.name, 200));
      if (!slot_index_.emplace(slot.name, recipes_.size()).second)
        throw Error("two slots of one name", slot.name);
      recipes_.push_back({.slot = slot, .optional = slot.optional});
    }
  }

  void run() {
    compile();
    for (std::uint32_t i = 0; i < tensors_.size(); ++i) route(i);
    for (std::size_t i = 0; i < recipes_.size(); ++i) assemble(i);
  }
  std::vector<WeightProblem> problems() const {
    std::vector<WeightProblem> all;
    const auto kind = [&](std::size_t count, const char* title, auto describe) -> WeightProblem* {
      if (count == 0) return nullptr;
      WeightProblem& problem = all.emplace_back(WeightProblem{.kind = title, .count = count});
      for (std::size_t i = 0; i < std::min(count, shown); ++i) problem.examples.push_back(describe(i));
      return &problem;
    };
    const std::vector<std::string> unused =
        missing_.empty() ? std::vector<std::string>() : kinds_of_unknown();
    WeightProblem* missing = kind(missing_.size(), "missing", [&](std::size_t i) {
      const std::string& slot = recipes_[missing_[i]].slot.name;
      const std::string expected = expected_name(slot);
      const std::string near = nearest(expected.empty() ? slot : expected, unused);
      return slot + (expected.empty() ? " (no rule leads to it)" : " (from " + expected + ")") +
             (near.empty() ? "" : ", the nearest unused tensor is " + printable(near, 200));
    });
    for (std::size_t i : missing_) missing->names.push_back(recipes_[i].slot.name);
    std::vector<std::string> patterns;
    if (!unknown_.empty()) {
      std::set<std::string> seen;
      for (const Rule& rule : rules_)
        seen.insert(substitute(rule.from, std::vector<std::int64_t>(rule.from.variables.size(), -1)));
      patterns.assign(seen.begin(), seen.end());
    }
    WeightProblem* unknown = kind(unknown_.size(), "unknown", [&](std::size_t i) {
      const std::string& name = tensors_[unknown_[i]].name;
      const std::string near = nearest(stripped(name), patterns);
      return printable(name, 200) + (near.empty() ? "" : ", the nearest rule is for " + near);
    });
    for (std::uint32_t i : unknown_) unknown->names.push_back(tensors_[i].name);
    std::vector<std::string_view> slot_names;
    if (!leftover_.empty()) {
      std::set<std::string> seen;
      for (const Recipe& r : recipes_) {
        if (seen.insert(detail::numbered(r.slot.name).key).second) slot_names.push_back(r.slot.name);
      }
    }
    kind(leftover_.size(), "left over", [&](std::size_t i) {
      const auto& [tensor, slot] = leftover_[i];
      const std::string near = nearest(slot, slot_names);
      return printable(tensors_[tensor].name, 200) + " (the network has no " + printable(slot, 200) +
             (near.empty() ? ")" : ", the nearest is " + near + ")");
    });
    kind(duplicates_.size(), "doubly given", [&](std::size_t i) { return duplicates_[i]; });
    kind(gaps_.size(), "incomplete", [&](std::size_t i) { return gaps_[i]; });
    kind(misshapen_.size(), "misshapen", [&](std::size_t i) { return misshapen_[i]; });
    return all;
  }
  std::vector<Recipe> take_recipes() { return std::move(recipes_); }

  std::vector<std::uint32_t> ignored;

 private:
  // --- the map ---

  std::string stripped(std::string_view name) const {
    std::vector<bool> used(prefixes_.size(), false);
    for (bool again = true; again;) {
      again = false;
      for (std::size_t i = 0; i < prefixes_.size(); ++i) {
        if (used[i] || !name.starts_with(prefixes_[i]) || name.size() == prefixes_[i].size()) continue;
        name.remove_prefix(prefixes_[i].size());
        used[i] = again = true;
      }
    }
    return std::string(name);
  }

  std::string tensor_pattern(std::string_view pattern) const {
    return stripped(detail::expand_layer(pattern, layer_));
  }
  static std::string slot_pattern(std::string_view pattern) {
    return detail::expand_layer(pattern, "layers.{i}");
  }

  void compile() {
    for (const Operation& o : operations_) {
      if (o.kind == Kind::strip) prefixes_.push_back(o.from[0]);
      if (o.kind == Kind::layers) layer_ = o.from[0];
    }
    for (std::size_t i = 0; i < operations_.size(); ++i) {
      const Operation& o = operations_[i];
      switch (o.kind) {
        case Kind::rename:
        case Kind::split:
        case Kind::stack:
        case Kind::concat:
        case Kind::slice:
          for (std::size_t part = 0; part < o.from.size(); ++part) add_rule(i, part);
          break;
        case Kind::ignore:
          ignores_.push_back({i, tensor_pattern(o.from[0])});
          break;
        case Kind::transpose:
          transposes_.push_back(tensor_pattern(o.from[0]));
          break;
        case Kind::surplus:
          surplus_.push_back(slot_pattern(o.from[0]));
          break;
        case Kind::optional:
          for_slots(
              o, [](Recipe& r) { r.optional = true; }, true);
          break;
        case Kind::apply:
          for_slots(
              o, [&](Recipe& r) { r.transforms.push_back(o.transform); }, false);
          break;
        case Kind::permute:
          for_slots(
              o, [&](Recipe& r) { r.permute_heads = o.heads; }, true);
          break;
        default:
          break;
      }
    }
  }

  template <class Act>
  void for_slots(const Operation& o, Act act, bool biases) {
    const std::string pattern = slot_pattern(o.from[0]);
    for (Recipe& r : recipes_) {
      const bool match =
          biases ? matches_tensor(pattern, r.slot.name) : detail::matches_slot(pattern, r.slot.name);
      if (match) act(r);
    }
  }

  void add_rule(std::size_t index, std::size_t part) {
    const Operation& o = operations_[index];
    const std::string from = tensor_pattern(o.from[part]);
    const auto add = [&](const std::string& name, bool bias) {
      Rule rule{.operation = index, .part = part, .bias = bias, .from = detail::compile_rule(name), .to = {}};
      for (const std::string& to : o.to) {
        rule.to.push_back(
            detail::compile_rule(slot_pattern(to) + (bias ? ".bias" : ""), rule.from.variables));
        by_slot_[rule.to.back().key].push_back(rules_.size());
      }
      by_tensor_[rule.from.key].push_back(rules_.size());
      rules_.push_back(std::move(rule));
    };
    add(from, false);
    if (without_suffix(from).size() != from.size()) return;  // spelt out
    add(from + ".weight", false);
    add(from + ".bias", true);
  }

  // --- tensors to slots ---

  // The last ignore that matches, as operation index + 1; 0: none. What a pattern without digits says depends
  // on the key alone.
  std::size_t ignored_by(const std::string& name, const std::string& key) {
    std::size_t best = 0;
    auto [cached, fresh] = ignore_cache_.try_emplace(key, 0);
    for (const auto& [operation, pattern] : ignores_) {
      const bool by_key = pattern.find_first_of("0123456789") == std::string::npos;
      if ((by_key ? fresh : true) && matches_tensor(pattern, name))
        (by_key ? cached->second : best) = operation + 1;
    }
    return std::max(best, cached->second);
  }

  void route(std::uint32_t index) {
    const std::string name = stripped(tensors_[index].name);
    const detail::NumberedName numbered = detail::numbered(name);
    const std::size_t ignore = ignored_by(name, numbered.key);

    const Rule* best = nullptr;
    std::vector<std::int64_t> values;
    if (const auto it = by_tensor_.find(numbered.key); it != by_tensor_.end()) {
      for (std::size_t i = it->second.size(); i-- > 0;) {
        const Rule& rule = rules_[it->second[i]];
        if (!fits(rule.from, numbered.numbers, values)) continue;
        best = &rule;
        break;
      }
    }
    if (best == nullptr || ignore > best->operation + 1) {
      if (ignore != 0) {
        ignored.push_back(index);
      } else {
        unknown_.push_back(index);
      }
      return;
    }
    deliver(index, name, *best, values);
  }

  void deliver(std::uint32_t index, const std::string& name, const Rule& rule,
               const std::vector<std::int64_t>& values) {
    const Operation& o = operations_[rule.operation];
    bool wanted = false;
    std::string first;
    for (std::size_t part = 0; part < rule.to.size(); ++part) {
      const std::string slot_name = substitute(rule.to[part], values);
      if (first.empty()) first = slot_name;
      const auto it = slot_index_.find(slot_name);
      if (it == slot_index_.end()) continue;
      wanted = true;
      Recipe& recipe = recipes_[it->second];
      Piece piece;
      piece.tensor = index;
      piece.order.push_back(static_cast<std::int64_t>(rule.part));
      for (std::size_t v = 0; v < rule.from.variables.size(); ++v) {
        const bool kept = std::ranges::any_of(
            rule.to[part].slots, [&](std::int64_t s) { return s < 0 && static_cast<std::size_t>(~s) == v; });
        if (!kept) piece.order.push_back(values[v]);
      }
      if (cut(piece, name, rule, o, part, values, recipe.slot)) recipe.pieces.push_back(std::move(piece));
    }
    if (wanted) return;
    const bool dropped = std::ranges::any_of(surplus_, [&](const std::string& pattern) {
      return detail::glob(pattern, first) || detail::glob(pattern, without_suffix(first));
    });
    if (dropped) {
      ignored.push_back(index);
    } else {
      leftover_.emplace_back(index, first);
    }
  }

  Axes axes_of(const std::vector<std::int64_t>& stored, const WeightSlot& slot) const {
    std::vector<std::int64_t> shape = stored;
    // A convolution's [channels, 1, width] is a matrix.
    for (std::size_t i = 1; shape.size() > 2 && i + 1 < shape.size();) {
      if (shape[i] == 1) {
        shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
    const bool vectors = slot.role == WeightRole::vector && shape.size() == 2 &&
                         (slot.name.ends_with(".bias") || slot.experts > 1);
    if (shape.empty()) return {};
    if (shape.size() == 1) return {1, shape[0], 1};
    if (vectors) return {shape[0], shape[1], 1};
    std::int64_t experts = 1;
    for (std::size_t i = 0; i + 2 < shape.size(); ++i) experts *= shape[i];
    return {experts, shape[shape.size() - 2], shape.back()};
  }

  // Fills in what of the tensor goes to the slot. False when that can not be said; the problem is noted.
  bool cut(Piece& piece, const std::string& name, const Rule& rule, const Operation& o, std::size_t part,
           const std::vector<std::int64_t>& values, const WeightSlot& slot) {
    const NamedShape& tensor = tensors_[piece.tensor];
    Axes axes = piece.axes = axes_of(tensor.shape, slot);
    const std::size_t rank = tensor.shape.size();
    if (rank >= 2 &&
        std::ranges::any_of(transposes_, [&](const std::string& p) { return matches_tensor(p, name); })) {
      piece.transposed = axes.in != 1 || slot.role != WeightRole::vector;  // stacked biases stay
      if (piece.transposed) std::swap(axes.out, axes.in);
    }
    const auto bad = [&](const std::string& what) {
      misshapen_.push_back(printable(tensor.name, 200) + " " + shape_text(tensor.shape) + ": " + what);
      return false;
    };

    std::int64_t begin = 0, size = axes.out, groups = 1;
    if (o.kind == Kind::slice) {
      begin = o.begin;
      size = o.count;
      if (size > axes.out || begin > axes.out - size)
        return bad("rows " + std::to_string(begin) + " to " + std::to_string(begin) + " + " +
                   std::to_string(size) + " of " + std::to_string(axes.out));
    } else if (o.kind == Kind::split) {
      const std::vector<std::int64_t> sizes = split_sizes(rule, o, values, axes);
      if (sizes.empty())
        return bad("can not be split into " + std::to_string(o.to.size()) +
                   " without sizes: a target is no slot");
      std::int64_t sum = 0;
      for (std::int64_t s : sizes) sum += s;
      groups = o.layout.interleaved ? sizes[0] : o.layout.groups;
      for (std::int64_t s : sizes) {
        if (groups < 1 || s % groups != 0 || (o.layout.interleaved && s != sizes[0]))
          return bad("a part of " + std::to_string(s) + " rows in " + std::to_string(groups) + " groups");
      }
      if (sum != axes.out) {
        std::string parts;
        for (std::size_t i = 0; i < sizes.size(); ++i) parts += (i ? " + " : "") + std::to_string(sizes[i]);
        return bad(std::to_string(axes.out) + " rows where the network wants " + parts);
      }
      for (std::size_t i = 0; i < part; ++i) begin += sizes[i] / groups;
      size = sizes[part];
    }
    piece.whole = size == axes.out;
    piece.rows = {begin, {{axes.experts, axes.out}, {groups, axes.out / groups}, {size / groups, 1}}};
    piece.rows_out = axes.experts * size;
    piece.cols_out = axes.in;
    return true;
  }

  // Rows of every target per expert. Empty: unknown.
  std::vector<std::int64_t> split_sizes(const Rule& rule, const Operation& o,
                                        const std::vector<std::int64_t>& values, const Axes& axes) const {
    if (!o.layout.sizes.empty()) return o.layout.sizes;
    std::vector<std::int64_t> sizes;
    std::int64_t known = 0;
    std::size_t missing = 0, missing_at = 0;
    for (std::size_t i = 0; i < rule.to.size(); ++i) {
      const auto it = slot_index_.find(substitute(rule.to[i], values));
      if (it == slot_index_.end()) {
        ++missing;
        missing_at = i;
        sizes.push_back(0);
        continue;
      }
      const WeightSlot& slot = recipes_[it->second].slot;
      // A vector [1, n] counts its elements; stacked ones [experts, n] too.
      const std::int64_t elements = slot.rows * slot.cols;
      sizes.push_back(axes.in == 1 ? elements / axes.experts : slot.rows / axes.experts);
      known += sizes.back();
    }
    if (missing > 1) return {};
    if (missing == 1) sizes[missing_at] = axes.out - known;
    return sizes;
  }

  // --- slots ---

  void assemble(std::size_t index) {
    Recipe& r = recipes_[index];
    if (r.pieces.empty()) {
      for (std::size_t i = operations_.size(); i-- > 0 && r.alias < 0;) {
        if (operations_[i].kind == Kind::alias) r.alias = alias_of(r.slot.name, operations_[i]);
      }
      if (r.alias < 0 && !r.optional) missing_.push_back(index);
      if (r.alias >= 0) {
        const WeightSlot& of = recipes_[static_cast<std::size_t>(r.alias)].slot;
        if (of.rows != r.slot.rows || of.cols != r.slot.cols)
          misshapen_.push_back(r.slot.name + ": takes " + of.name + ", which has another shape");
      }
      return;
    }
    std::ranges::stable_sort(r.pieces, {}, &Piece::order);
    for (std::size_t i = 1; i < r.pieces.size(); ++i) {
      if (r.pieces[i].order != r.pieces[i - 1].order) continue;
      duplicates_.push_back(r.slot.name + ": " + printable(tensors_[r.pieces[i - 1].tensor].name, 200) +
                            " and " + printable(tensors_[r.pieces[i].tensor].name, 200));
      return;
    }
    if (!complete(r)) return;

    std::int64_t elements = 0, rows = 0;
    const std::int64_t cols = r.pieces[0].cols_out;
    bool even = true;
    for (const Piece& p : r.pieces) {
      even &= p.cols_out == cols;
      rows += p.rows_out;
      elements += p.elements();
    }
    const bool same = even && rows == r.slot.rows && cols == r.slot.cols;
    // Flattening is unambiguous where either side is a list of numbers.
    const bool flat = even && elements == r.slot.rows * r.slot.cols &&
                      (cols == 1 || rows == 1 || r.slot.rows == 1 || r.slot.cols == 1);
    if (!same && !flat) {
      const NamedShape& first = tensors_[r.pieces[0].tensor];
      misshapen_.push_back(
          r.slot.name + " [" + std::to_string(r.slot.rows) + ", " + std::to_string(r.slot.cols) +
          "]: " + printable(first.name, 200) + " " + shape_text(first.shape) +
          (r.pieces.size() > 1 ? " and " + std::to_string(r.pieces.size() - 1) + " more give ["
                               : " gives [") +
          std::to_string(rows) + ", " + std::to_string(cols) + "]");
    } else if (r.permute_heads > 0) {
      const std::int64_t n = r.slot.role == WeightRole::vector ? r.slot.rows * r.slot.cols : r.slot.rows;
      if (n % (2 * r.permute_heads) != 0)
        misshapen_.push_back(r.slot.name + ": " + std::to_string(n) + " rows in " +
                             std::to_string(r.permute_heads) + " heads of even width");
    }
  }

  int alias_of(const std::string& slot, const Operation& o) const {
    const detail::RulePattern to = detail::compile_rule(slot_pattern(o.from[0]));
    const detail::NumberedName numbered = detail::numbered(slot);
    std::vector<std::int64_t> values;
    if (to.key != numbered.key || !fits(to, numbered.numbers, values)) return -1;
    const detail::RulePattern of = detail::compile_rule(slot_pattern(o.to[0]), to.variables);
    const auto it = slot_index_.find(substitute(of, values));
    if (it == slot_index_.end() || recipes_[it->second].pieces.empty()) return -1;
    return static_cast<int>(it->second);
  }

  // Stacked numbers run from 0 without a gap, the same for every part of a concat.
  bool complete(const Recipe& r) {
    if (r.pieces.size() == 1 && r.pieces[0].order.size() == 1) return missing_parts(r);
    for (std::size_t axis = 1; axis < r.pieces[0].order.size(); ++axis) {
      std::set<std::int64_t> seen;
      for (const Piece& p : r.pieces) {
        if (p.order.size() > axis) seen.insert(p.order[axis]);
      }
      std::int64_t expected = 0;
      for (std::int64_t number : seen) {
        if (number != expected++) {
          gaps_.push_back(r.slot.name + ": number " + std::to_string(expected - 1) +
                          " of the stacked tensors is missing");
          return false;
        }
      }
    }
    std::size_t product = 1;
    for (std::size_t axis = 0; axis < r.pieces[0].order.size(); ++axis) {
      std::set<std::int64_t> seen;
      for (const Piece& p : r.pieces) {
        if (p.order.size() > axis) seen.insert(p.order[axis]);
      }
      product *= seen.size();
    }
    if (product != r.pieces.size()) {
      gaps_.push_back(r.slot.name + ": " + std::to_string(r.pieces.size()) + " tensors where " +
                      std::to_string(product) + " belong together");
      return false;
    }
    return missing_parts(r);
  }

  // A concat needs all its tensors.
  bool missing_parts(const Recipe& r) {
    const detail::NumberedName numbered = detail::numbered(r.slot.name);
    const auto it = by_slot_.find(numbered.key);
    if (it == by_slot_.end()) return true;
    for (std::size_t rule : it->second) {
      const Operation& o = operations_[rules_[rule].operation];
      if (o.kind != Kind::concat || o.from.size() < 2) continue;
      std::set<std::int64_t> parts;
      for (const Piece& p : r.pieces) parts.insert(p.order[0]);
      // Pieces of a later rule that replaced the concat have one part only and are whole by themselves.
      if (parts.size() > 1 && parts.size() != o.from.size()) {
        gaps_.push_back(r.slot.name + ": " + std::to_string(parts.size()) + " of the " +
                        std::to_string(o.from.size()) + " tensors that make it up");
        return false;
      }
    }
    return true;
  }

  // --- the one message ---

  static constexpr std::size_t shown = 8;

  // Names that differ in numbers only count once: the search stays small whatever the checkpoint.
  std::vector<std::string> kinds_of_unknown() const {
    std::map<std::string, std::string> kinds;
    for (std::uint32_t i : unknown_)
      kinds.try_emplace(detail::numbered(stripped(tensors_[i].name)).key, tensors_[i].name);
    for (const auto& [i, slot] : leftover_)
      kinds.try_emplace(detail::numbered(stripped(tensors_[i].name)).key, tensors_[i].name);
    std::vector<std::string> names;
    for (auto& [key, name] : kinds) {
      names.push_back(name);
      if (names.size() == 500) break;
    }
    return names;
  }

  std::string expected_name(const std::string& slot) const {
    const detail::NumberedName numbered = detail::numbered(slot);
    const auto it = by_slot_.find(numbered.key);
    if (it == by_slot_.end()) return {};
    for (std::size_t i = it->second.size(); i-- > 0;) {
      const Rule& rule = rules_[it->second[i]];
      for (const detail::RulePattern& to : rule.to) {
        std::vector<std::int64_t> values;
        if (to.key == numbered.key && fits(to, numbered.numbers, values))
          return substitute(rule.from, values);
      }
    }
    return {};
  }

  const std::vector<Operation>& operations_;
  std::span<const NamedShape> tensors_;
  std::vector<Recipe> recipes_;
  std::unordered_map<std::string, std::size_t> slot_index_;

  std::vector<std::string> prefixes_;
  std::string layer_ = "layers.{i}";
  std::vector<Rule> rules_;
  std::unordered_map<std::string, std::vector<std::size_t>> by_tensor_, by_slot_;
  std::vector<std::pair<std::size_t, std::string>> ignores_;
  std::unordered_map<std::string, std::size_t> ignore_cache_;
  std::vector<std::string> transposes_, surplus_;

  std::vector<std::size_t> missing_;
  std::vector<std::uint32_t> unknown_;
  std::vector<std::pair<std::uint32_t, std::string>> leftover_;
  std::vector<std::string> duplicates_, gaps_, misshapen_;
};

std::string describe_transform(const Transform& t) {
  std::string text;
  if (t.scale != 1) text += ", times " + detail::dump_json(t.scale);
  if (t.offset != 0) text += ", plus " + detail::dump_json(t.offset);
  if (t.op != UnaryOp::identity) text += ", " + std::string(name(t.op));
  return text;
}

std::string_view role_name(WeightRole role) {
  constexpr std::string_view names[] = {"linear", "experts", "embedding", "vector"};
  return names[static_cast<std::size_t>(role)];
}

}  // namespace

struct Binding::State {
  std::vector<Recipe> recipes;
  std::unordered_map<std::string_view, std::size_t> index;
  std::vector<NamedShape> tensors;
  std::vector<std::uint32_t> ignored;

  const Recipe& recipe(std::string_view slot) const {
    const auto it = index.find(slot);
    if (it != index.end()) return recipes[it->second];
    std::vector<std::string_view> names;
    for (const Recipe& r : recipes) names.push_back(r.slot.name);
    const std::string near = nearest(slot, names);
    throw Error("no slot " + printable(slot, 200), "the network",
                near.empty() ? "" : "the nearest is " + near);
  }

  WeightSourcePtr source(const Recipe& r, const Checkpoint& checkpoint) const {
    if (r.alias >= 0) return source(recipes[static_cast<std::size_t>(r.alias)], checkpoint);
    if (r.pieces.empty()) return nullptr;
    std::vector<WeightSourcePtr> parts;
    for (const Piece& p : r.pieces) parts.push_back(piece(p, checkpoint));
    const auto reshape = [](WeightSourcePtr s, std::int64_t rows, std::int64_t cols) {
      return s->rows() == rows && s->cols() == cols ? s : reshape_source(std::move(s), rows, cols);
    };
    // Vectors of n side by side are n rows of one: [1, n] stays whole, [n, 1] is what was cut.
    for (std::size_t i = 0; parts.size() > 1 && i < parts.size(); ++i)
      parts[i] = reshape(parts[i], r.pieces[i].rows_out, r.pieces[i].cols_out);
    WeightSourcePtr result = parts.size() == 1 ? parts[0] : concat_rows(std::move(parts));
    result = reshape(std::move(result), r.slot.rows, r.slot.cols);
    if (r.permute_heads > 0) {
      const bool vector = r.slot.role == WeightRole::vector;
      const std::int64_t rows = vector ? r.slot.rows * r.slot.cols : r.slot.rows,
                         width = rows / r.permute_heads;
      if (vector) result = reshape(std::move(result), rows, 1);
      result =
          detail::strided_rows(std::move(result), {0, {{r.permute_heads, width}, {2, 1}, {width / 2, 2}}});
      result = reshape(std::move(result), r.slot.rows, r.slot.cols);
    }
    for (const Transform& t : r.transforms) {
      if (t.scale != 1 || t.offset != 0) result = affine(std::move(result), t.scale, t.offset);
      result = detail::map_values(std::move(result), t.op);
    }
    return result;
  }

  WeightSourcePtr piece(const Piece& p, const Checkpoint& checkpoint) const {
    const std::string& name = tensors[p.tensor].name;
    if (p.whole && !p.transposed) return checkpoint.source(name);
    WeightSourcePtr whole = p.transposed ? checkpoint.transposed_source(name) : checkpoint.source(name);
    const std::int64_t cols = p.transposed ? p.axes.out : p.axes.in;
    if (whole->cols() != cols)
      whole =
          reshape_source(std::move(whole), p.axes.experts * (p.transposed ? p.axes.in : p.axes.out), cols);
    return p.whole ? whole : detail::strided_rows(std::move(whole), p.rows);
  }

  std::string describe(const Recipe& r) const {
    if (r.alias >= 0) return "as " + recipes[static_cast<std::size_t>(r.alias)].slot.name;
    if (r.pieces.empty()) return "";
    const Piece& first = r.pieces[0];
    std::string text;
    if (!first.whole) {
      const detail::RowLoops rows = first.rows.simplified();
      text = rows.loops.size() == 1 && rows.loops[0].stride == 1
                 ? "rows " + std::to_string(rows.offset) + " to " +
                       std::to_string(rows.offset + rows.loops[0].count - 1) + " of "
                 : std::to_string(first.rows_out) + " rows from " + std::to_string(rows.offset) + " of ";
    }
    text += tensors[first.tensor].name;
    if (r.pieces.size() > 1)
      text += " to " + tensors[r.pieces.back().tensor].name + " (" + std::to_string(r.pieces.size()) +
              " tensors)";
    if (first.transposed) text += ", transposed";
    if (r.permute_heads > 0)
      text += ", q/k rows of " + std::to_string(r.permute_heads) + " heads put back in order";
    for (const Transform& t : r.transforms) text += describe_transform(t);
    return text;
  }
};

bool Binding::has(std::string_view slot) const {
  const auto it = state_->index.find(slot);
  if (it == state_->index.end()) return false;
  const Recipe& r = state_->recipes[it->second];
  return r.alias >= 0 || !r.pieces.empty();
}

WeightSourcePtr Binding::source(std::string_view slot, const Checkpoint& checkpoint) const {
  return state_->source(state_->recipe(slot), checkpoint);
}

std::string Binding::describe(std::string_view slot) const { return state_->describe(state_->recipe(slot)); }

std::vector<std::string> Binding::slots() const {
  std::vector<std::string> names;
  for (const Recipe& r : state_->recipes) names.push_back(r.slot.name);
  return names;
}

std::vector<std::string> Binding::ignored() const {
  std::vector<std::string> names;
  for (std::uint32_t i : state_->ignored) names.push_back(state_->tensors[i].name);
  return names;
}

std::vector<TensorUse> Binding::uses() const {
  std::vector<TensorUse> all(state_->tensors.size());
  std::vector<bool> whole_blocks(all.size(), true);
  for (const Recipe& slot : state_->recipes) {
    const Recipe& r = slot.alias >= 0 ? state_->recipes[static_cast<std::size_t>(slot.alias)] : slot;
    for (const Piece& p : r.pieces) {
      TensorUse& use = all[p.tensor];
      use.slots.push_back(slot.slot.name);
      use.changed |= std::ranges::any_of(r.transforms, [](const Transform& t) { return t != Transform{}; });
      const int axis = p.transposed ? -1 : -2;
      const bool matrix = (r.slot.role == WeightRole::linear || r.slot.role == WeightRole::experts) &&
                          state_->tensors[p.tensor].shape.size() >= 2 && p.cols_out == r.slot.cols;
      std::int64_t cuts = p.rows.offset | p.rows_out | (p.transposed ? p.axes.in : p.axes.out);
      for (const detail::RowLoops::Loop& loop : p.rows.simplified().loops)
        cuts |= loop.stride == 1 ? loop.count : loop.stride;
      const bool whole = matrix && !use.changed && r.permute_heads == 0 && cuts % 16 == 0;
      whole_blocks[p.tensor] =
          whole_blocks[p.tensor] && whole && (use.output_axis == 0 || use.output_axis == axis);
      use.output_axis = axis;
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!whole_blocks[i] || all[i].slots.empty()) all[i].output_axis = 0;
  }
  return all;
}

std::string Binding::to_json(int indent) const {
  detail::Json list = detail::Json::array();
  for (const Recipe& r : state_->recipes) {
    detail::Json row{
        {"slot", r.slot.name}, {"shape", {r.slot.rows, r.slot.cols}}, {"role", role_name(r.slot.role)}};
    if (r.slot.experts > 1) row["experts"] = r.slot.experts;
    row["from"] = state_->describe(r);
    list.push_back(std::move(row));
  }
  return detail::dump_json({{"weights", std::move(list)}, {"ignored", ignored()}}, indent);
}

std::vector<WeightProblem> weight_problems(const WeightMap& map, std::span<const NamedShape> tensors,
                                           std::span<const WeightSlot> slots) {
  Binder binder(map, tensors, slots);
  binder.run();
  return binder.problems();
}

Binding bind_weights(const WeightMap& map, std::span<const NamedShape> tensors,
                     std::span<const WeightSlot> slots) {
  auto state = std::make_shared<Binding::State>();
  Binder binder(map, tensors, slots);
  binder.run();
  std::string counts, list;
  for (const WeightProblem& p : binder.problems()) {
    counts += (counts.empty() ? "" : ", ") + std::to_string(p.count) + " " + p.kind;
    for (const std::string& example : p.examples) list += (list.empty() ? "" : "; ") + p.kind + " " + example;
    if (p.count > p.examples.size())
      list += "; and " + std::to_string(p.count - p.examples.size()) + " more " + p.kind;
  }
  if (!counts.empty())
    throw Error("the tensors do not fit the network: " + counts, list,
                "is the checkpoint complete, and of this architecture?");
  state->recipes = binder.take_recipes();
  state->ignored = std::move(binder.ignored);
  state->tensors.assign(tensors.begin(), tensors.end());
  for (std::size_t i = 0; i < state->recipes.size(); ++i)
    state->index.emplace(state->recipes[i].slot.name, i);
  Binding binding;
  binding.state_ = std::move(state);
  return binding;
}

}  // namespace ttt::inline v2
