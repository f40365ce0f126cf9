#include "ttt/hw/check.h"

#include <algorithm>

#include "ttt/base/error.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2::hw {

namespace {

std::string str(std::int64_t n) { return std::to_string(n); }
std::string str(CoreCoord c) { return str(c.x) + "x" + str(c.y); }
std::int64_t tiles(std::int64_t n) { return (n + tile_size - 1) / tile_size; }
std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

[[noreturn]] void refuse(const std::string& what, const std::string& where, const std::string& fix) {
  throw Error(what, where, fix);
}

std::size_t tile_bytes_of(DataType t) {
  return is_block_float(t) ? tile_bytes(t) : std::size_t{tile_size} * tile_size * element_size(t);
}

// The tensor as rows and columns, padded to tiles where it is tiled.
struct Extent {
  std::int64_t rows, cols;
};
Extent extent(const TensorSpec& spec) {
  const Shape& s = spec.shape;
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < s.rank(); ++i) {
    const bool last = i + 2 == s.rank();
    rows *= last && spec.layout == Layout::tile ? tiles(s[i]) * tile_size : s[i];
  }
  const std::int64_t cols = s.rank() > 0 ? s[-1] : 1;
  return {rows, spec.layout == Layout::tile ? tiles(cols) * tile_size : cols};
}

std::size_t bytes_of(std::int64_t rows, std::int64_t cols, const TensorSpec& spec) {
  if (spec.layout == Layout::tile)
    return static_cast<std::size_t>(tiles(rows) * tiles(cols)) * tile_bytes_of(spec.dtype);
  return static_cast<std::size_t>(rows * cols) * element_size(spec.dtype);
}

void check_shards(const Sku& sku, const TensorSpec& spec, const std::string& where) {
  const MemoryConfig& memory = spec.memory;
  const ShardSpec& shard = *memory.shard_spec;
  const CoreRange& cores = shard.grid;
  if (cores.start.x < 0 || cores.start.y < 0 || cores.end.x < cores.start.x || cores.end.y < cores.start.y)
    refuse("the shards' cores end before they begin", where, "write the first and the last core");
  if (memory.buffer_type == BufferType::dram) {
    if (cores.end.y > 0 || cores.end.x >= sku.dram_banks)
      refuse("shards over bank " + str(cores.end.x), where,
             std::string(sku.name) + " has " + str(sku.dram_banks) + " DRAM banks: use dram_sharded()");
  } else if (cores.end.x >= sku.grid.x || cores.end.y >= sku.grid.y) {
    refuse("shards on core " + str(cores.end.x) + "," + str(cores.end.y), where,
           std::string(sku.name) + " has a grid of " + str(sku.grid));
  }
  if (shard.height < 1 || shard.width < 1) refuse("empty shards", where, "a shard has at least one tile");
  if (spec.layout == Layout::tile && shard.height % tile_size != 0)
    refuse("shards of " + str(shard.height) + " rows", where, "round them up to a multiple of 32");
  if (spec.layout == Layout::tile && shard.width % tile_size != 0)
    refuse("shards of " + str(shard.width) + " columns", where, "round them up to a multiple of 32");
  const Extent e = extent(spec);
  const std::int64_t down = ceil_div(e.rows, shard.height), across = ceil_div(e.cols, shard.width);
  const std::int64_t width = cores.end.x - cores.start.x + 1, height = cores.end.y - cores.start.y + 1;
  switch (memory.memory_layout) {
    case TensorMemoryLayout::height_sharded:
      if (across > 1)
        refuse("height shards of " + str(shard.width) + " columns for a tensor of " + str(e.cols), where,
               "a height shard is as wide as the tensor");
      if (down > cores.cores())
        refuse(str(down) + " height shards on " + str(cores.cores()) + " cores", where,
               "use more cores or higher shards");
      break;
    case TensorMemoryLayout::width_sharded:
      if (down > 1)
        refuse("width shards of " + str(shard.height) + " rows for a tensor of " + str(e.rows), where,
               "a width shard is as high as the tensor");
      if (across > cores.cores())
        refuse(str(across) + " width shards on " + str(cores.cores()) + " cores", where,
               "use more cores or wider shards");
      break;
    default:
      if (down > height || across > width)
        refuse(str(across) + "x" + str(down) + " block shards on " +
                   str(CoreCoord{static_cast<int>(width), static_cast<int>(height)}) + " cores",
               where, "use more cores or larger shards");
      break;
  }
}

