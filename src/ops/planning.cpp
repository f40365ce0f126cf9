#include "ttt/ops/planning.h"

#include <algorithm>

#include "ops/experts_used.h"
#include "ttt/base/error.h"
#include "ttt/hw/check.h"
#include "ttt/hw/choose_kernels.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2 {

CallSource::~CallSource() = default;

CallSource& call_source(Backend& backend) {
  auto* source = dynamic_cast<CallSource*>(&backend);
  if (source == nullptr)
    throw Error("a plan of a device that computes", backend.description(), "use the null backend");
  return *source;
}

namespace {

// How much larger n rows become in whole tiles.
double padding(std::int64_t n) {
  return n > 0 ? static_cast<double>((n + tile_size - 1) / tile_size * tile_size) / static_cast<double>(n)
               : 1;
}

bool in_l1(const TensorSpec& spec) { return spec.memory.buffer_type == BufferType::l1; }

}  // namespace

hw::OpWork work(const OpCall& call, const Mesh& mesh) {
  const OpCost counted = cost(call);
  hw::OpWork w{.dram_bytes = static_cast<double>(counted.bytes), .flops = static_cast<double>(counted.flops)};
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i) && in_l1(call.in(i).spec()))
      w.dram_bytes -= static_cast<double>(bytes(call.in(i).spec()));
  }
  for (int i = 0; i < call.outputs_count; ++i) {
    const TensorSpec& out = call.output_specs[static_cast<std::size_t>(i)];
    if (in_l1(out)) w.dram_bytes -= static_cast<double>(bytes(out));
  }
  switch (call.op) {
    case OpKind::linear:
    case OpKind::matmul:
      w.flops *= padding(call.output_specs[0].shape[-2]);
      w.fidelity = call.as<LinearAttributes>().compute_kernel_config.math_fidelity;
      break;
    case OpKind::sparse_matmul: {
      // A card multiplies all rows by every expert that some row chose (docs/hardware.md).
      const Tensor &experts = call.in(1), &indices = call.in(2);
      const std::int64_t rows = call.in(0).shape().rows();
      w.flops = 2 * static_cast<double>(rows) * padding(rows) *
                static_cast<double>(experts_used(indices, experts.dim(1)) * experts.dim(2) * experts.dim(3));
      w.fidelity = call.as<LinearAttributes>().compute_kernel_config.math_fidelity;
      break;
    }
    case OpKind::paged_scaled_dot_product_attention_decode:
    case OpKind::paged_flash_multi_latent_attention_decode:
      w.flops *= padding(std::max<std::int64_t>(call.in(0).dim(2) / call.in(1).dim(1), 1));
      [[fallthrough]];
    case OpKind::scaled_dot_product_attention:
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::chunked_flash_mla_prefill:
      w.attention = true;
      w.fidelity = call.as<AttentionAttributes>().compute_kernel_config.math_fidelity;
      break;
    case OpKind::all_gather:
    case OpKind::reduce_scatter:
    case OpKind::all_reduce: {
      const int n = call.as<AxisAttributes>().mesh_axis == 0 ? mesh.rows : mesh.cols;
      const double whole =
          static_cast<double>(std::max(bytes(call.in(0).spec()), bytes(call.output_specs[0])));
      const int passes = call.op == OpKind::all_reduce ? 2 : 1;  // a reduce_scatter and an all_gather
      w.hops = passes * (n - 1);
      w.link_bytes = passes * whole * (n - 1) / n;
      break;
    }
    default:
      break;
  }
  w.dram_bytes = std::max(w.dram_bytes, 0.0);
  return w;
}

// ---------------------------------------------------------------- what TTNN would refuse

