// Matrix products: linear, sparse_matmul (packed weights) and matmul (two activations).
//
// A product is a list of groups, each some rows times one packed matrix. Work is cut over outputs and rows,
// never over the inputs, and every output sums over its inputs in ascending order: a row's result depends
// neither on the number of threads nor on the rows beside it.
#include <algorithm>
#include <cstring>

#include "access.h"

namespace ttt::inline v2::cpu {

namespace {

struct Group {
  const std::uint8_t* weights = nullptr;
  std::int64_t first_row = 0, rows = 0;
  Elements bias{};
  std::int64_t bias_element = 0;
  bool has_bias = false;
};

// Rows of the largest block of any kernel.
constexpr std::int64_t most_block_rows = 32;
constexpr std::int64_t most_direct_panels = 4;

// Sections below this many multiplications run on the calling thread.
constexpr std::int64_t serial_work = 1 << 16;

// Rows of bf16, `distance` values apart.
struct Rows {
  const std::uint16_t* bf16 = nullptr;
  std::int64_t distance = 0;
};

class Product {
 public:
  // `rows`: where all of them lie, if they lie evenly.
  Product(CpuDevice& device, const Packed& p, bool bf16_rows, const Rows& rows = {})
      : device_(device),
        k_(device.kernels()),
        p_(p),
        pairs_(bf16_rows && k_.gemm_dp != nullptr && p.format != Format::f32),
        depth_(p.tiles() * tile_depth) {
    // Whole tiles, pairs at even addresses, and lines that do not crowd in one place of the cache.
    if (p.in == depth_ && rows.distance % 2 == 0 && rows.distance % 2048 != 0 &&
        reinterpret_cast<std::uintptr_t>(rows.bf16) % 4 == 0) {
      rows_ = rows;
    }
  }

  // read(row, to): row's p.in inputs, as float32 or, where `to` is uint16_t* (only asked for when the rows
  // are bf16), as they are. write(row, rows, column, count, const float* values, ld): outputs of neighbouring
  // rows, ld values apart.
  template <class Read, class Write>
  void run(const std::vector<Group>& groups, const Activation& activation, Read&& read, Write&& write) {
    std::int64_t rows = 0, work = 0, most = 0;
    for (const Group& g : groups) {
      rows = std::max(rows, g.first_row + g.rows);
      work += g.rows * p_.out * p_.in;
      most = std::max(most, g.rows);
    }
    if (rows == 0 || p_.out == 0) return;
    const int threads = work < serial_work ? 1 : device_.pool().size();
    prepare(groups, rows, threads, read);

    std::vector<Task>& tasks = tasks_of(groups, threads);
    if (threads > 1) fetch_next(groups[0], tasks[0]);
    const auto count = static_cast<std::int64_t>(tasks.size());
    const auto work_on = [&](int thread, auto claim) {
      Workspace space(*this, thread, most);
      const auto task_at = [&](std::int64_t i) {
        return i < count ? &tasks[static_cast<std::size_t>(i)] : nullptr;
      };
      for (std::int64_t i = claim(); i < count;) {
        const Task* task = task_at(i);
        // The last tasks are for who is free first.
        const bool early = i + 2 * threads < count;
        const std::int64_t following = early ? claim() : count;
        if (task->direct) {
          direct(groups[task->group], *task, activation, write);
        } else {
          blocked(groups, *task, task_at(following), activation, space, write);
        }
        i = early ? following : claim();
      }
    };
    if (threads == 1) {
      work_on(0, [i = std::int64_t{0}]() mutable { return i++; });
    } else {
      device_.pool().claim_each(count, work_on);
    }
  }

 private:
  struct Task {
    std::size_t group = 0;
    bool direct = false;
    std::int64_t panel_begin = 0, panel_end = 0;
    std::int64_t block_begin = 0, block_end = 0;  // of rows, when not direct
  };

  // Workers that wait fetch their first piece of the weights that followed these in the last step.
  void fetch_next(const Group& g, const Task& first) {
    constexpr std::size_t most = 256 << 10;  // of the second-level cache
    const std::size_t stride = static_cast<std::size_t>(first.panel_end) * p_.panel_bytes();
    const WeightOrder::Piece next = device_.weight_order().follow(
        {reinterpret_cast<const std::byte*>(g.weights), stride, std::min(stride, most)});
    device_.pool().fetch_ahead(next.begin, next.stride, next.bytes);
  }

