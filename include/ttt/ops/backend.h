// The interface that backends implement, and how programs get one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/base/version.h"
#include "ttt/ops/op_call.h"
#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

// What a backend has counted of one op.
struct OpCount {
  std::string op;  // label() of the calls
  std::uint64_t calls = 0, bytes = 0, flops = 0;
};

class Backend : public Device {
 public:
  ~Backend() override;
  // Executes the call and fills call.outputs. Called from one thread at a time per device.
  virtual void run(OpCall& call) = 0;
  // Whether run() has a kernel for exactly this call: kind, dtypes, views, attributes. Where not, the call is
  // tried with contiguous operands, then composed of simpler ops, then (primitives, docs/ops.md) run in
  // float32. What every backend must take is a primitive on contiguous f32 operands, and typecast from and to
  // every dtype it can allocate, packed weights included.
  virtual bool supports(const OpCall& call) const = 0;
  // The devices it drives; the collectives work along its axes.
  virtual Mesh mesh() const { return {}; }

  // Backends that count (null): what ran since the last reset, by op; others: empty.
  virtual std::vector<OpCount> op_counts() const { return {}; }
  virtual void reset_op_counts() {}
};

struct DeviceOptions {
  int threads = 0;  // cpu: 0 means what the process may use (affinity and cgroup)
  bool deterministic =
      false;        // one kernel class for every row count: a row's result is its own whatever the batch
  std::string isa;  // cpu: force an instruction set; empty: $TTT_CPU_ISA, else the best that works
  Mesh mesh{};      // devices to open or to simulate
  std::string sku;  // ttnn: which mock cluster or card; empty: what is there
};

// Opens a backend by name: one that the program registered, else libttt_backend_NAME.so from the install
// folder. Error when there is none (names the folder and the known ones) or when it cannot run here.
std::shared_ptr<Backend> open_device(std::string_view name, const DeviceOptions& = {});
// The CPU backend with default options, opened on first use and shared by the process.
std::shared_ptr<Backend> default_device();
std::vector<std::string> backend_names();

using BackendFactory = std::shared_ptr<Backend> (*)(const DeviceOptions&);
// For programs that link a backend instead of loading it.
void register_backend(std::string_view name, BackendFactory);

// What a backend library exports: its version, and a factory by reference, since C linkage returns no class.
//   extern "C" TTT_EXPORT int ttt_backend_version() { return ttt::backend_abi_version; }
//   extern "C" TTT_EXPORT void ttt_backend_open(const ttt::DeviceOptions& options,
//   std::shared_ptr<ttt::Backend>& out) { .. }
// Exceptions may leave ttt_backend_open. A library of another version is refused by a clear message.
inline constexpr int backend_abi_version = TTT_VERSION_MAJOR * 1000 + TTT_VERSION_MINOR;
#define TTT_EXPORT __attribute__((visibility("default")))

}  // namespace ttt::inline v2
