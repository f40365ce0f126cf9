#include "python.h"

#include "ttt/base/error.h"

namespace ttt::inline v2::ttnn {

namespace {

constexpr std::string_view where = "ttnn";
// Flags of PyMemoryView_FromMemory, which the stable ABI of 3.10 has and names only from 3.11 on.
constexpr int read_only = 0x100, writable = 0x200;

// TTNN's assertions read "TT_FATAL @ file:line: condition\ninfo:\nsentence\nbacktrace:\n..", those of its
// driver "sentence\nLocation: ..".
std::string sentence(std::string message) {
  constexpr std::string_view info = "info:\n";
  for (std::string_view trace : {"\nbacktrace:", "\nLocation:"}) {
    if (const std::size_t end = message.find(trace); end != std::string::npos) message.resize(end);
  }
  if (const std::size_t begin = message.find(info); begin != std::string::npos)
    message.erase(0, begin + info.size());
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.pop_back();
  message.erase(0, message.find_first_not_of(" \n"));
  for (char& c : message) {
    if (c == '\n') c = ' ';
  }
  return message;
}

}  // namespace

void throw_python_error() {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  std::string message = "unknown Python error";
  if (PyObject* words = value != nullptr ? PyObject_Str(value) : nullptr) {
    if (const char* utf8 = PyUnicode_AsUTF8AndSize(words, nullptr)) message = utf8;
    Py_DECREF(words);
  }
  PyErr_Clear();
  Py_XDECREF(type), Py_XDECREF(value), Py_XDECREF(trace);
  throw Error(printable(sentence(std::move(message)), 1000), where);
}

Ref Ref::steal(PyObject* object) {
  if (object == nullptr) throw_python_error();
  Ref ref;
  ref.object_ = object;
  return ref;
}

Ref Ref::borrow(PyObject* object) {
  Py_XINCREF(object);
  return steal(object);
}

Ref Ref::attr(const char* name) const { return steal(PyObject_GetAttrString(object_, name)); }

Ref call(const Ref& function, std::initializer_list<Ref> arguments, std::span<const Keyword> keywords) {
  const Ref positional = tuple(arguments);
  Ref named;
  for (const Keyword& k : keywords) {
    if (!k.value) continue;
    if (!named) named = Ref::steal(PyDict_New());
    const Ref key = Ref::steal(PyUnicode_InternFromString(k.name));
    if (PyDict_SetItem(named.get(), key.get(), k.value.get()) != 0) throw_python_error();
  }
  return Ref::steal(PyObject_Call(function.get(), positional.get(), named.get()));
}

Ref none() { return Ref::borrow(Py_None); }
Ref boolean(bool value) { return Ref::borrow(value ? Py_True : Py_False); }
Ref number(std::int64_t value) { return Ref::steal(PyLong_FromLongLong(value)); }
Ref real(double value) { return Ref::steal(PyFloat_FromDouble(value)); }
Ref text(std::string_view value) {
  return Ref::steal(PyUnicode_FromStringAndSize(value.data(), static_cast<Py_ssize_t>(value.size())));
}

Ref tuple(std::span<const Ref> items) {
  Ref result = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(items.size())));
  Py_ssize_t i = 0;
  for (const Ref& item : items) {
    // Takes over a reference, also where it fails.
    if (PyTuple_SetItem(result.get(), i++, Ref(item).release()) != 0) throw_python_error();
  }
  return result;
}
Ref tuple(std::initializer_list<Ref> items) { return tuple(std::span(items.begin(), items.size())); }
Ref tuple(const Shape& shape) {
  Ref result = Ref::steal(PyTuple_New(shape.rank()));
  for (int i = 0; i < shape.rank(); ++i) {
    if (PyTuple_SetItem(result.get(), i, number(shape[i]).release()) != 0) throw_python_error();
  }
  return result;
}

Ref import(const char* module) { return Ref::steal(PyImport_ImportModule(module)); }

Ref memory_view(const void* data, std::size_t bytes) {
  auto* start = static_cast<char*>(const_cast<void*>(data));
  return Ref::steal(PyMemoryView_FromMemory(start, static_cast<Py_ssize_t>(bytes), read_only));
}
Ref memory_view(void* data, std::size_t bytes) {
  auto* start = static_cast<char*>(data);
  return Ref::steal(PyMemoryView_FromMemory(start, static_cast<Py_ssize_t>(bytes), writable));
}

std::int64_t to_int(const Ref& value) {
  const long long result = PyLong_AsLongLong(value.get());
  if (result == -1 && PyErr_Occurred() != nullptr) throw_python_error();
  return result;
}

std::string to_text(const Ref& value) {
  const Ref s = Ref::steal(PyObject_Str(value.get()));
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(s.get(), &size);
  if (data == nullptr) {
    PyErr_Clear();
    return "a text that is no UTF-8";
  }
  return {data, static_cast<std::size_t>(size)};
}

Shape to_shape(const Ref& shape) {
  const Py_ssize_t rank = PyObject_Size(shape.get());
  if (rank < 0) throw_python_error();
  if (rank > Shape::max_rank) throw Error("a tensor of rank " + std::to_string(rank), where);
  Shape result;
  for (Py_ssize_t i = 0; i < rank; ++i) {
    result.push_back(to_int(Ref::steal(PyObject_GetItem(shape.get(), number(i).get()))));
  }
  return result;
}

}  // namespace ttt::inline v2::ttnn
