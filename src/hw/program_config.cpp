#include "ttt/hw/program_config.h"

#include <array>
#include <charconv>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

namespace {

constexpr std::array<std::pair<MathFidelity, std::string_view>, 4> fidelities = {
    {{MathFidelity::lofi, "lofi"},
     {MathFidelity::hifi2, "hifi2"},
     {MathFidelity::hifi3, "hifi3"},
     {MathFidelity::hifi4, "hifi4"}}};

// "name=value, ..": the one list of fields per config, for writing and for reading.
template <class F>
void fields(MatmulMultiCoreReuseMultiCastProgramConfig& c, F&& f) {
  f("compute_with_storage_grid_size", c.compute_with_storage_grid_size);
  f("in0_block_w", c.in0_block_w), f("out_subblock_h", c.out_subblock_h),
      f("out_subblock_w", c.out_subblock_w);
  f("out_block_h", c.out_block_h), f("out_block_w", c.out_block_w);
  f("per_core_M", c.per_core_M), f("per_core_N", c.per_core_N), f("transpose_mcast", c.transpose_mcast);
}
template <class F>
void fields(MatmulMultiCoreReuseMultiCast1DProgramConfig& c, F&& f) {
  f("compute_with_storage_grid_size", c.compute_with_storage_grid_size);
  f("in0_block_w", c.in0_block_w), f("out_subblock_h", c.out_subblock_h),
      f("out_subblock_w", c.out_subblock_w);
  f("out_block_h", c.out_block_h), f("out_block_w", c.out_block_w);
  f("per_core_M", c.per_core_M), f("per_core_N", c.per_core_N), f("mcast_in0", c.mcast_in0);
}
template <class F>
void fields(MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig& c, F&& f) {
  f("in0_block_w", c.in0_block_w), f("per_core_M", c.per_core_M), f("per_core_N", c.per_core_N);
}

constexpr std::string_view type_name(const MatmulMultiCoreReuseMultiCastProgramConfig&) {
  return "MatmulMultiCoreReuseMultiCastProgramConfig";
}
constexpr std::string_view type_name(const MatmulMultiCoreReuseMultiCast1DProgramConfig&) {
  return "MatmulMultiCoreReuseMultiCast1DProgramConfig";
}
constexpr std::string_view type_name(const MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig&) {
  return "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig";
}

std::string text(int value) { return std::to_string(value); }
std::string text(bool value) { return value ? "true" : "false"; }
std::string text(CoreCoord value) { return std::to_string(value.x) + "x" + std::to_string(value.y); }

bool read(std::string_view from, int& value) {
  const auto [end, error] = std::from_chars(from.data(), from.data() + from.size(), value);
  return error == std::errc() && end == from.data() + from.size() && value >= 1 && value <= 1 << 20;
}
bool read(std::string_view from, bool& value) {
  value = from == "true";
  return value || from == "false";
}
bool read(std::string_view from, CoreCoord& value) {
  const std::size_t cross = from.find('x');
  return cross != std::string_view::npos && read(from.substr(0, cross), value.x) &&
         read(from.substr(cross + 1), value.y);
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
  return s;
}

[[noreturn]] void refuse(std::string_view all, const std::string& why) {
  throw Error("the program config \"" + printable(all, 200) + "\" cannot be read: " + why, {},
              "write it as ttt inspect plan prints it");
}

template <class Config>
bool parse_as(std::string_view all, std::string_view type, std::string_view arguments,
              MatmulProgramConfig& out) {
  Config config;
  if (type != type_name(config)) return false;
  while (!trimmed(arguments).empty()) {
    const std::size_t comma = arguments.find(',');
    const std::string_view item = trimmed(arguments.substr(0, comma));
    arguments = comma == std::string_view::npos ? std::string_view() : arguments.substr(comma + 1);
    const std::size_t equals = item.find('=');
    const std::string_view key = trimmed(item.substr(0, equals));
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : trimmed(item.substr(equals + 1));
    bool known = false, good = false;
    fields(config, [&](std::string_view field, auto& member) {
      // Of the fields only the output block may be zero.
      if (field == key)
        known = true, good = read(value, member) || (value == "0" && field.starts_with("out_block_"));
    });
    if (!known) refuse(all, "no field " + printable(key));
    if (!good) refuse(all, "the value of " + printable(key));
  }
  out = config;
  return true;
}

}  // namespace

std::string_view name(MathFidelity fidelity) {
  for (const auto& [value, label] : fidelities) {
    if (value == fidelity) return label;
  }
  return "invalid";
}

MathFidelity parse_math_fidelity(std::string_view text) {
  for (const auto& [value, label] : fidelities) {
    if (label == text) return value;
  }
  throw Error("unknown math fidelity \"" + printable(text) + "\"", {},
              "use one of lofi, hifi2, hifi3, hifi4");
}

std::string to_string(const ComputeKernelConfig& config) {
  std::string out(name(config.math_fidelity));
  if (config.math_approx_mode) out += " approx";
  if (config.fp32_dest_acc_en) out += " fp32_dest_acc";
  if (config.packer_l1_acc) out += " packer_l1_acc";
  return out;
}

std::string to_string(const MatmulProgramConfig& config) {
  return std::visit(
      [](auto c) -> std::string {
        if constexpr (std::is_same_v<decltype(c), std::monostate>) {
          return "auto";
        } else {
          std::string out(type_name(c));
          char separator = '(';
          fields(c, [&](std::string_view field, const auto& value) {
            out += separator == '(' ? "(" : ", ";
            out += std::string(field) + "=" + text(value);
            separator = ',';
          });
          return out + ")";
        }
      },
      config);
}

MatmulProgramConfig parse_program_config(std::string_view all) {
  const std::string_view s = trimmed(all);
  if (s == "auto") return {};
  const std::size_t open = s.find('(');
  if (open == std::string_view::npos || s.back() != ')') refuse(all, "no type with arguments in parentheses");
  const std::string_view type = s.substr(0, open), arguments = s.substr(open + 1, s.size() - open - 2);
  MatmulProgramConfig config;
  if (parse_as<MatmulMultiCoreReuseMultiCastProgramConfig>(all, type, arguments, config) ||
      parse_as<MatmulMultiCoreReuseMultiCast1DProgramConfig>(all, type, arguments, config) ||
      parse_as<MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig>(all, type, arguments, config)) {
    return config;
  }
  refuse(all, "unknown type " + printable(type));
}

}  // namespace ttt::inline v2
