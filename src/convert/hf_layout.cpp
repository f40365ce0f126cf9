#include "convert/hf_layout.h"

#include <algorithm>
#include <map>
#include <optional>

#include "convert/sources.h"
#include "convert/weight_map_impl.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::detail {

using Operation = WeightMap::Operation;
using Kind = Operation::Kind;

namespace {

// Parameters that belong to a module and are none themselves: their names have no ".weight".
constexpr std::string_view bare_names[] = {".A_log", ".D", ".dt_bias"};

// The rule that leads to a slot: its tensor, with "{e}" for each number that is stacked.
struct Origin {
  const Operation* rule = nullptr;
  std::size_t part = 0;  // split: which of its targets
  RulePattern from{};
  std::vector<std::int64_t> values{};
  std::string suffix{};
};

class Layout {
 public:
  Layout(const WeightMap& map, std::span<const WeightSlot> slots,
         const std::function<WeightSourcePtr(const WeightSlot&)>& source)
      : operations_(map.operations()), slots_(slots), source_(source) {
    for (const Operation& o : operations_) {
      if (o.kind == Kind::layers) layer_ = o.from[0];
      if (o.kind == Kind::strip && prefix_.empty()) prefix_ = o.from[0];
    }
  }

  std::vector<HfTensor> run() {
    for (const WeightSlot& slot : slots_) {
      WeightSourcePtr values = source_(slot);
      if (!values) continue;
      values = undo(slot, std::move(values));
      const std::optional<Origin> origin = find(slot.name);
      if (!origin)
        throw Error("no Hugging Face name is known for " + slot.name, "the weight map of the family",
                    "convert the model's Hugging Face checkpoint");
      if (origin->rule->kind == Kind::split) {
        split_[tensor_name(slot, *origin, -1)].push_back({*origin, &slot, std::move(values)});
      } else {
        place(*origin, slot, std::move(values));
      }
    }
    for (auto& [name, parts] : split_) join(name, parts);
    return std::move(tensors_);
  }

 private:
  struct Part {
    Origin origin;
    const WeightSlot* slot;
    WeightSourcePtr values;
  };

  std::optional<Origin> find(const std::string& slot) const {
    const NumberedName name = numbered(slot);
    for (std::size_t i = operations_.size(); i-- > 0;) {
      const Operation& o = operations_[i];
      if (o.kind != Kind::rename && o.kind != Kind::stack && o.kind != Kind::split) continue;
      const std::string from = expand_layer(o.from[0], layer_);
      const bool spelled = without_suffix(from).size() != from.size();
      for (std::size_t part = 0; part < o.to.size(); ++part) {
        for (const bool bias : {false, true}) {
          if (bias && spelled) continue;
          Origin origin{.rule = &o, .part = part, .from = compile_rule(from)};
          const RulePattern to = compile_rule(expand_layer(o.to[part], "layers.{i}") + (bias ? ".bias" : ""),
                                              origin.from.variables);
          if (to.key != name.key || !fits(to, name.numbers, origin.values)) continue;
          const bool bare =
              std::ranges::any_of(bare_names, [&](auto bare_name) { return from.ends_with(bare_name); });
          origin.suffix = spelled || bare ? "" : bias ? ".bias" : ".weight";
          return origin;
        }
      }
    }
    return std::nullopt;
  }

  std::string tensor_name(const WeightSlot& slot, Origin origin, std::int64_t number) const {
    for (std::int64_t& value : origin.values) {
      if (value < 0) value = number;
    }
    const std::string name = substitute(origin.from, origin.values) + origin.suffix;
    // The head stands outside of the base model.
    return slot.name.starts_with("lm_head") || name.starts_with(prefix_) ? name : prefix_ + name;
  }

  WeightSourcePtr undo(const WeightSlot& slot, WeightSourcePtr values) const {
    for (std::size_t i = operations_.size(); i-- > 0;) {
      const Operation& o = operations_[i];
      if (o.kind == Kind::permute && matches_tensor(expand_layer(o.from[0], "layers.{i}"), slot.name))
        throw Error("reordered rows of " + slot.name, "the weight map of the family");
      if (o.kind != Kind::apply || !matches_slot(expand_layer(o.from[0], "layers.{i}"), slot.name)) continue;
      const Transform& t = o.transform;
      if (t.op == UnaryOp::exp || t.op == UnaryOp::log) {
        values = map_values(std::move(values), t.op == UnaryOp::exp ? UnaryOp::log : UnaryOp::exp);
      } else if (t.op == UnaryOp::neg || t.op == UnaryOp::reciprocal) {
        values = map_values(std::move(values), t.op);
      } else if (t.op != UnaryOp::identity || t.scale == 0) {
        throw Error("a function of " + slot.name + " that has no inverse", "the weight map of the family");
      }
      // Two steps: (x - offset) / scale rounds as little as it can.
      if (t.offset != 0) values = affine(std::move(values), 1, -t.offset);
      if (t.scale != 1) values = affine(std::move(values), 1 / t.scale, 0);
    }
    return values;
  }

