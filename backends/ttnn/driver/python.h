// Python's C API with owned references and C++ exceptions, as far as the driver needs it. The stable ABI of
// Python 3.10: one driver serves every later Python. All but Gil is to be used under the GIL.
#pragma once

#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ttt/tensor/shape.h"

namespace ttt::inline v2::ttnn {

// Holds the GIL of the interpreter.
class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  PyGILState_STATE state_;
};

// An owned reference.
class Ref {
 public:
  Ref() = default;
  Ref(const Ref& other) : object_(other.object_) { Py_XINCREF(object_); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() { Py_XDECREF(object_); }

  // Takes over a new reference as API functions return it; null is a Python error and throws.
  static Ref steal(PyObject* object);
  static Ref borrow(PyObject* object);

  PyObject* get() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  Ref attr(const char* name) const;
  // Gives the reference up, for objects that must outlive the interpreter.
  PyObject* release() { return std::exchange(object_, nullptr); }

 private:
  PyObject* object_ = nullptr;
};

// A keyword argument; one without a value is left out of the call.
struct Keyword {
  const char* name;
  Ref value;
};

Ref call(const Ref& function, std::initializer_list<Ref> arguments, std::span<const Keyword> keywords);
inline Ref call(const Ref& function, std::initializer_list<Ref> arguments,
                std::initializer_list<Keyword> keywords = {}) {
  return call(function, arguments, std::span(keywords.begin(), keywords.size()));
}

Ref none();
Ref boolean(bool);
Ref number(std::int64_t);
Ref real(double);
Ref text(std::string_view);
Ref tuple(std::span<const Ref> items);
Ref tuple(std::initializer_list<Ref> items);
Ref tuple(const Shape& shape);
Ref import(const char* module);
// A view of memory of ours, for numpy; it must not be used after the memory is gone.
Ref memory_view(const void* data, std::size_t bytes);
Ref memory_view(void* data, std::size_t bytes);

std::int64_t to_int(const Ref&);
std::string to_text(const Ref&);   // str(x)
Shape to_shape(const Ref& shape);  // of a ttnn.Shape or any sequence of integers

// The error that Python has raised as ttt::Error: of TTNN's assertions the sentence without file, line and
// backtrace.
[[noreturn]] void throw_python_error();

}  // namespace ttt::inline v2::ttnn
