// Python's operators on values, and its reading of numbers.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "text/jinja_unicode.h"
#include "text/jinja_value.h"

namespace ttt::inline v2::jinja {

namespace {

constexpr const char* integer_range = "an integer beyond 64 bits is not supported";

bool numeric(const Value& v) { return v.is_integral() || v.is(Kind::real); }
double as_real(const Value& v) { return v.is(Kind::real) ? v.real() : static_cast<double>(v.integer()); }

void check_operands(Heap& heap, const Value& a, const Value& b) {
  if (a.is(Kind::undefined)) fail_undefined(heap, a);
  if (b.is(Kind::undefined)) fail_undefined(heap, b);
  if (a.is(Kind::big_integer) || b.is(Kind::big_integer)) fail(integer_range);
}

[[noreturn]] void fail_operands(const char* op, const Value& a, const Value& b) {
  fail("unsupported operand type(s) for " + std::string(op) + ": " + quoted(type_name(a)) + " and " +
       quoted(type_name(b)));
}

bool is_list_or_tuple(const Value& v) {
  return is_sequence(v, SequenceType::list) || is_sequence(v, SequenceType::tuple);
}

Value repeated(Heap& heap, const Value& v, std::int64_t count) {
  const auto times = static_cast<std::size_t>(std::max<std::int64_t>(0, count));
  if (v.is_string()) {
    const Text& text = v.text();
    TextBuilder out(&heap.budget());
    if (text.untrusted.empty()) {
      out.repeat(text.bytes, times);
    } else {
      for (std::size_t i = 0; i < times; ++i) {
        heap.budget().step();
        out.add(text);
      }
    }
    return heap.string(std::move(out), text.markup);
  }
  const Sequence& s = as_sequence(v);
  if (!s.items.empty() && times > heap.budget().memory_left / sizeof(Value) / s.items.size()) {
    heap.budget().out_of_memory();
  }
  std::vector<Value> items;
  items.reserve(s.items.size() * times);
  for (std::size_t i = 0; i < (s.items.empty() ? 0 : times); ++i) {
    items.insert(items.end(), s.items.begin(), s.items.end());
  }
  return heap.sequence(s.type, std::move(items));
}

// Floor of a / b for b != 0.
double floor_real(double a, double b, double& remainder) {
  remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0 && (b < 0) != (remainder < 0)) {
    remainder += b;
    quotient -= 1;
  }
  if (remainder == 0) remainder = std::copysign(0.0, b);
  if (quotient == 0) return std::copysign(0.0, a / b);
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return floored;
}

}  // namespace

Value add(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_string() && b.is_string()) {
    const bool markup = a.text().markup || b.text().markup;
    TextBuilder out(&heap.budget());
    out.bytes_.reserve(markup ? 0 : a.text().bytes.size() + b.text().bytes.size());
    for (const Value* side : {&a, &b}) {
      if (markup) {
        append_escaped(heap, out, *side);
      } else {
        out.add(side->text());
      }
    }
    return heap.string(std::move(out), markup);
  }
  if (a.is_integral() && b.is_integral()) {
    std::int64_t sum = 0;
    if (__builtin_add_overflow(a.integer(), b.integer(), &sum)) fail(integer_range);
    return Value(sum);
  }
  if (numeric(a) && numeric(b)) return Value(as_real(a) + as_real(b));
  if (is_list_or_tuple(a) && b.is(Kind::sequence) && as_sequence(a).type == as_sequence(b).type) {
    const auto &x = as_sequence(a).items, &y = as_sequence(b).items;
    std::vector<Value> items;
    heap.budget().memory((x.size() + y.size()) * sizeof(Value));
    items.reserve(x.size() + y.size());
    items.insert(items.end(), x.begin(), x.end());
    items.insert(items.end(), y.begin(), y.end());
    return heap.sequence(as_sequence(a).type, std::move(items));
  }
  if (a.is_string()) fail("can only concatenate str (not \"" + type_name(b) + "\") to str");
  if (is_list_or_tuple(a)) {
    fail("can only concatenate " + type_name(a) + " (not \"" + type_name(b) + "\") to " + type_name(a));
  }
  fail_operands("+", a, b);
}

Value subtract(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    std::int64_t difference = 0;
    if (__builtin_sub_overflow(a.integer(), b.integer(), &difference)) fail(integer_range);
    return Value(difference);
  }
  if (numeric(a) && numeric(b)) return Value(as_real(a) - as_real(b));
  fail_operands("-", a, b);
}