  // Adds a tensor of `experts` matrices [rows, cols] one above the other, or vectors.
  void add(std::string name, const WeightSlot& slot, std::int64_t experts, WeightSourcePtr values) {
    HfTensor tensor{.name = std::move(name)};
    const std::int64_t rows = values->rows() / experts, cols = values->cols();
    const bool vector = slot.role == WeightRole::vector;
    if (vector) {
      tensor.shape = values->rows() == 1 ? std::vector{cols} : std::vector{values->rows(), cols};
    } else {
      const bool turned = std::ranges::any_of(operations_, [&](const Operation& o) {
        return o.kind == Kind::transpose &&
               (matches_tensor(expand_layer(o.from[0], layer_), tensor.name) ||
                matches_tensor(prefix_ + expand_layer(o.from[0], layer_), tensor.name));
      });
      if (turned) {
        std::vector<WeightSourcePtr> parts;
        for (std::int64_t e = 0; e < experts; ++e)
          parts.push_back(transpose(strided_rows(values, {e * rows, {{rows, 1}}})));
        values = parts.size() == 1 ? parts[0] : concat_rows(std::move(parts));
      }
      tensor.shape = turned ? std::vector{cols, rows} : std::vector{rows, cols};
      if (experts > 1) tensor.shape.insert(tensor.shape.begin(), experts);
    }
    // A depthwise convolution has an axis for the one channel that each filter reads.
    if (slot.name.ends_with(".conv") && tensor.shape.size() == 2)
      tensor.shape.insert(tensor.shape.begin() + 1, 1);
    tensor.source = std::move(values);
    tensors_.push_back(std::move(tensor));
  }

  void place(const Origin& origin, const WeightSlot& slot, WeightSourcePtr values) {
    const auto stacked = std::ranges::count(origin.values, -1);
    if (stacked == 0) {
      add(tensor_name(slot, origin, -1), slot, slot.role == WeightRole::experts ? slot.experts : 1,
          std::move(values));
      return;
    }
    const std::int64_t experts = std::max(slot.experts, slot.role == WeightRole::vector ? slot.rows : 1);
    if (stacked > 1 || experts < 1 || values->rows() % experts != 0)
      throw Error("weights stacked by several numbers: " + slot.name, "the weight map of the family");
    const std::int64_t rows = values->rows() / experts;
    for (std::int64_t e = 0; e < experts; ++e)
      add(tensor_name(slot, origin, e), slot, 1, strided_rows(values, {e * rows, {{rows, 1}}}));
  }

  // The parts of a fused tensor, in the groups in which they stand in it.
  void join(const std::string& name, std::vector<Part>& parts) {
    const Operation& rule = *parts[0].origin.rule;
    std::ranges::sort(parts, {}, [](const Part& p) { return p.origin.part; });
    if (parts.size() != rule.to.size() || std::ranges::count(parts[0].origin.values, -1) != 0)
      throw Error("not all parts of " + name + " are there", "the weight map of the family");
    const WeightSlot& slot = *parts[0].slot;
    const bool vector = slot.role == WeightRole::vector;
    const std::int64_t experts = vector ? 1 : slot.experts;
    std::vector<WeightSourcePtr> sources;
    std::vector<std::int64_t> sizes, starts;
    std::int64_t start = 0;
    for (Part& p : parts) {
      WeightSourcePtr source = std::move(p.values);
      if (vector) source = reshape_source(source, source->rows() * source->cols(), 1);
      starts.push_back(start);
      start += source->rows();
      sizes.push_back(source->rows() / experts);
      sources.push_back(std::move(source));
    }
    const std::int64_t groups = rule.layout.interleaved ? sizes[0] : rule.layout.groups;
    std::vector<std::int64_t> order;
    for (std::int64_t e = 0; e < experts; ++e) {
      for (std::int64_t g = 0; g < groups; ++g) {
        for (std::size_t i = 0; i < sizes.size(); ++i) {
          const std::int64_t n = sizes[i] / groups, first = starts[i] + e * sizes[i] + g * n;
          for (std::int64_t r = 0; r < n; ++r) order.push_back(first + r);
        }
      }
    }
    WeightSourcePtr fused = concat_rows(std::move(sources));
    if (experts > 1 || groups > 1) fused = gather_rows(std::move(fused), std::move(order));
    if (vector) fused = reshape_source(fused, 1, fused->rows());
    add(name, slot, experts, std::move(fused));
  }

  const std::vector<Operation>& operations_;
  std::span<const WeightSlot> slots_;
  const std::function<WeightSourcePtr(const WeightSlot&)>& source_;
  std::string layer_ = "layers.{i}", prefix_;
  std::map<std::string, std::vector<Part>> split_;
  std::vector<HfTensor> tensors_;
};

}  // namespace

std::vector<HfTensor> hf_tensors(const WeightMap& map, std::span<const WeightSlot> slots,
                                 const std::function<WeightSourcePtr(const WeightSlot&)>& source) {
  return Layout(map, slots, source).run();
}

}  // namespace ttt::inline v2::detail
