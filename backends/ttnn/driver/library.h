// The ttnn package: its functions, its enums and our plain data as its objects. Everything is looked up or
// made once.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "python.h"
#include "ttt/ops/op_call.h"

namespace ttt::inline v2::ttnn {

// Values by key. A model uses a few dozen of each kind, so they are searched one by one.
template <class Key>
class Cache {
 public:
  template <class Make>
  const Ref& get(const Key& key, Make&& make) {
    for (const auto& [known, value] : entries_) {
      if (known == key) return value;
    }
    return entries_.emplace_back(key, make()).second;
  }

 private:
  std::vector<std::pair<Key, Ref>> entries_;
};

class Library {
 public:
  // Imports ttnn and numpy. Error when one of them cannot be.
  Library();

  // A function by its path in the module, without the decorator that serves logging: "linear",
  // "transformer.scaled_dot_product_attention".
  const Ref& function(std::string_view path);
  // Any other member: "TILE_LAYOUT", "MathFidelity.HiFi2".
  const Ref& member(std::string_view path);
  const Ref& numpy(std::string_view name);

  const Ref& dtype(DataType);
  DataType to_dtype(const Ref&);
  const Ref& layout(Layout);
  const Ref& memory_config(const MemoryConfig&);
  const Ref& compute_kernel_config(const ComputeKernelConfig&);
  // `fused` is the activation that the kernel applies. None for "TTNN chooses": an undefined Ref.
  Ref program_config(const MatmulProgramConfig&, const Activation& fused);
  Ref sdpa_program_config(const SDPAProgramConfig&);
  // A list of ttnn.UnaryWithParam that makes the function; empty for the identity. Error where
  // !has(activation).
  Ref activations(const Activation&);
  static bool has(const Activation&);
  // Whether it is one of TTNN's own functions, which kernels can fuse, and not a chain of them.
  static bool is_single(const Activation&);
  Ref activation(const Activation&);  // the one; undefined for the identity

 private:
  const Ref& resolve(std::map<std::string, Ref, std::less<>>& known, const Ref& root, std::string_view path,
                     bool undecorated);
  Ref unary(std::string_view name, std::initializer_list<float> parameters);
  Ref core_coord(CoreCoord);

  Ref ttnn_, numpy_;
  std::map<std::string, Ref, std::less<>> functions_, members_, numpy_members_;
  Cache<MemoryConfig> memory_configs_;
  Cache<ComputeKernelConfig> compute_configs_;
  Cache<std::pair<MatmulProgramConfig, Activation>> program_configs_;
  Cache<SDPAProgramConfig> sdpa_configs_;
  Cache<Activation> activations_;
};

}  // namespace ttt::inline v2::ttnn