Value multiply(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    std::int64_t product = 0;
    if (__builtin_mul_overflow(a.integer(), b.integer(), &product)) fail(integer_range);
    return Value(product);
  }
  if (numeric(a) && numeric(b)) return Value(as_real(a) * as_real(b));
  if ((a.is_string() || is_list_or_tuple(a)) && b.is_integral()) return repeated(heap, a, b.integer());
  if ((b.is_string() || is_list_or_tuple(b)) && a.is_integral()) return repeated(heap, b, a.integer());
  if (a.is_string() || is_list_or_tuple(a))
    fail("can't multiply sequence by non-int of type " + quoted(type_name(b)));
  if (b.is_string() || is_list_or_tuple(b))
    fail("can't multiply sequence by non-int of type " + quoted(type_name(a)));
  fail_operands("*", a, b);
}

Value divide(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (!numeric(a) || !numeric(b)) fail_operands("/", a, b);
  if (as_real(b) == 0)
    fail(a.is(Kind::real) || b.is(Kind::real) ? "float division by zero" : "division by zero");
  return Value(as_real(a) / as_real(b));
}

Value floor_divide(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    const std::int64_t x = a.integer(), y = b.integer();
    if (y == 0) fail("integer division or modulo by zero");
    if (x == std::numeric_limits<std::int64_t>::min() && y == -1) fail(integer_range);
    return Value(x / y - (x % y != 0 && (x < 0) != (y < 0) ? 1 : 0));
  }
  if (!numeric(a) || !numeric(b)) fail_operands("//", a, b);
  if (as_real(b) == 0) fail("float floor division by zero");
  double remainder = 0;
  return Value(floor_real(as_real(a), as_real(b), remainder));
}

Value modulo(Heap& heap, const Value& a, const Value& b) {
  if (a.is_string()) return percent_format(heap, a.text(), b);
  check_operands(heap, a, b);
  if (a.is_integral() && b.is_integral()) {
    const std::int64_t x = a.integer(), y = b.integer();
    if (y == 0) fail("integer modulo by zero");
    if (y == -1) return Value(std::int64_t{0});
    const std::int64_t r = x % y;
    return Value(r != 0 && (r < 0) != (y < 0) ? r + y : r);
  }
  if (!numeric(a) || !numeric(b)) fail_operands("%", a, b);
  if (as_real(b) == 0) fail("float modulo");
  double remainder = 0;
  floor_real(as_real(a), as_real(b), remainder);
  return Value(remainder);
}