void check_destination(int h, int w, const ComputeKernelConfig& compute, const std::string& where) {
  const int most = compute.fp32_dest_acc_en ? 4 : 8;
  if (h < 1 || w < 1) refuse("an empty output sub-block", where, "use at least one tile");
  if (h * w > most)
    refuse("an output sub-block of " + str(h) + "x" + str(w) + " tiles", where,
           "the destination registers hold " + str(most) + (compute.fp32_dest_acc_en ? " of float32" : ""));
}

// What the 1D and the 2D config have in common.
template <class Config>
void check_blocks(const Sku& sku, const Config& c, std::int64_t k, const ComputeKernelConfig& compute,
                  const std::string& where) {
  const CoreCoord grid = c.compute_with_storage_grid_size;
  if (grid.x < 1 || grid.y < 1 || grid.x > sku.grid.x || grid.y > sku.grid.y)
    refuse("a compute grid of " + str(grid), where, std::string(sku.name) + " has " + str(sku.grid));
  if (c.per_core_M < 1 || c.per_core_N < 1)
    refuse("no tiles per core", where, "set per_core_M and per_core_N");
  if (c.in0_block_w < 1 || k % c.in0_block_w != 0)
    refuse("in0_block_w " + str(c.in0_block_w) + " does not divide the " + str(k) + " inner tiles", where,
           "use a divisor");
  const int h = c.out_block_h > 0 ? c.out_block_h : c.per_core_M,
            w = c.out_block_w > 0 ? c.out_block_w : c.per_core_N;
  if (c.per_core_M % h != 0 || c.per_core_N % w != 0)
    refuse("an output block of " + str(h) + "x" + str(w) + " tiles does not divide a core's " +
               str(c.per_core_M) + "x" + str(c.per_core_N),
           where, "use divisors");
  check_destination(c.out_subblock_h, c.out_subblock_w, compute, where);
  if (h % c.out_subblock_h != 0)
    refuse("out_subblock_h " + str(c.out_subblock_h) + " does not divide the block's " + str(h) +
               " rows of tiles",
           where, "use a divisor");
  if (w % c.out_subblock_w != 0)
    refuse("out_subblock_w " + str(c.out_subblock_w) + " does not divide the block's " + str(w) +
               " columns of tiles",
           where, "use a divisor");
}

std::string mebibytes(std::size_t bytes) { return str(static_cast<std::int64_t>(bytes >> 20)); }

// What is placed as one piece: a tile, or a row.
std::size_t page_bytes(const TensorSpec& spec, const Extent& e) {
  const std::size_t page =
      spec.layout == Layout::tile ? tile_bytes_of(spec.dtype) : bytes_of(1, e.cols, spec);
  return std::max<std::size_t>(page, 1);
}

// What the fullest of `places` holds of an interleaved tensor.
std::size_t pages_on_one(const TensorSpec& spec, std::size_t places) {
  const Extent e = extent(spec);
  const std::size_t page = page_bytes(spec, e), pages = (bytes_of(e.rows, e.cols, spec) + page - 1) / page;
  return (pages + places - 1) / places * page;
}

std::size_t shard_bytes(const TensorSpec& spec) {
  return spec.memory.shard_spec
             ? bytes_of(spec.memory.shard_spec->height, spec.memory.shard_spec->width, spec)
             : 0;
}

}  // namespace

std::size_t l1_core_bytes(const Sku& sku, const TensorSpec& spec) {
  if (spec.memory.buffer_type != BufferType::l1) return 0;
  if (spec.memory.shard_spec) return shard_bytes(spec);
  const auto cores = static_cast<std::size_t>(sku.grid.x) * static_cast<std::size_t>(sku.grid.y);
  return pages_on_one(spec, cores);
}

// Pages go to the banks in turn, and shards one to a bank.
std::size_t dram_bank_bytes(const Sku& sku, const TensorSpec& spec) {
  if (spec.memory.buffer_type != BufferType::dram) return 0;
  if (spec.memory.shard_spec) return shard_bytes(spec);
  return pages_on_one(spec, static_cast<std::size_t>(std::max(sku.dram_banks, 1)));
}

