// How the loader enters the driver: one interpreter, one open device per process.
#include <cstdlib>
#include <mutex>

#include "device.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::ttnn {

namespace {

std::mutex mutex;
std::weak_ptr<TtnnDevice> open_one;
Mesh open_mesh;

void close_at_exit() {
  // Runs before the destructors of what TTNN keeps in static memory, since it was registered after they were
  // made.
  if (const std::shared_ptr<TtnnDevice> device = open_one.lock()) {
    const Gil gil;
    device->close();
  }
}

// In a Python program the interpreter is gone before the process's own exit handlers run.
PyObject* close_at_python_exit(PyObject*, PyObject*) {
  close_at_exit();
  Py_RETURN_NONE;
}

void quiet(const char* variable, const char* value) { ::setenv(variable, value, 0); }

// TTNN writes its log, failed assertions included, on standard output; these arrive as errors anyway.
void prepare_environment() {
  quiet("TT_LOGGER_LEVEL", "off");
  quiet("TT_METAL_LOGGER_LEVEL", "off");
  quiet("LOGURU_LEVEL", "WARNING");
}

void start(const char* python) {
  if (Py_IsInitialized() != 0) return;
  // The name makes Python find the virtual environment that the executable belongs to.
  static wchar_t* const name = Py_DecodeLocale(python, nullptr);
  if (name == nullptr) throw Error("the path of the interpreter is no text", printable(python, 200));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  Py_SetProgramName(name);
#pragma GCC diagnostic pop
  Py_InitializeEx(0);  // no signal handlers: they are the program's
  PyEval_SaveThread();
}

void register_exit(bool hosted) {
  if (!hosted) {
    std::atexit(&close_at_exit);
    return;
  }
  static PyMethodDef method = {"close_ttnn_device", &close_at_python_exit, METH_NOARGS, nullptr};
  call(import("atexit").attr("register"), {Ref::steal(PyCFunction_NewEx(&method, nullptr, nullptr))});
}

std::shared_ptr<Backend> open(const char* python, const DeviceOptions& options) {
  const std::lock_guard lock(mutex);
  if (std::shared_ptr<TtnnDevice> device = open_one.lock()) {
    if (options.mesh == open_mesh) return device;
    throw Error(
        "the device is open as a mesh of " + to_string(open_mesh) + ", not of " + to_string(options.mesh),
        "ttnn backend", "close what holds it first");
  }
  prepare_environment();
  start(python);
  const Gil gil;
  auto device = std::make_shared<TtnnDevice>(options);
  static const bool once = (register_exit(python == nullptr), true);
  (void)once;
  open_one = device;
  open_mesh = options.mesh;
  return device;
}

}  // namespace

}  // namespace ttt::inline v2::ttnn

// `python`: the interpreter to start, null where the process is a Python program.
extern "C" TTT_EXPORT void ttt_ttnn_open(const char* python, const ttt::DeviceOptions& options,
                                         std::shared_ptr<ttt::Backend>& out) {
  out = ttt::ttnn::open(python, options);
}