  bool is_direct(const Group& g) const { return g.rows <= k_.direct_rows; }
  std::int64_t direct_panels(const Group& g) const {
    return pairs_ ? most_direct_panels : k_.direct_panels[g.rows];
  }
  std::int64_t block_rows() const { return pairs_ ? k_.pair_rows : k_.gemm_rows; }
  std::int64_t blocks_of(const Group& g) const { return (g.rows + block_rows() - 1) / block_rows(); }
  static std::int64_t block_row(const Group& g, std::int64_t blocks, std::int64_t block) {
    return g.rows * block / blocks;
  }
  // A row as direct kernels read it, or where a block of rows for `gemm` begins.
  float* prepared(std::int64_t row) const {
    return reinterpret_cast<float*>(prepared_ + row * static_cast<std::int64_t>(slot_bytes()));
  }
  // Slots of a multiple of 4,096 bytes would share few lines of the first-level cache.
  std::size_t slot_bytes() const { return static_cast<std::size_t>(depth_) * 4 + (pairs_ ? 64 : 0); }

  // Rows as the kernels read them: direct ones as float32, blocked ones as [input][row] or, under pairs_, as
  // they are, where they lie if they may.
  template <class Read>
  void prepare(const std::vector<Group>& groups, std::int64_t rows, int threads, Read&& read) {
    prepared_ = device_.shared_scratch(static_cast<std::size_t>(rows) * slot_bytes());
    if (pairs_ && rows_.bf16 == nullptr) {
      rows_ = {reinterpret_cast<const std::uint16_t*>(prepared_),
               static_cast<std::int64_t>(slot_bytes() / 2)};
      copied_ = true;
    }
    const auto read_row = [&](std::int64_t row, auto* to) {
      read(row, to);
      if (depth_ > p_.in) std::memset(to + p_.in, 0, static_cast<std::size_t>(depth_ - p_.in) * sizeof *to);
    };
    for (const Group& g : groups) {
      const std::int64_t blocks = blocks_of(g);
      const auto fill = [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t b = begin; b < end; ++b) {
          const std::int64_t first = g.first_row + block_row(g, blocks, b);
          const std::int64_t count = g.first_row + block_row(g, blocks, b + 1) - first;
          if (pairs_) {
            for (std::int64_t r = first; r < first + count; ++r)
              read_row(r, reinterpret_cast<std::uint16_t*>(prepared(r)));
          } else {
            auto* values = reinterpret_cast<float*>(
                device_.scratch(thread, static_cast<std::size_t>(most_block_rows * depth_) * 4));
            for (std::int64_t r = 0; r < count; ++r) read_row(first + r, values + r * depth_);
            k_.interleave(values, depth_, prepared(first), count, depth_);
          }
        }
      };
      if (is_direct(g)) {
        for (std::int64_t r = 0; r < g.rows; ++r) read_row(g.first_row + r, prepared(g.first_row + r));
      } else if (pairs_ && !copied_) {
        continue;
      } else if (threads == 1) {
        fill(0, blocks, 0);
      } else {
        device_.pool().parallel_for(blocks, 1, fill);
      }
    }
  }

  std::vector<Task>& tasks_of(const std::vector<Group>& groups, int threads) {
    thread_local std::vector<Task> tasks;
    tasks.clear();
    const std::int64_t panels = p_.panels();
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const Group& g = groups[i];
      if (g.rows == 0) continue;
      // Enough pieces that a thread that is late does not hold up the others.
      const std::int64_t pieces = groups.size() > 1 ? 2 : 4 * threads;
      if (is_direct(g)) {
        const std::int64_t wide = direct_panels(g);
        std::int64_t step = threads == 1 ? panels : (panels + pieces - 1) / pieces;
        if (step > wide) step = round_up(step, wide);
        for (std::int64_t at = 0; at < panels; at += step) {
          tasks.push_back(
              {.group = i, .direct = true, .panel_begin = at, .panel_end = std::min(at + step, panels)});
        }
        continue;
      }
      const std::int64_t blocks = blocks_of(g);
      const std::int64_t parts =
          threads == 1 ? 1 : std::min(blocks, std::max<std::int64_t>(1, (pieces + panels - 1) / panels));
      for (std::int64_t at = 0; at < panels; ++at) {
        for (std::int64_t part = 0; part < parts; ++part) {
          tasks.push_back({.group = i,
                           .direct = false,
                           .panel_begin = at,
                           .panel_end = at + 1,
                           .block_begin = blocks * part / parts,
                           .block_end = blocks * (part + 1) / parts});
        }
      }
    }
    return tasks;
  }