Value power(Heap& heap, const Value& a, const Value& b) {
  check_operands(heap, a, b);
  if (!numeric(a) || !numeric(b)) fail_operands("** or pow()", a, b);
  if (a.is_integral() && b.is_integral() && b.integer() >= 0) {
    std::int64_t base = a.integer(), result = 1;
    for (std::int64_t n = b.integer(); n > 0; n >>= 1) {
      if ((n & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail(integer_range);
      if (n > 1 && __builtin_mul_overflow(base, base, &base)) fail(integer_range);
    }
    return Value(result);
  }
  if (as_real(a) == 0 && as_real(b) < 0) fail("0.0 cannot be raised to a negative power");
  const double result = std::pow(as_real(a), as_real(b));
  if (std::isnan(result) && !std::isnan(as_real(a)) && !std::isnan(as_real(b))) {
    fail("a complex number is not supported");
  }
  if (std::isinf(result) && std::isfinite(as_real(a)) && std::isfinite(as_real(b))) {
    fail("(34, 'Numerical result out of range')");
  }
  return Value(result);
}

Value negate(Heap& heap, const Value& a, bool minus) {
  if (a.is(Kind::undefined)) fail_undefined(heap, a);
  if (a.is(Kind::big_integer)) fail(integer_range);
  if (a.is(Kind::real)) return Value(minus ? -a.real() : a.real());
  if (!a.is_integral())
    fail("bad operand type for unary " + std::string(minus ? "-" : "+") + ": " + quoted(type_name(a)));
  if (!minus) return Value(a.integer());
  if (a.integer() == std::numeric_limits<std::int64_t>::min()) fail(integer_range);
  return Value(-a.integer());
}

Value slice(Heap& heap, const Value& v, const Value& start, const Value& stop, const Value& step) {
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is(Kind::none) && !bound->is_integral()) {
      if (v.is_string() || is_list_or_tuple(v) || is_sequence(v, SequenceType::range)) {
        fail("slice indices must be integers or None or have an __index__ method");
      }
    }
  }
  std::vector<std::size_t> offsets;
  std::int64_t n = 0;
  if (v.is_string()) {
    if (v.text().ascii) {
      n = static_cast<std::int64_t>(v.text().bytes.size());
    } else {
      offsets = character_offsets(heap, v.text());
      n = static_cast<std::int64_t>(offsets.size()) - 1;
    }
  } else {
    n = static_cast<std::int64_t>(as_sequence(v).items.size());
  }
  const std::int64_t by = step.is(Kind::none) ? 1 : step.integer();
  if (by == 0) fail("slice step cannot be zero");
  const std::int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
  const auto clamp = [&](const Value& bound, std::int64_t absent) {
    if (bound.is(Kind::none)) return absent;
    std::int64_t i = bound.integer();
    if (i < 0) i = i < -n ? low : i + n;
    return std::clamp(i, low, high);
  };
  const std::int64_t first = clamp(start, by > 0 ? 0 : n - 1), last = clamp(stop, by > 0 ? n : -1);
  const auto offset = [&](std::int64_t i) {
    return v.text().ascii ? static_cast<std::size_t>(i) : offsets[static_cast<std::size_t>(i)];
  };
  if (v.is_string() && by == 1) {
    if (first >= last) return heap.slice(v.text(), 0, 0);
    return heap.slice(v.text(), offset(first), offset(last));
  }
  TextBuilder out(&heap.budget());
  std::vector<Value> items;
  for (std::int64_t i = first; by > 0 ? i < last : i > last;) {
    heap.budget().step();
    if (v.is_string()) {
      out.add(v.text(), offset(i), offset(i + 1));
    } else {
      items.push_back(as_sequence(v).items[static_cast<std::size_t>(i)]);
    }
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (v.is_string()) return heap.string(std::move(out), v.text().markup);
  return heap.sequence(is_sequence(v, SequenceType::range) ? SequenceType::list : as_sequence(v).type,
                       std::move(items));
}

bool parse_integer(std::string_view text, int base, std::int64_t& out) {
  text.remove_prefix(leading_space(text));
  text.remove_suffix(trailing_space(text));
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  bool prefixed = false;
  if (text.size() > 1 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix != 0 && (base == prefix || base == 0)) {
      base = prefix;
      prefixed = true;
      text.remove_prefix(2);
    } else if (base == 0 && text.find_first_not_of("0_") != std::string_view::npos) {
      return false;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return false;
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_') {
      const bool between = (i > 0 || prefixed) && i + 1 < text.size() && text[i + 1] != '_';
      if (!between) return false;
    } else {
      digits += text[i];
    }
  }
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return false;
  std::uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
  if (end != digits.data() + digits.size()) return false;
  const auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (error != std::errc() || magnitude > limit) fail(integer_range);
  out = negative ? -static_cast<std::int64_t>(magnitude) : static_cast<std::int64_t>(magnitude);
  return true;
}

bool parse_real(std::string_view text, double& out) {
  text.remove_prefix(leading_space(text));
  text.remove_suffix(trailing_space(text));
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] != '_') {
      plain += text[i];
    } else if (i == 0 || !digit(i - 1) || !digit(i + 1)) {
      return false;
    }
  }
  std::string_view rest = plain;
  bool negative = false;
  if (!rest.empty() && (rest[0] == '+' || rest[0] == '-')) {
    negative = rest[0] == '-';
    rest.remove_prefix(1);
  }
  if (rest.empty() || rest[0] == '-' || rest[0] == '+') return false;
  double value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (end != rest.data() + rest.size()) return false;
  if (rest.find('(') != std::string_view::npos) return false;  // nan(...)
  if (error == std::errc::result_out_of_range) {
    const std::size_t e = rest.find_first_of("eE");
    value = e != std::string_view::npos && e + 1 < rest.size() && rest[e + 1] == '-'
                ? 0.0
                : std::numeric_limits<double>::infinity();
  } else if (error != std::errc()) {
    return false;
  }
  out = negative ? -value : value;
  return true;
}

}  // namespace ttt::inline v2::jinja