void check_l1(const Sku& sku, std::size_t bytes, const std::string& where, const std::string& fix) {
  const std::size_t usable = usable_l1_bytes(sku);
  if (bytes <= usable) return;
  refuse("needs " + str(static_cast<std::int64_t>(bytes)) + " bytes of L1 on a core", where,
         "there are " + str(static_cast<std::int64_t>(usable)) + ": " + fix);
}

void check_tensor(const Sku& sku, const TensorSpec& spec) {
  const std::string where = to_string(spec);
  if (is_block_float(spec.dtype) && spec.layout == Layout::row_major)
    refuse("a block format in rows", where, "block formats exist in tiles only: use Layout::tile");
  const bool is_sharded = spec.memory.memory_layout != TensorMemoryLayout::interleaved;
  if (is_sharded && !spec.memory.shard_spec)
    refuse("a sharded placement without shards", where, "set shard_spec");
  if (!is_sharded && spec.memory.shard_spec)
    refuse("an interleaved placement with shards", where, "unset shard_spec");
  if (is_sharded) check_shards(sku, spec, where);
  if (spec.memory.buffer_type == BufferType::l1)
    return check_l1(sku, l1_core_bytes(sku, spec), where, "use DRAM or more cores");
  if (sku.dram_banks == 0) return;
  const std::size_t fullest = dram_bank_bytes(sku, spec);
  if (const std::size_t bank = usable_dram_bytes(sku) / static_cast<std::size_t>(sku.dram_banks);
      fullest > bank)
    refuse("needs " + mebibytes(fullest) + " MiB of each DRAM bank", where,
           std::string(sku.name) + " has " + mebibytes(bank) +
               " MiB per bank: use a smaller dtype or more devices");
}

