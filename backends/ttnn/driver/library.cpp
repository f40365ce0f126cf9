#include "library.h"

#include <cstdlib>

#include "ttt/base/error.h"

namespace ttt::inline v2::ttnn {

namespace {

struct UnaryName {
  UnaryOp op;
  std::string_view name;  // in ttnn.UnaryOpType
  int parameters;         // of Activation: none, a, or a and b
};

// What one function of TTNN computes.
constexpr UnaryName unary_names[] = {
    {UnaryOp::silu, "SILU", 0},
    {UnaryOp::gelu_tanh, "GELU_TANH", 0},
    {UnaryOp::relu, "RELU", 0},
    {UnaryOp::tanh, "TANH", 0},
    {UnaryOp::sigmoid, "SIGMOID", 0},
    {UnaryOp::exp, "EXP", 0},
    {UnaryOp::log, "LOG", 0},
    {UnaryOp::sqrt, "SQRT", 0},
    {UnaryOp::rsqrt, "RSQRT", 0},
    {UnaryOp::neg, "NEG", 0},
    {UnaryOp::abs, "ABS", 0},
    {UnaryOp::square, "SQUARE", 0},
    {UnaryOp::reciprocal, "RECIP", 0},
    {UnaryOp::sin, "SIN", 0},
    {UnaryOp::cos, "COS", 0},
    {UnaryOp::hardswish, "HARDSWISH", 0},
    {UnaryOp::xielu, "XIELU", 2},
    {UnaryOp::clamp, "CLAMP_TSS", 2},
    {UnaryOp::add_scalar, "ADD_UNARY_SFPU", 1},
    {UnaryOp::mul_scalar, "MUL_UNARY_SFPU", 1},
    {UnaryOp::pow_scalar, "POWER", 1},
    {UnaryOp::floor, "FLOOR", 0},
    {UnaryOp::sign, "SIGN", 0},
    {UnaryOp::log1p, "LOG1P", 0},
    {UnaryOp::expm1, "EXPM1", 0},
};

const UnaryName* find(UnaryOp op) {
  for (const UnaryName& known : unary_names) {
    if (known.op == op) return &known;
  }
  return nullptr;
}

std::string_view member_name(DataType t) {
  switch (t) {
    case DataType::f32:
      return "float32";
    case DataType::bf16:
      return "bfloat16";
    case DataType::bfp8_b:
      return "bfloat8_b";
    case DataType::bfp4_b:
      return "bfloat4_b";
    case DataType::i32:
      return "int32";
    case DataType::u32:
      return "uint32";
    case DataType::u16:
      return "uint16";
    case DataType::u8:
      return "uint8";
  }
  throw Error("invalid dtype");
}

constexpr DataType all_dtypes[] = {DataType::f32, DataType::bf16, DataType::bfp8_b, DataType::bfp4_b,
                                   DataType::i32, DataType::u32,  DataType::u16,    DataType::u8};

std::string_view member_name(MathFidelity f) {
  switch (f) {
    case MathFidelity::lofi:
      return "MathFidelity.LoFi";
    case MathFidelity::hifi2:
      return "MathFidelity.HiFi2";
    case MathFidelity::hifi3:
      return "MathFidelity.HiFi3";
    case MathFidelity::hifi4:
      return "MathFidelity.HiFi4";
  }
  throw Error("invalid math fidelity");
}

}  // namespace

Library::Library() : ttnn_(import("ttnn")), numpy_(import("numpy")) {}

const Ref& Library::resolve(std::map<std::string, Ref, std::less<>>& known, const Ref& root,
                            std::string_view path, bool undecorated) {
  if (const auto found = known.find(path); found != known.end()) return found->second;
  Ref object = root;
  for (std::string_view rest = path; !rest.empty();) {
    const std::size_t dot = rest.find('.');
    object = object.attr(std::string(rest.substr(0, dot)).c_str());
    rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  }
  if (undecorated && PyObject_HasAttrString(object.get(), "function") != 0) object = object.attr("function");
  return known.emplace(std::string(path), std::move(object)).first->second;
}

const Ref& Library::function(std::string_view path) { return resolve(functions_, ttnn_, path, true); }
const Ref& Library::member(std::string_view path) { return resolve(members_, ttnn_, path, false); }
const Ref& Library::numpy(std::string_view name) { return resolve(numpy_members_, numpy_, name, false); }

const Ref& Library::dtype(DataType t) { return member(member_name(t)); }

DataType Library::to_dtype(const Ref& object) {
  // Enumerators are single objects.
  for (DataType t : all_dtypes) {
    if (dtype(t).get() == object.get()) return t;
  }
  throw Error("the dtype " + printable(to_text(object)) + " of a TTNN tensor is unknown");
}

const Ref& Library::layout(Layout l) {
  return member(l == Layout::tile ? "TILE_LAYOUT" : "ROW_MAJOR_LAYOUT");
}

Ref Library::core_coord(CoreCoord c) { return call(member("CoreCoord"), {number(c.x), number(c.y)}); }

const Ref& Library::memory_config(const MemoryConfig& config) {
  return memory_configs_.get(config, [&] {
    static constexpr std::string_view layouts[] = {
        "TensorMemoryLayout.INTERLEAVED", "TensorMemoryLayout.HEIGHT_SHARDED",
        "TensorMemoryLayout.WIDTH_SHARDED", "TensorMemoryLayout.BLOCK_SHARDED"};
    const Ref layout = member(layouts[static_cast<std::size_t>(config.memory_layout)]);
    const Ref buffer = member(config.buffer_type == BufferType::l1 ? "BufferType.L1" : "BufferType.DRAM");
    if (!config.shard_spec) return call(member("MemoryConfig"), {layout, buffer});
    const ShardSpec& s = *config.shard_spec;
    const Ref range = call(member("CoreRange"), {core_coord(s.grid.start), core_coord(s.grid.end)});
    const Ref set = Ref::steal(PySet_New(tuple({range}).get()));
    const Ref shard =
        call(member("ShardSpec"),
             {call(member("CoreRangeSet"), {set}), tuple({number(s.height), number(s.width)}),
              member(s.orientation == ShardOrientation::row_major ? "ShardOrientation.ROW_MAJOR"
                                                                  : "ShardOrientation.COL_MAJOR")});
    return call(member("MemoryConfig"), {layout, buffer, shard});
  });
}

const Ref& Library::compute_kernel_config(const ComputeKernelConfig& c) {
  return compute_configs_.get(c, [&] {
    return call(member("WormholeComputeKernelConfig"), {},
                {{"math_fidelity", member(member_name(c.math_fidelity))},
                 {"math_approx_mode", boolean(c.math_approx_mode)},
                 {"fp32_dest_acc_en", boolean(c.fp32_dest_acc_en)},
                 {"packer_l1_acc", boolean(c.packer_l1_acc)}});
  });
}

Ref Library::program_config(const MatmulProgramConfig& config, const Activation& fused) {
  if (std::holds_alternative<std::monostate>(config)) return {};
  return program_configs_.get({config, fused}, [&] {
    const Ref act = fused.op == UnaryOp::identity ? none() : activation(fused);
    const auto block = [](int tiles) { return tiles > 0 ? number(tiles) : Ref(); };
    // The arguments that both multicast configs have, then those of one alone.
    const auto multicast = [&](const auto& c, const char* type, std::initializer_list<Keyword> own) {
      std::vector<Keyword> arguments{
          {"compute_with_storage_grid_size", core_coord(c.compute_with_storage_grid_size)},
          {"in0_block_w", number(c.in0_block_w)},
          {"out_subblock_h", number(c.out_subblock_h)},
          {"out_subblock_w", number(c.out_subblock_w)},
          {"out_block_h", block(c.out_block_h)},
          {"out_block_w", block(c.out_block_w)},
          {"per_core_M", number(c.per_core_M)},
          {"per_core_N", number(c.per_core_N)},
          {"fused_activation", act}};
      arguments.insert(arguments.end(), own);
      return call(member(type), {}, std::span<const Keyword>(arguments));
    };
    if (const auto* c = std::get_if<MatmulMultiCoreReuseMultiCastProgramConfig>(&config))
      return multicast(*c, "MatmulMultiCoreReuseMultiCastProgramConfig",
                       {{"transpose_mcast", boolean(c->transpose_mcast)}});
    if (const auto* c = std::get_if<MatmulMultiCoreReuseMultiCast1DProgramConfig>(&config))
      return multicast(*c, "MatmulMultiCoreReuseMultiCast1DProgramConfig",
                       {{"fuse_batch", boolean(true)}, {"mcast_in0", boolean(c->mcast_in0)}});
    const auto& c = std::get<MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>(config);
    return call(member("MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig"), {},
                {{"in0_block_w", number(c.in0_block_w)},
                 {"per_core_M", number(c.per_core_M)},
                 {"per_core_N", number(c.per_core_N)},
                 {"fused_activation", act}});
  });
}

Ref Library::sdpa_program_config(const SDPAProgramConfig& c) {
  if (c == SDPAProgramConfig{}) return {};
  return sdpa_configs_.get(c, [&] {
    return call(member("SDPAProgramConfig"), {},
                {{"compute_with_storage_grid_size", core_coord(c.compute_with_storage_grid_size)},
                 {"q_chunk_size", number(c.q_chunk_size)},
                 {"k_chunk_size", number(c.k_chunk_size)},
                 {"exp_approx_mode", boolean(c.exp_approx_mode)},
                 {"max_cores_per_head_batch", number(c.max_cores_per_head_batch)}});
  });
}

Ref Library::unary(std::string_view name, std::initializer_list<float> parameters) {
  const Ref& op = member("UnaryOpType." + std::string(name));
  const Ref& make = member("UnaryWithParam");
  const float* p = parameters.begin();
  switch (parameters.size()) {
    case 0:
      return call(make, {op});
    case 1:
      return call(make, {op, real(p[0])});
    default:
      return call(make, {op, real(p[0]), real(p[1])});
  }
}

bool Library::has(const Activation& a) {
  return is_single(a) || a.op == UnaryOp::identity || a.op == UnaryOp::relu2;
}

bool Library::is_single(const Activation& a) {
  return find(a.op) != nullptr || a.op == UnaryOp::gelu || a.op == UnaryOp::softplus || a.op == UnaryOp::elu;
}

Ref Library::activations(const Activation& a) {
  return activations_.get(a, [&]() -> Ref {
    switch (a.op) {
      case UnaryOp::identity:
        return Ref::steal(PyTuple_New(0));
      case UnaryOp::gelu:  // the exact one
        return tuple({unary("GELU", {0.0f})});
      case UnaryOp::softplus:  // beta, and from where on it is x itself
        return tuple({unary("SOFTPLUS", {1.0f, 20.0f})});
      case UnaryOp::elu:
        return tuple({unary("ELU", {1.0f})});
      case UnaryOp::relu2:
        return tuple({unary("RELU", {}), unary("SQUARE", {})});
      default:
        break;
    }
    const UnaryName* known = find(a.op);
    if (known == nullptr) throw Error("TTNN has no function " + std::string(name(a.op)));
    if (known->parameters == 0) return tuple({unary(known->name, {})});
    if (known->parameters == 1) return tuple({unary(known->name, {a.a})});
    return tuple({unary(known->name, {a.a, a.b})});
  });
}

Ref Library::activation(const Activation& a) {
  if (a.op == UnaryOp::identity) return {};
  return Ref::borrow(PyTuple_GetItem(activations(a).get(), 0));
}

}  // namespace ttt::inline v2::ttnn
