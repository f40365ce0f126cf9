// Target: what a model is resolved for. Plain data: SKU, mesh, precision, and rows that decide single fields
// of single modules.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/hw/program_config.h"
#include "ttt/hw/sku.h"
#include "ttt/tensor/dtype.h"

namespace ttt::inline v2 {

// One decision: the modules whose path matches `module` ("layers.*.ffn.gate", "lm_head", "*"; '*' matches any
// characters, "layers.[30:]" and "layers.[0:2]" a range of layers as Python slices it, negative numbers from
// the end) have `value` in `field`. Fields: weights (f32, bf16, bfp8_b, bfp4_b), kv (f32, bf16, bfp8_b),
// activations (f32, bf16; of the whole model, so `module` is "*"), math_fidelity (lofi .. hifi4), memory ("l1
// interleaved"), program_config; values are written as `ttt inspect plan` prints them.
struct Override {
  std::string module, field, value;
  std::string origin;  // "recipe performance", "model", "overrides.json": for messages and `ttt inspect plan`
  bool operator==(const Override&) const = default;
};

struct Target {
  Sku sku = hw::cpu();
  Mesh mesh{};                     // {1, 1}: one device, no collectives
  std::string precision = "bf16";  // name of what the rows came from; for people
  std::vector<Override> rows{};    // later rows win
  int layers = 0;                  // of the model, for ranges that count from the end; 0: unknown

  // The value of the last row that matches, or unset.
  std::optional<std::string> find(std::string_view module, std::string_view field) const;
  DataType weight_dtype(std::string_view module) const;  // bf16 when no row says otherwise
  DataType activation_dtype() const;                     // f32 or bf16
  DataType kv_dtype(std::string_view module) const;
  // From the field math_fidelity, else by the dtype of the weights: bfp4_b lofi, bfp8_b hifi2, bf16 and f32
  // hifi4.
  ComputeKernelConfig compute_config(std::string_view module) const;
  std::optional<MemoryConfig> memory_config(std::string_view module) const;
  std::optional<MatmulProgramConfig> program_config(std::string_view module) const;
};

// Whether a row for `pattern` holds for `module`. A negative bound needs `layers`; without it nothing
// matches.
bool matches(std::string_view pattern, std::string_view module, int layers = 0);

// Names a recipe or one dtype for everything: f32, bf16, bfp8_b, bfp4_b, performance, accuracy
// (data/recipes).
std::vector<std::string> precision_names();
// Error when the name is none of these, or when the SKU has no such mesh.
Target make_target(const Sku&, std::string_view precision, Mesh = {});
// Error unless the row's pattern, field and value can be read.
void check_override(const Override&);
// Appends rows of a JSON file: [{"module": .., "field": .., "value": ..}, ..]. Error names the row and the
// field.
void add_overrides(Target&, const std::filesystem::path&);
// The same from text; `origin` is for messages.
void add_overrides(Target&, std::string_view json, std::string_view origin);

}  // namespace ttt::inline v2