  template <class Write>
  void finish(const Group& g, const Activation& activation, std::int64_t row, std::int64_t rows,
              std::int64_t column, std::int64_t width, float* values, std::int64_t ld, Write&& write) const {
    if (g.has_bias) {
      alignas(64) float bias[most_direct_panels * panel_width];
      load_values(k_, g.bias, g.bias_element + column, 1, width, bias);
      for (std::int64_t r = 0; r < rows; ++r)
        k_.binary(Fn2::add, values + r * ld, bias, values + r * ld, width);
    }
    if (activation.op != UnaryOp::identity) {
      for (std::int64_t r = 0; r < rows; ++r)
        k_.unary(static_cast<Fn>(activation.op), activation.a, activation.b, values + r * ld, values + r * ld,
                 width);
    }
    write(g.first_row + row, rows, column, width, values, ld);
  }

  template <class Write>
  void direct(const Group& g, const Task& task, const Activation& activation, Write&& write) const {
    constexpr int most_rows = 8;
    alignas(64) float c[most_rows * most_direct_panels * panel_width];
    const auto format = static_cast<std::size_t>(p_.format);
    const auto kernel = pairs_ ? k_.direct_dp[format] : k_.direct[format];
    const float* x = prepared(g.first_row);
    const auto ldx = static_cast<std::int64_t>(slot_bytes() / 4);
    const std::int64_t wide = direct_panels(g);
    for (std::int64_t panel = task.panel_begin; panel < task.panel_end; panel += wide) {
      const std::int64_t count = std::min(wide, task.panel_end - panel), column = panel * panel_width;
      const std::int64_t ldc = count * panel_width, width = std::min(ldc, p_.out - column);
      const std::uint8_t* w = g.weights + static_cast<std::size_t>(panel) * p_.panel_bytes();
      kernel(static_cast<int>(g.rows), static_cast<int>(count), x, ldx, w, p_.panel_bytes(), p_.tiles(), c,
             ldc);
      finish(g, activation, 0, g.rows, column, width, c, ldc, write);
    }
  }

  // Memory of a thread. Panels are expanded in pieces of some tiles, which stay in the first-level cache; the
  // sums wait in memory between the pieces.
  struct Workspace {
    Workspace(const Product& product, int thread, std::int64_t most_rows) {
      const Packed& p = product.p_;
      const auto format = static_cast<std::size_t>(p.format);
      as_stored = product.pairs_ ? p.format == Format::bf16 : p.format == Format::f32;
      with_next = product.pairs_ && product.k_.gemm_dp_expand[format] != nullptr;
      const std::int64_t most = as_stored ? p.tiles() : product.pairs_ ? product.k_.pair_tiles : 4;
      pieces = (p.tiles() + most - 1) / most;
      step = (p.tiles() + pieces - 1) / pieces;
      const std::size_t tile_values_bytes = tile_depth * panel_width * (product.pairs_ ? 2 : 4);
      const std::size_t piece_bytes = as_stored ? 0 : static_cast<std::size_t>(step) * tile_values_bytes;
      const std::int64_t sums_rows = std::max(pieces > 1 ? most_rows : 0, most_block_rows);
      expanded = product.device_.scratch(
          thread, 2 * piece_bytes + static_cast<std::size_t>(sums_rows) * panel_width * 4);
      expanded_next = with_next ? expanded + piece_bytes : expanded;
      sums = reinterpret_cast<float*>(expanded + 2 * piece_bytes);
    }
    bool as_stored = false, with_next = false;
    std::int64_t pieces = 1, step = 0;  // of a panel, tiles of a piece
    std::byte *expanded = nullptr, *expanded_next = nullptr;
    float* sums = nullptr;
    bool ready = false;  // the next piece is expanded already
  };

  struct Piece {
    std::int64_t tile = 0, tiles = 0;
    const std::uint8_t* weights = nullptr;
  };
  Piece piece_of(const Workspace& space, const Group& g, const Task& task, std::int64_t i) const {
    const std::int64_t tile = i * space.step;
    return {tile, std::min(space.step, p_.tiles() - tile),
            g.weights + static_cast<std::size_t>(task.panel_begin) * p_.panel_bytes() +
                static_cast<std::size_t>(tile) * packed_tile_bytes(p_.format)};
  }

