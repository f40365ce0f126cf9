// The functions that every template sees: range, dict, namespace, cycler, joiner, raise_exception,
// strftime_now.
#include <array>
#include <ctime>

#include "text/jinja_interpreter.h"

namespace ttt::inline v2::jinja {

namespace {
constexpr std::int64_t max_range = 100000;  // jinja2's sandbox
}  // namespace

Value Interpreter::call_global(const std::string& name, const Arguments& arguments) {
  if (name == "range") {
    const auto bound = bind("range", arguments, {"start", "stop", "step"}, 1);
    std::array<std::int64_t, 3> numbers = {0, 0, 1};
    for (std::size_t i = 0; i < 3; ++i) {
      if (bound[i] == nullptr) continue;
      if (bound[i]->is(Kind::undefined)) fail_undefined(heap_, *bound[i]);
      if (!bound[i]->is_integral()) {
        fail(quoted(type_name(*bound[i])) + " object cannot be interpreted as an integer");
      }
      numbers[i] = bound[i]->integer();
    }
    if (bound[1] == nullptr) {
      numbers[1] = numbers[0];
      numbers[0] = 0;
    }
    const auto [start, stop, step] = numbers;
    if (step == 0) fail("range() arg 3 must not be zero");
    std::vector<Value> items;
    for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
      if (items.size() >= static_cast<std::size_t>(max_range)) {
        fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (" + std::to_string(max_range) +
             ").");
      }
      budget().step();
      items.push_back(Value(i));
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    const Value range = heap_.sequence(SequenceType::range, std::move(items));
    std::string text = "range(" + std::to_string(start) + ", " + std::to_string(stop);
    if (step != 1) text += ", " + std::to_string(step);
    as_sequence(range).range_repr = text + ")";
    return range;
  }
  if (name == "dict" || name == "namespace") {
    const bool is_namespace = name == "namespace";
    const Value out = is_namespace ? Value(Kind::name_space, heap_.make<Dict>()) : heap_.dict();
    Dict& dict = as_dict(out);
    const auto put = [&](const Value& key, const Value& value) {
      if (is_namespace && key.is_string() && !key.text().bytes.empty() && key.text().bytes[0] == '_') {
        fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got " +
             quoted(key.text().bytes) + ". Please rename the attribute.");
      }
      store(heap_, dict, key, value);
    };
    if (arguments.positional.size() > 1) {
      fail("dict expected at most 1 argument, got " + std::to_string(arguments.positional.size()));
    }
    if (!arguments.positional.empty()) {
      const Value& from = arguments.positional[0];
      if (from.is(Kind::undefined)) fail_undefined(heap_, from);
      if (from.is(Kind::dict)) {
        for (const auto& [key, value] : as_dict(from).entries) put(key, value);
      } else {
        std::size_t i = 0;
        for (const Value& pair : iterate(heap_, from)) {
          if (!pair.is_string() && !pair.is(Kind::sequence)) {
            fail("cannot convert dictionary update sequence element #" + std::to_string(i) +
                 " to a sequence");
          }
          const std::vector<Value> items = iterate(heap_, pair);
          if (items.size() != 2) {
            fail("dictionary update sequence element #" + std::to_string(i) + " has length " +
                 std::to_string(items.size()) + "; 2 is required");
          }
          put(items[0], items[1]);
          ++i;
        }
      }
    }
    for (const auto& [key, value] : arguments.keywords) put(heap_.string(key), value);
    return out;
  }
  if (name == "raise_exception") {
    const auto bound = bind("raise_exception", arguments, {"message"}, 1);
    fail(to_string(heap_, *bound[0]).text().bytes);
  }
  if (name == "strftime_now") {
    const auto bound = bind("strftime_now", arguments, {"format"}, 1);
    if (!bound[0]->is_string()) fail("strftime() argument 1 must be str, not " + type_name(*bound[0]));
    return heap_.string(strftime_now(bound[0]->text().bytes));
  }
  auto* callable = heap_.make<Callable>();
  if (name == "cycler") {
    if (arguments.positional.empty()) fail("at least one item has to be provided");
    callable->type = CallableType::cycler;
    callable->items = arguments.positional;
  } else {
    const auto bound = bind("joiner", arguments, {"sep"}, 0);
    callable->type = CallableType::joiner;
    callable->items = {bound[0] != nullptr ? *bound[0] : heap_.string(", ")};
  }
  return Value(Kind::callable, callable);
}

std::string Interpreter::strftime_now(const std::string& format) const {
  if (format.size() > 1000) fail("a date format is longer than 1000 bytes");
  std::tm when{};
  if (now_.has_value()) {
    when = *now_;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &when);
  }
  // What Python adds to, or leaves out of, C's strftime for a time without a zone.
  std::string plain;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      plain += format[i];
      continue;
    }
    ++i;
    if (format[i] == 'f') {
      plain += "000000";
    } else if (format[i] != 'z' && format[i] != 'Z') {
      plain += '%';
      plain += format[i];
    }
  }
  plain += ' ';  // tells an empty result from a buffer that is too small
  std::array<char, 8192> buffer{};
  const std::size_t n = std::strftime(buffer.data(), buffer.size(), plain.c_str(), &when);
  if (n == 0) fail("a date is longer than " + std::to_string(buffer.size()) + " bytes");
  return {buffer.data(), n - 1};
}

}  // namespace ttt::inline v2::jinja