void check_matmul(const Sku& sku, const MatmulCheck& check) {
  const TensorSpec &x = check.x, &w = check.w, &y = check.y;
  const std::string where = to_string(check.program_config);
  for (const TensorSpec* spec : {&x, &w, &y}) {
    if (spec->layout != Layout::tile)
      refuse("a matrix product of rows", to_string(*spec), "use Layout::tile");
    if (!is_float(spec->dtype))
      refuse("a matrix product of integers", to_string(*spec), "use a floating-point dtype");
    check_tensor(sku, *spec);
  }
  if (x.shape.rank() < 2 || w.shape.rank() < 2 || x.shape[-1] != w.shape[-2])
    refuse("x has " + str(x.shape[-1]) + " columns, w " + str(w.shape[-2]) + " rows", where,
           "the inner dimensions are equal");
  if (y.shape[-1] != w.shape[-1])
    refuse("the result has " + str(y.shape[-1]) + " columns, w " + str(w.shape[-1]), where,
           "the result is as wide as w");
  const std::int64_t rows = x.shape.elements() / x.shape[-1];
  const std::int64_t m = tiles(rows), k = tiles(x.shape[-1]), n = tiles(w.shape[-1]);

  if (const auto* c = std::get_if<MatmulMultiCoreReuseMultiCastProgramConfig>(&check.program_config)) {
    check_blocks(sku, *c, k, check.compute_kernel_config, where);
    const CoreCoord grid = c->compute_with_storage_grid_size;
    const std::int64_t across = c->transpose_mcast ? grid.y : grid.x,
                       down = c->transpose_mcast ? grid.x : grid.y;
    if (c->per_core_M * down < m)
      refuse("per_core_M " + str(c->per_core_M) + " on " + str(down) + " rows of cores covers " +
                 str(c->per_core_M * down) + " of " + str(m) + " rows of tiles",
             where, "raise per_core_M to " + str(ceil_div(m, down)));
    if (c->per_core_M > m || c->per_core_N > n)
      refuse("a core makes " + str(c->per_core_M) + "x" + str(c->per_core_N) + " tiles, the product has " +
                 str(m) + "x" + str(n),
             where, "lower per_core_M or per_core_N");
    if (c->per_core_N * across < n)
      refuse("per_core_N " + str(c->per_core_N) + " on " + str(across) + " columns of cores covers " +
                 str(c->per_core_N * across) + " of " + str(n) + " columns of tiles",
             where, "raise per_core_N to " + str(ceil_div(n, across)));
  } else if (const auto* one =
                 std::get_if<MatmulMultiCoreReuseMultiCast1DProgramConfig>(&check.program_config)) {
    check_blocks(sku, *one, k, check.compute_kernel_config, where);
    const CoreCoord grid = one->compute_with_storage_grid_size;
    const std::int64_t cores = std::int64_t{grid.x} * grid.y;
    const std::int64_t whole = one->mcast_in0 ? m : n,
                       whole_per_core = one->mcast_in0 ? one->per_core_M : one->per_core_N;
    const std::int64_t split = one->mcast_in0 ? n : m,
                       split_per_core = one->mcast_in0 ? one->per_core_N : one->per_core_M;
    if (whole_per_core != whole)
      refuse(std::string(one->mcast_in0 ? "per_core_M " : "per_core_N ") + str(whole_per_core) + " of " +
                 str(whole) + " tiles that every core makes",
             where, "set it to " + str(whole));
    if (split_per_core * cores < split)
      refuse(str(split_per_core) + " tiles on each of " + str(cores) + " cores cover " +
                 str(split_per_core * cores) + " of " + str(split),
             where, "raise it to " + str(ceil_div(split, cores)));
  } else if (const auto* d =
                 std::get_if<MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>(&check.program_config)) {
    if (!is_dram_sharded(w.memory))
      refuse("the weight is " + to_string(w.memory), where, "shard it over the DRAM banks: dram_sharded()");
    if (x.memory.buffer_type != BufferType::l1 || x.memory.memory_layout != TensorMemoryLayout::width_sharded)
      refuse("x is " + to_string(x.memory), where, "shard its columns over cores in L1: width_sharded()");
    if (y.memory.buffer_type != BufferType::l1 || y.memory.memory_layout != TensorMemoryLayout::width_sharded)
      refuse("the product is " + to_string(y.memory), where, "it is left width-sharded in L1");
    if (d->per_core_M != m)
      refuse("per_core_M " + str(d->per_core_M) + " for " + str(m) + " rows of tiles", where,
             m == 1 ? "set it to 1" : "use another config for more than 32 rows");
    const int shard = x.memory.shard_spec->width / tile_size;
    if (d->in0_block_w < 1 || shard % d->in0_block_w != 0)
      refuse("in0_block_w " + str(d->in0_block_w) + " does not divide the " + str(shard) +
                 " tiles of a shard of x",
             where, "use a divisor");
    const int cores = x.memory.shard_spec->grid.cores();
    if (std::int64_t{d->per_core_N} * cores < n)
      refuse("per_core_N " + str(d->per_core_N) + " on " + str(cores) + " cores covers " +
                 str(std::int64_t{d->per_core_N} * cores) + " of " + str(n) + " columns of tiles",
             where, "raise it to " + str(ceil_div(n, cores)));
  } else {
    return;  // TTNN chooses what fits
  }
  if (is_dram_sharded(x.memory))
    refuse("x is " + to_string(x.memory), where, "only weights are sharded over DRAM banks");
  const MatmulShape shape{rows, x.shape[-1], w.shape[-1], w.dtype, x.dtype, y.dtype};
  const std::size_t needed = matmul_l1_bytes(sku, shape, check.program_config, check.compute_kernel_config) +
                             l1_core_bytes(sku, x) + l1_core_bytes(sku, y);
  check_l1(sku, needed, where, "use smaller blocks, or keep x and the product in DRAM");
}