  // The rows of a task times its panel. What the thread does next is expanded beside the products, where
  // there is a kernel for that.
  template <class Write>
  void blocked(const std::vector<Group>& groups, const Task& task, const Task* next_task,
               const Activation& activation, Workspace& space, Write&& write) const {
    const Group& g = groups[task.group];
    const auto format = static_cast<std::size_t>(p_.format);
    const std::int64_t blocks = blocks_of(g), parts = task.block_end - task.block_begin;
    const std::int64_t first = block_row(g, blocks, task.block_begin);
    const std::int64_t column = task.panel_begin * panel_width;
    const std::int64_t width = std::min<std::int64_t>(panel_width, p_.out - column);

    for (std::int64_t i = 0; i < space.pieces; ++i) {
      const Piece piece = piece_of(space, g, task, i);
      Piece next;
      if (space.with_next && i + 1 < space.pieces) {
        next = piece_of(space, g, task, i + 1);
      } else if (space.with_next && next_task != nullptr && !next_task->direct) {
        next = piece_of(space, groups[next_task->group], *next_task, 0);
      }
      if (!space.as_stored && !space.ready) {
        if (pairs_) {
          k_.expand_dp[format](piece.weights, piece.tiles, reinterpret_cast<std::uint16_t*>(space.expanded));
        } else {
          k_.expand[format](piece.weights, piece.tiles, reinterpret_cast<float*>(space.expanded));
        }
      }
      const void* matrix = space.as_stored ? static_cast<const void*>(piece.weights) : space.expanded;
      const bool onto = piece.tile > 0;
      for (std::int64_t part = 0; part < parts; ++part) {
        const std::int64_t b = task.block_begin + part;
        const std::int64_t row = block_row(g, blocks, b), n = block_row(g, blocks, b + 1) - row;
        float* c = space.pieces > 1 ? space.sums + (row - first) * panel_width : space.sums;
        if (pairs_) {
          const std::int64_t pairs = piece.tiles * (tile_depth / 2), ldx = rows_.distance / 2;
          const auto* x = reinterpret_cast<const std::uint32_t*>(
              rows_.bf16 + (g.first_row + row) * rows_.distance + piece.tile * tile_depth);
          const auto* weights = static_cast<const std::uint16_t*>(matrix);
          if (part == 0 && next.tiles > 0) {
            k_.gemm_dp_expand[format](static_cast<int>(n), x, ldx, weights, pairs, c, panel_width, onto,
                                      next.weights, next.tiles,
                                      reinterpret_cast<std::uint16_t*>(space.expanded_next));
          } else {
            k_.gemm_dp(static_cast<int>(n), x, ldx, weights, pairs, c, panel_width, onto);
          }
        } else {
          k_.gemm(static_cast<int>(n), prepared(g.first_row + row) + piece.tile * tile_depth * n,
                  static_cast<const float*>(matrix), panel_width, piece.tiles * tile_depth, c, panel_width,
                  onto);
        }
        if (i + 1 == space.pieces) finish(g, activation, row, n, column, width, c, panel_width, write);
      }
      space.ready = next.tiles > 0;
      std::swap(space.expanded, space.expanded_next);
    }
  }

  CpuDevice& device_;
  const Kernels& k_;
  const Packed& p_;
  bool pairs_;
  std::int64_t depth_;  // inputs, padded to whole tiles
  Rows rows_;
  bool copied_ = false;  // rows_ is in prepared_
  std::byte* prepared_ = nullptr;
};

void load_row(const Kernels& k, const Elements& from, std::int64_t element, std::int64_t n, float* to) {
  load_values(k, from, element, 1, n, to);
}
void load_row(const Kernels&, const Elements& from, std::int64_t element, std::int64_t n, std::uint16_t* to) {
  std::memcpy(to, from.at(element), static_cast<std::size_t>(n) * sizeof *to);
}

}  // namespace

