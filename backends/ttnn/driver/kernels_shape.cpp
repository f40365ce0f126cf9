// Shapes, dtypes, placements and collectives.
#include "kernels.h"

namespace ttt::inline v2::ttnn {

namespace {

// Values are tiles, integers rows, as our specs say.
Layout layout_of(const Tensor& t) { return is_float(t.dtype()) ? Layout::tile : Layout::row_major; }

void concat(Context& c) {
  std::vector<Ref> parts;
  for (int i = 0; i < OpCall::max_inputs && c.op().has(i); ++i)
    parts.push_back(c.to_layout(c.operand(i), layout_of(c.op().in(i))));
  c.result(c.invoke("concat", {tuple(parts), number(c.as<AxisAttributes>().axis)},
                    {{"memory_config", c.memory()}}));
}

void slice(Context& c) {
  const auto& a = c.as<AxisAttributes>();
  Shape begin, end = c.op().in(0).shape();
  for (int i = 0; i < end.rank(); ++i) begin.push_back(0);
  begin[a.axis] = a.begin;
  end[a.axis] = a.end;
  c.result(c.invoke("slice", {c.operand(0), tuple(begin), tuple(end)}, {{"memory_config", c.memory()}}));
}

void pad(Context& c) {
  const auto& a = c.as<AxisAttributes>();
  std::vector<Ref> sides;
  for (int i = 0; i < c.op().in(0).shape().rank(); ++i)
    sides.push_back(i == a.axis ? tuple(Shape{a.begin, a.end}) : tuple(Shape{0, 0}));
  // In front TTNN pads rows only.
  const Ref x = a.begin > 0 ? c.row_major(0) : c.tiled(0);
  c.result(c.to_layout(c.invoke("pad", {x, tuple(sides), real(a.value)}), Layout::tile));
}

void permute(Context& c) {
  const auto& a = c.as<AxisAttributes>();
  Shape order;
  for (int i = 0; i < c.op().in(0).shape().rank(); ++i) order.push_back(a.order[static_cast<std::size_t>(i)]);
  c.result(c.invoke("permute", {c.operand(0), tuple(order)}, {{"memory_config", c.memory()}}));
}

void repeat(Context& c) {
  const auto& a = c.as<AxisAttributes>();
  Shape counts;
  for (int i = 0; i < c.op().in(0).shape().rank(); ++i) counts.push_back(i == a.axis ? a.count : 1);
  c.result(c.invoke("repeat", {c.operand(0), tuple(counts)}));
}

void typecast(Context& c) {
  c.result(c.typecast(is_float(c.spec().dtype) ? c.tiled(0) : c.operand(0), c.spec().dtype));
}

void collective(Context& c) {
  const auto& a = c.as<AxisAttributes>();
  const Ref axis = number(a.mesh_axis), topology = c.library().member("Topology.Linear");
  if (c.op().op == OpKind::mesh_partition) {
    // Tiles are cut between tiles, rows anywhere.
    const bool tiles = a.axis < c.spec().shape.rank() - 2 || whole_tiles(c.spec().shape[a.axis]);
    const Ref part = c.invoke("mesh_partition", {tiles ? c.tiled(0) : c.row_major(0), number(a.axis)},
                              {{"cluster_axis", axis}});
    return c.result(c.to_layout(part, Layout::tile));
  }
  const Ref x = c.tiled(0);
  if (c.op().op == OpKind::all_reduce)
    return c.result(c.invoke("all_reduce", {x}, {{"cluster_axis", axis}, {"topology", topology}}));
  c.result(c.invoke(c.op().op == OpKind::all_gather ? "all_gather" : "reduce_scatter", {x, number(a.axis)},
                    {{"cluster_axis", axis}, {"memory_config", c.memory()}, {"topology", topology}}));
}

}  // namespace

bool supports_shape(const OpCall& call) {
  const DataType x = call.in(0).dtype();
  switch (call.op) {
    case OpKind::typecast:
    case OpKind::to_contiguous:
    case OpKind::to_memory_config:
    case OpKind::slice:
      return true;
    case OpKind::all_gather:
      return is_float(x);
    case OpKind::mesh_partition:
      return is_activation(x);
    case OpKind::reduce_scatter: {
      // The last two axes are cut between tiles.
      const auto& a = call.as<AxisAttributes>();
      return is_float(x) &&
             (a.axis < call.in(0).shape().rank() - 2 || whole_tiles(call.output_specs[0].shape[a.axis]));
    }
    case OpKind::all_reduce:
      return is_activation(x);
    case OpKind::pad:
      return is_activation(x);
    default:
      return !is_block_float(x);
  }
}

void run_shape(Context& c) {
  switch (c.op().op) {
    case OpKind::concat:
      return concat(c);
    case OpKind::slice:
      return slice(c);
    case OpKind::pad:
      return pad(c);
    case OpKind::permute:
      return permute(c);
    case OpKind::repeat:
      return repeat(c);
    case OpKind::typecast:
      return typecast(c);
    case OpKind::to_contiguous:
      return c.result(c.operand(0));
    case OpKind::to_memory_config:
      return c.result(c.to_memory_config(c.tiled(0), c.spec().memory));
    default:
      return collective(c);
  }
}

}  // namespace ttt::inline v2::ttnn