void check_attention(const Sku& sku, const AttentionCheck& a) {
  const std::string where = str(a.heads) + " heads, " + str(a.kv_heads) + " kv heads of " + str(a.head_dim);
  if (a.heads < 1 || a.kv_heads < 1 || a.heads % a.kv_heads != 0)
    refuse("query heads are no multiple of key heads", where,
           "every key head serves equally many query heads");
  if (a.head_dim % tile_size != 0)
    refuse("a head of " + str(a.head_dim) + " dimensions", where,
           "TTNN takes multiples of 32: compose attention");
  if (a.latent && (a.v_head_dim < 1 || a.v_head_dim > a.head_dim || a.v_head_dim % tile_size != 0))
    refuse("values of " + str(a.v_head_dim) + " of the keys' " + str(a.head_dim) + " columns", where,
           "TTNN takes multiples of 32: compose attention");
  if (!a.latent && a.v_head_dim != 0 && a.v_head_dim != a.head_dim)
    refuse("keys of " + str(a.head_dim) + " and values of " + str(a.v_head_dim) + " dimensions", where,
           "TTNN takes one width: compose attention");
  for (DataType t : {a.query, a.cache}) {
    if (t != DataType::bf16 && !is_block_float(t))
      refuse("attention over " + std::string(name(t)), where, "use bf16 or a block format");
  }
  if (a.is_causal && a.mask) refuse("causal attention with a mask", where, "put causality into the mask");
  if (a.block_size % tile_size != 0)
    refuse("a cache in blocks of " + str(a.block_size), where, "use a multiple of 32");
  const SDPAProgramConfig& p = a.program_config;
  if (p == SDPAProgramConfig{}) return;
  const CoreCoord grid = p.compute_with_storage_grid_size;
  if (grid.x < 1 || grid.y < 1 || grid.x > sku.grid.x || grid.y > sku.grid.y)
    refuse("a compute grid of " + str(grid), where, std::string(sku.name) + " has " + str(sku.grid));
  const auto chunk = [&](int size, const char* field) {
    if (size % tile_size != 0 || size < 0)
      refuse(std::string(field) + " " + str(size), where, "use a multiple of 32");
  };
  chunk(p.q_chunk_size, "q_chunk_size"), chunk(p.k_chunk_size, "k_chunk_size");
  if (!a.decode) {
    if (p.q_chunk_size == 0 || p.k_chunk_size == 0) refuse("prefill without chunk sizes", where, "set both");
    if (a.start % p.q_chunk_size != 0 || a.start % p.k_chunk_size != 0)
      refuse("queries from position " + str(a.start) + " on in chunks of " + str(p.q_chunk_size) + " and " +
                 str(p.k_chunk_size),
             where, "the chunk sizes divide the position");
  }
  const AttentionShape shape{a.heads, a.kv_heads, a.head_dim, a.v_head_dim, a.cache};
  const std::size_t needed =
      a.decode ? sdpa_decode_l1_bytes(sku, shape, a.users, p) : sdpa_l1_bytes(shape, p);
  check_l1(sku, needed, where,
           a.decode ? "use smaller chunks or fewer cores per user" : "use smaller chunks");
}

void check_cache_update(const Sku& sku, std::int64_t users, std::int64_t kv_heads, std::int64_t head_dim,
                        DataType x) {
  const std::string where = str(users) + " users";
  const std::int64_t cores = std::int64_t{sku.grid.x} * sku.grid.y;
  if (users > cores)
    refuse("more users than cores", where,
           std::string(sku.name) + " has " + str(cores) + ": update in groups");
  if (x != DataType::bf16 && x != DataType::f32)
    refuse("new keys in " + std::string(name(x)), where,
           "use bf16 or f32; the cache's own dtype is made by the kernel");
  if (kv_heads < 1 || head_dim < 1) refuse("no keys", where, "there is at least one head of one dimension");
}

std::size_t usable_dram_bytes(const Sku& sku) {
  const std::size_t reserved = sku.arch == Arch::blackhole ? 17825920 : 1048640;  // per bank, by TTNN 0.81
  const std::size_t all = static_cast<std::size_t>(sku.dram_banks) * reserved;
  return sku.arch == Arch::cpu || sku.dram_bytes < all ? sku.dram_bytes : sku.dram_bytes - all;
}

void check_device_memory(const Sku& sku, std::size_t dram_bytes) {
  if (sku.arch == Arch::cpu || dram_bytes <= usable_dram_bytes(sku)) return;
  refuse("needs " + mebibytes(dram_bytes) + " MiB of DRAM per device", std::string(sku.name),
         "there are " + mebibytes(usable_dram_bytes(sku)) +
             " MiB: use more devices, a smaller precision, a shorter context or fewer users");
}

void check_mesh(const Sku& sku, const Mesh& mesh) {
  if (mesh.rows >= 1 && mesh.cols >= 1 && mesh.devices() <= sku.mesh.devices()) return;
  refuse("a mesh of " + to_string(mesh), std::string(sku.name),
         "it has " + str(sku.mesh.devices()) + " devices");
}

void check_scatter(std::int64_t extent, int devices) {
  if (devices < 1 || extent % (std::int64_t{tile_size} * devices) != 0)
    refuse("an axis of " + str(extent) + " scattered over " + str(devices) + " devices", "reduce_scatter",
           "each part must be whole tiles of 32");
}

}  // namespace ttt::inline v2::hw