namespace {

bool whole_tiles(std::int64_t n) { return n % tile_size == 0; }

void check_linear(const Sku& sku, const OpCall& call) {
  const auto& a = call.as<LinearAttributes>();
  hw::check_matmul(sku, {.x = call.in(0).spec(),
                         .w = call.in(1).spec(),
                         .y = call.output_specs[0],
                         .program_config = a.program_config,
                         .compute_kernel_config = a.compute_kernel_config});
}

// As the backend divides it: a part of the tokens by every expert, one product.
void check_sparse(const Sku& sku, const OpCall& call) {
  const Tensor &x = call.in(0), &w = call.in(1), &indices = call.in(2);
  if (x.dtype() != DataType::bf16 || call.output_specs[0].dtype != DataType::bf16) return;  // composed
  const std::int64_t tokens = indices.dim(2), in = w.dim(2), out = w.dim(3);
  const std::int64_t per_token = x.dim(1) == 1 && x.dim(2) == tokens ? 1 : indices.dim(3);
  const std::int64_t rows =
      per_token * hw::sparse_matmul_tokens(sku.grid, w.dtype(), w.dim(1), in, out, tokens, per_token);
  const hw::MatmulShape shape{.rows = rows, .in = in, .out = out, .weights = w.dtype()};
  hw::check_l1(sku, hw::matmul_l1_bytes(sku, shape, hw::choose_sparse_matmul(sku.grid, rows, in, out), {}),
               to_string(w.spec()), "divide the experts among more devices");
}

// Kernels take whole tiles of a head, bf16 or block formats, and plain scores; over latents the one for
// prefill takes neither windows nor sinks. The rest is composed.
void check_attention(const Sku& sku, const OpCall& call, bool decode) {
  const auto& a = call.as<AttentionAttributes>();
  const Tensor &q = call.in(0), &k = call.in(1);
  const auto fits = [](DataType t) { return t == DataType::bf16 || is_block_float(t); };
  const bool paged = call.op != OpKind::scaled_dot_product_attention, latent = a.head_dim_v > 0;
  const bool values_fit = latent ? whole_tiles(a.head_dim_v) : k.dim(3) == call.in(2).dim(3);
  if (a.softcap != 0 || a.chunk_size != 0 || call.has(5) || !whole_tiles(q.dim(3)) || !values_fit ||
      !fits(q.dtype()) || !fits(k.dtype()) || (paged && !whole_tiles(k.dim(2))) ||
      !whole_tiles(a.chunk_start) || (latent && !decode && (a.sliding_window_size != 0 || call.has(4))))
    return;
  const SDPAProgramConfig program =
      decode ? a.program_config : hw::chunks_at(a.program_config, a.chunk_start);
  hw::check_attention(sku, {.heads = q.dim(decode ? 2 : 1),
                            .kv_heads = k.dim(1),
                            .head_dim = q.dim(3),
                            .v_head_dim = a.head_dim_v,
                            .queries = decode ? 1 : q.dim(2),
                            .start = a.chunk_start,
                            .block_size = paged ? k.dim(2) : tile_size,
                            .users = decode ? q.dim(1) : 1,
                            .query = q.dtype(),
                            .cache = k.dtype(),
                            .decode = decode,
                            .is_causal = a.is_causal,
                            .latent = latent,
                            .program_config = program});
}

void check_operation(const Sku& sku, const OpCall& call) {
  switch (call.op) {
    case OpKind::linear:
      return check_linear(sku, call);
    case OpKind::sparse_matmul:
      return check_sparse(sku, call);
    case OpKind::scaled_dot_product_attention:
    case OpKind::chunked_scaled_dot_product_attention:
    case OpKind::chunked_flash_mla_prefill:
      return check_attention(sku, call, false);
    case OpKind::paged_scaled_dot_product_attention_decode:
    case OpKind::paged_flash_multi_latent_attention_decode:
      return check_attention(sku, call, true);
    case OpKind::paged_update_cache: {
      const Tensor& x = call.in(1);
      const std::int64_t cores = std::int64_t{sku.grid.x} * sku.grid.y;  // users beyond them go in groups
      return hw::check_cache_update(sku, std::min(x.dim(1), cores), x.dim(2), x.dim(3),
                                    is_block_float(x.dtype()) ? DataType::bf16 : x.dtype());
    }
    default:
      return;
  }
}

}  // namespace

void check(const Sku& sku, const OpCall& call) {
  if (sku.arch == Arch::cpu) return;
  try {
    for (int i = 0; i < OpCall::max_inputs; ++i) {
      if (call.has(i)) hw::check_tensor(sku, call.in(i).spec());
    }
    for (int i = 0; i < call.outputs_count; ++i)
      hw::check_tensor(sku, call.output_specs[static_cast<std::size_t>(i)]);
    check_operation(sku, call);
  } catch (const Error& error) {
    throw Error("[" + std::string(label(call)) + "] " + error.problem(), error.where(), error.fix());
  }
}

}  // namespace ttt::inline v2