void run_linear(CpuDevice& device, OpCall& call) {
  if (!is_packed(call.in(1))) return run_matmul(device, call);
  const Tensor &x = call.in(0), &w = call.in(1);
  const Packed& p = cpu_buffer(w).packed();
  const Tensor y = device.allocate(call.output_specs[0]);
  const Elements from(x), to(y);
  const IndexSpace rows(x.shape(), {x.strides()}, true);
  thread_local std::vector<Group> groups(1);
  // One matrix (one expert of a stack is a view at a multiple of its size), or one for each batch of x.
  const std::int64_t matrices = w.shape().elements() / (p.in * p.out);
  const std::int64_t first = p.experts == 1 ? 0 : w.offset() / (p.in * p.out);
  groups.clear();
  for (std::int64_t i = 0; i < matrices; ++i)
    groups.push_back({.weights = reinterpret_cast<const std::uint8_t*>(cpu_buffer(w).raw()) +
                                 static_cast<std::size_t>(first + i) * p.expert_bytes(),
                      .first_row = rows.outer() / matrices * i,
                      .rows = rows.outer() / matrices});
  if (call.has(2)) {
    groups[0].bias = Elements(call.in(2));
    groups[0].has_bias = true;
  }
  const Kernels& k = device.kernels();
  const bool bf16 = x.dtype() == DataType::bf16;
  const std::int64_t distance = row_stride(x);
  Product product(
      device, p, bf16,
      bf16 && distance >= 0 ? Rows{reinterpret_cast<const std::uint16_t*>(from.at(0)), distance} : Rows{});
  product.run(
      groups, call.as<LinearAttributes>().activation,
      [&](std::int64_t row, auto* values) {
        std::int64_t at = 0;
        rows.begin(row, &at);
        load_row(k, from, at, p.in, values);
      },
      [&](std::int64_t row, std::int64_t count, std::int64_t column, std::int64_t n, const float* values,
          std::int64_t ld) {
        if (to.dtype == DataType::bf16) {
          k.f32_to_bf16_rows(values, ld, reinterpret_cast<std::uint16_t*>(to.at(row * p.out + column)), p.out,
                             count, n);
          return;
        }
        for (std::int64_t r = 0; r < count; ++r)
          store_values(k, values + r * ld, to, (row + r) * p.out + column, n);
      });
  call.outputs[0] = y;
}

void run_sparse_matmul(CpuDevice& device, OpCall& call) {
  const Tensor &x = call.in(0), &w = call.in(1), &indices = call.in(2);
  const Packed& p = cpu_buffer(w).packed();
  const Tensor y = device.allocate(call.output_specs[0]);
  const Kernels& k = device.kernels();
  const std::int64_t tokens = indices.dim(-2), choices = indices.dim(-1), pairs = tokens * choices;
  const bool shared = x.dim(-3) == 1 && x.dim(-2) == tokens;  // else an input per choice
  const Elements from(x), from_indices(indices), to(y);

  // Rows sorted by expert, so that each expert's weights are read once. Kept between calls; named through a
  // reference, or every worker would see its own.
  struct Sorting {
    std::vector<std::int64_t> count, next, order, expert_of;
    std::vector<Group> groups;
  };
  thread_local Sorting kept_sorting;
  auto& [count, next, order, expert_of, groups] = kept_sorting;
  count.assign(static_cast<std::size_t>(p.experts) + 1, 0), next.resize(count.size());
  order.resize(static_cast<std::size_t>(pairs)), expert_of.resize(order.size());
  groups.clear();
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t element = i / choices * indices.strides()[-2] + i % choices * indices.strides()[-1];
    const std::int64_t expert = load_index(from_indices, element);
    const bool inside = expert >= 0 && expert < p.experts;
    expert_of[static_cast<std::size_t>(i)] = inside ? expert : p.experts;
    ++count[static_cast<std::size_t>(inside ? expert : p.experts)];
    kept += inside;
  }
  std::int64_t first = 0;
  for (std::int64_t e = 0; e <= p.experts; ++e) {
    const std::int64_t rows = count[static_cast<std::size_t>(e)];
    next[static_cast<std::size_t>(e)] = first;
    if (e < p.experts && rows > 0) {
      Group g{.weights = reinterpret_cast<const std::uint8_t*>(cpu_buffer(w).raw()) +
                         static_cast<std::size_t>(e) * p.expert_bytes(),
              .first_row = first,
              .rows = rows};
      if (call.has(3)) {
        g.bias = Elements(call.in(3));
        g.bias_element = e * call.in(3).strides()[-2];
        g.has_bias = true;
      }
      groups.push_back(g);
    }
    first += rows;
  }
  for (std::int64_t i = 0; i < pairs; ++i) {
    order[static_cast<std::size_t>(
        next[static_cast<std::size_t>(expert_of[static_cast<std::size_t>(i)])]++)] = i;
  }
  for (std::int64_t r = kept; r < pairs; ++r) {  // no expert: zeros
    std::memset(to.at(order[static_cast<std::size_t>(r)] * p.out), 0,
                static_cast<std::size_t>(p.out) * bytes_of(y.dtype()));
  }
  const std::vector<std::int64_t>& rows = kept_sorting.order;
  Product product(device, p, x.dtype() == DataType::bf16);
  product.run(
      groups, Activation{},
      [&](std::int64_t row, auto* values) {
        const std::int64_t pair = rows[static_cast<std::size_t>(row)], token = pair / choices,
                           choice = pair % choices;
        const std::int64_t element =
            shared ? token * x.strides()[-2] : token * x.strides()[-3] + choice * x.strides()[-2];
        load_row(k, from, element, p.in, values);
      },
      [&](std::int64_t row, std::int64_t together, std::int64_t column, std::int64_t n, const float* values,
          std::int64_t ld) {
        for (std::int64_t r = 0; r < together; ++r)
          store_values(k, values + r * ld, to, rows[static_cast<std::size_t>(row + r)] * p.out + column, n);
      });
  call.outputs[0] = y;
}

