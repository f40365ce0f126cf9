// The interface that backends implement, and how programs get one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ttt/ops/op_call.h"
#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

class Backend : public Device {
 public:
  // Executes the call and fills call.outputs. Called from one thread at a time per device.
  virtual void run(OpCall& call) = 0;
  // Whether run() has a kernel for exactly this call; where not, ops.h composes it of simpler ops.
  virtual bool supports(const OpCall& call) const = 0;
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

}  // namespace ttt::inline v2

// What a backend library exports: ttt_backend_version() returns TTT_VERSION_MAJOR * 1000 + TTT_VERSION_MINOR,
// ttt_backend_open() is a ttt::BackendFactory.
