// linear, matmul, sparse_matmul.
#include "kernels.h"
#include "ttt/hw/choose_kernels.h"

namespace ttt::inline v2::ttnn {

namespace {

void linear(Context& c) {
  const auto& a = c.as<LinearAttributes>();
  const Ref program = c.library().program_config(a.program_config, a.activation);
  const Ref activation = program ? Ref() : c.library().activation(a.activation);
  c.result(c.invoke("linear", {c.tiled(0), c.tiled(1)},
                    {{"bias", c.tiled(2)},
                     {"dtype", c.dtype()},
                     {"memory_config", c.memory()},
                     {"program_config", program},
                     {"activation", activation},
                     {"compute_kernel_config", c.library().compute_kernel_config(a.compute_kernel_config)}}));
}

// TTNN repeats b where all of its leading axes are 1; other axes of extent 1 are repeated here.
Ref repeated(Context& c, Ref x, const Shape& shape, const Shape& out) {
  Shape counts;
  bool any = false;
  for (int i = 0; i < shape.rank(); ++i) {
    const int from_end = i - shape.rank();
    const bool matrix = from_end >= -2;
    const std::int64_t n = matrix || -from_end > out.rank() ? 1 : out[from_end] / shape[i];
    counts.push_back(n);
    any = any || n != 1;
  }
  return any ? c.invoke("repeat", {x, tuple(counts)}) : x;
}

bool single_matrix(const Shape& s) { return s.elements() == s[-1] * s[-2]; }

void matmul(Context& c) {
  const auto& a = c.as<LinearAttributes>();
  Ref x = c.tiled(0), y = c.tiled(1);
  const Shape &xs = c.op().in(0).shape(), &ys = c.op().in(1).shape();
  if (!single_matrix(ys)) {
    x = repeated(c, std::move(x), xs, c.spec().shape);
    y = repeated(c, std::move(y), ys, c.spec().shape);
  }
  c.result(c.invoke("matmul", {x, y},
                    {{"transpose_a", boolean(a.transpose_a)},
                     {"transpose_b", boolean(a.transpose_b)},
                     {"dtype", c.dtype()},
                     {"memory_config", c.memory()},
                     {"compute_kernel_config", c.library().compute_kernel_config(exact)}}));
}

// Every row times every expert that some row was routed to, then each row takes the products of its own.
// Nothing is read back, and the sparsity spares the experts that nobody chose.
void sparse_matmul(Context& c) {
  const Tensor &x = c.op().in(0), &w = c.op().in(1), &indices = c.op().in(2);
  Library& lib = c.library();
  const std::int64_t tokens = indices.dim(2), k = indices.dim(3), experts = w.dim(1), in = w.dim(2),
                     out = w.dim(3);
  const bool shared = x.dim(1) == 1 && x.dim(2) == tokens;
  const std::int64_t per_token = shared ? 1 : k;  // rows of x
  const CoreCoord grid = c.device().grid();
  const std::int64_t chunk = hw::sparse_matmul_tokens(grid, w.dtype(), experts, in, out, tokens, per_token);
  const Ref weight = c.tiled(1);
  const Ref bias =
      c.op().has(3) ? c.typecast(c.reshape(c.tiled(3), {1, experts, 1, out}), DataType::bf16) : Ref();
  const Ref choice = c.typecast(c.row_major(2), DataType::u32);
  const Ref rows_of_x = c.reshape(c.typecast(c.tiled(0), DataType::bf16), {1, 1, tokens * per_token, in});

  std::vector<Ref> parts;
  for (std::int64_t first = 0; first < tokens; first += chunk) {
    const std::int64_t count = std::min(chunk, tokens - first), rows = count * per_token;
    const bool all = count == tokens;
    const Ref chosen =
        all ? choice : c.invoke("slice", {choice, tuple({0, 0, first, 0}), tuple({1, 1, first + count, k})});
    const Ref part = all ? rows_of_x
                         : c.invoke("slice", {rows_of_x, tuple({0, 0, first * per_token, 0}),
                                              tuple({1, 1, (first + count) * per_token, in})});
    const TensorSpec flags{.shape = {1, 1, 1, experts}, .dtype = DataType::bf16, .layout = Layout::row_major};
    const TensorSpec marks{
        .shape = {1, 1, 1, count * k}, .dtype = DataType::bf16, .layout = Layout::row_major};
    // Kept with the weight: nothing is sent while a trace is recorded.
    const auto filled = [&](const char* function, int form, const TensorSpec& spec) {
      return c.form(1, form, [&](const Ref&) {
        return c.invoke(function, {tuple(spec.shape)},
                        {{"dtype", lib.dtype(spec.dtype)},
                         {"layout", lib.layout(spec.layout)},
                         {"device", c.device().handle()}});
      });
    };
    const Ref sparsity =
        c.invoke("scatter", {filled("zeros", no_experts, flags), number(3), c.reshape(chosen, marks.shape),
                             filled("ones", first_choices + static_cast<int>(count * k), marks)});
    Ref y =
        c.invoke("sparse_matmul", {part, weight},
                 {{"sparsity", sparsity},
                  {"program_config", lib.program_config(hw::choose_sparse_matmul(grid, rows, in, out), {})},
                  {"dtype", lib.dtype(DataType::bf16)},
                  {"compute_kernel_config",
                   lib.compute_kernel_config(c.as<LinearAttributes>().compute_kernel_config)}});
    y = c.reshape(std::move(y), {1, experts, rows, out});
    if (bias) y = c.invoke("add", {y, bias});
    y = c.invoke("permute", {y, tuple({0, 2, 1, 3})});  // [1, rows, experts, out]
    const Ref one = c.reshape(c.to_layout(chosen, Layout::tile), {1, rows, k / per_token, 1});
    const Ref index = c.invoke("repeat", {one, tuple({1, 1, 1, out})});
    parts.push_back(c.reshape(c.invoke("gather", {y, number(2), index}), {1, count, k, out}));
  }
  c.result(parts.size() == 1 ? parts.front() : c.invoke("concat", {tuple(parts), number(1)}));
}

}  // namespace

bool supports_matrix(const OpCall& call) {
  const auto& a = call.as<LinearAttributes>();
  switch (call.op) {
    case OpKind::linear:
      return is_float(call.in(0).dtype()) &&
             (a.activation.op == UnaryOp::identity || Library::is_single(a.activation));
    case OpKind::matmul:
      return is_float(call.in(0).dtype()) && is_float(call.in(1).dtype());
    case OpKind::sparse_matmul:
      return call.in(0).dtype() == DataType::bf16 && call.output_specs[0].dtype == DataType::bf16;
    default:
      return false;
  }
}

void run_matrix(Context& c) {
  switch (c.op().op) {
    case OpKind::linear:
      return linear(c);
    case OpKind::matmul:
      return matmul(c);
    default:
      return sparse_matmul(c);
  }
}

}  // namespace ttt::inline v2::ttnn