void run_matmul(CpuDevice& device, OpCall& call) {
  const auto& attributes = call.as<LinearAttributes>();
  const Tensor a = attributes.transpose_a ? call.in(0).swap_axes(-1, -2) : call.in(0);
  const Tensor b = attributes.transpose_b ? call.in(1).swap_axes(-1, -2) : call.in(1);
  const Tensor y = device.allocate(call.output_specs[0]);
  const Kernels& k = device.kernels();
  const std::int64_t m = y.dim(-2), n = y.dim(-1), depth = a.dim(-1);
  Shape batch = y.shape();
  batch[-1] = batch[-2] = 1;
  const auto batch_strides = [&](const Tensor& t) {
    Shape s = broadcast_strides(t, y.shape());
    s[s.rank() - 1] = s[s.rank() - 2] = 0;
    return s;
  };
  const IndexSpace batches(batch, {y.strides(), batch_strides(a), batch_strides(b)});
  const std::int64_t count = batch.elements();
  const Elements from_a(a), from_b(b), to(y);
  const bool has_bias = call.op == OpKind::linear && call.has(2);
  const Elements from_bias = has_bias ? Elements(call.in(2)) : Elements();
  const std::int64_t panels = round_up(n, panel_width) / panel_width;
  const std::int64_t rows_of = k.gemm_rows;
  const auto work_on = [&](std::int64_t begin, std::int64_t end, int thread) {
    const auto size = static_cast<std::size_t>(depth);
    auto* w = reinterpret_cast<float*>(device.scratch(
        thread, (size * panel_width + size * static_cast<std::size_t>(rows_of + 16)) * 4 + 256));
    float* x = w + depth * panel_width;
    float* x_rows = x + depth * rows_of;
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t at[3] = {0, 0, 0};
      // The batch axes may have merged into runs; an element index is what begin() of a run plus a step
      // inside it says.
      const std::int64_t index = i / panels;
      batches.begin(index / batches.inner(), at);
      for (int operand = 0; operand < 3; ++operand)
        at[operand] += index % batches.inner() * batches.stride(operand);
      const std::int64_t column = i % panels * panel_width,
                         width = std::min<std::int64_t>(panel_width, n - column);
      for (std::int64_t d = 0; d < depth; ++d) {
        float* row = w + d * panel_width;
        load_values(k, from_b, at[2] + d * b.strides()[-2] + column * b.strides()[-1], b.strides()[-1], width,
                    row);
        for (std::int64_t j = width; j < panel_width; ++j) row[j] = 0;
      }
      alignas(64) float bias[panel_width];
      if (has_bias) load_values(k, from_bias, column, 1, width, bias);
      for (std::int64_t r = 0; r < m; r += rows_of) {
        const std::int64_t rows = std::min(rows_of, m - r);
        for (std::int64_t j = 0; j < rows; ++j) {
          load_values(k, from_a, at[1] + (r + j) * a.strides()[-2], a.strides()[-1], depth,
                      x_rows + j * depth);
        }
        k.interleave(x_rows, depth, x, rows, depth);
        alignas(64) float c[16 * panel_width];
        k.gemm(static_cast<int>(rows), x, w, panel_width, depth, c, panel_width, false);
        for (std::int64_t j = 0; j < rows; ++j) {
          float* values = c + j * panel_width;
          if (has_bias) k.binary(Fn2::add, values, bias, values, width);
          if (attributes.activation.op != UnaryOp::identity) {
            k.unary(static_cast<Fn>(attributes.activation.op), attributes.activation.a,
                    attributes.activation.b, values, values, width);
          }
          store_values(k, values, to, at[0] + (r + j) * n + column, width);
        }
      }
    }
  };
  if (m > 0 && n > 0) for_each_piece(device, count * panels, m * depth, work_on);
  call.outputs[0] = y;
}

}  // namespace ttt::inline v2::cpu
