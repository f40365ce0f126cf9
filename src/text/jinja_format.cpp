// Python's two ways to format: "%s" % x and "{}".format(x).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "text/jinja_interpreter.h"
#include "ttt/base/utf8.h"

namespace ttt::inline v2::jinja {

namespace {

constexpr std::int64_t max_width = 10'000'000;
constexpr int max_precision = 1000;

struct Spec {
  std::string fill = " ";
  char align = '\0';
  char sign = '-';
  bool alternate = false, zero = false;
  char grouping = '\0';
  std::int64_t width = 0;
  int precision = -1;
  char type = '\0';
};

std::string digits_of(std::uint64_t magnitude, unsigned base, bool upper) {
  const std::string_view digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out += digits[magnitude % base];
    magnitude /= base;
  } while (magnitude > 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::uint64_t magnitude_of(std::int64_t i) {
  return i < 0 ? ~static_cast<std::uint64_t>(i) + 1 : static_cast<std::uint64_t>(i);
}

std::string grouped(const std::string& digits, char separator, std::size_t group) {
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % group == 0) out += separator;
    out += digits[i];
  }
  return out;
}

// |d| in the form that `type` names, without a sign.
std::string real_digits(double d, char type, int precision, bool alternate) {
  const double magnitude = std::fabs(d);
  if (std::isnan(d) || std::isinf(d)) {
    std::string out = std::isnan(d) ? "nan" : "inf";
    if (type == 'F' || type == 'E' || type == 'G') {
      for (char& c : out) c = static_cast<char>(c - 32);
    }
    return out + (type == '%' ? "%" : "");
  }
  const char kind = type == '%' ? 'f' : type;
  const std::array<char, 6> format = {
      '%', alternate ? '#' : '.', alternate ? '.' : '*', alternate ? '*' : kind, alternate ? kind : '\0',
      '\0'};
  std::string out(static_cast<std::size_t>(max_precision) + 400, '\0');
  const int n = std::snprintf(out.data(), out.size(), format.data(), precision,
                              type == '%' ? magnitude * 100 : magnitude);
  out.resize(static_cast<std::size_t>(std::max(0, n)));
  return out + (type == '%' ? "%" : "");
}

// Adds `body` with sign or prefix `head` in front, padded to the width of `spec`.
void append_padded(Heap& heap, TextBuilder& out, const Text& body, const std::string& head, const Spec& spec,
                   char align) {
  const auto length = static_cast<std::int64_t>(code_points(heap, body) + head.size());
  const auto pad = static_cast<std::size_t>(std::max<std::int64_t>(0, spec.width - length));
  const std::size_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
  if (align == '=') out.add(head);
  out.repeat(spec.fill, align == '=' ? pad : left);
  if (align != '=') out.add(head);
  out.add(body);
  if (align != '=') out.repeat(spec.fill, pad - left);
}

void append_padded(Heap& heap, TextBuilder& out, std::string bytes, const std::string& head, const Spec& spec,
                   char align) {
  Text body;
  body.bytes = std::move(bytes);
  body.ascii = false;
  append_padded(heap, out, body, head, spec, align);
}

}  // namespace

void append_formatted(Heap& heap, TextBuilder& out, const Value& v, const Text& text) {
  if (text.bytes.empty()) {
    append_str(heap, out, v);
    return;
  }
  const std::string_view s = text.bytes;
  Spec spec;
  std::size_t i = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
  const std::size_t first = std::max<std::size_t>(1, utf8::valid_length(s));
  bool fill_given = false;
  if (first < s.size() && is_align(s[first])) {
    spec.fill = s.substr(0, first);
    spec.align = s[first];
    i = first + 1;
    fill_given = true;
  } else if (is_align(s[0])) {
    spec.align = s[0];
    i = 1;
  }
  const auto at = [&](char c) { return i < s.size() && s[i] == c; };
  if (at('+') || at('-') || at(' ')) spec.sign = s[i++];
  if (at('#')) {
    spec.alternate = true;
    ++i;
  }
  if (at('0')) {
    spec.zero = true;
    if (!fill_given) spec.fill = "0";
    if (spec.align == '\0') spec.align = '=';
    ++i;
  }
  const auto number = [&](std::int64_t limit) {
    std::int64_t n = 0;
    while (i < s.size() && s[i] >= '0' && s[i] <= '9') {
      n = n * 10 + (s[i++] - '0');
      if (n > limit)
        fail("a format asks for " + std::to_string(n) + " characters (limit " + std::to_string(limit) + ")");
    }
    return n;
  };
  spec.width = number(max_width);
  if (at(',') || at('_')) spec.grouping = s[i++];
  if (at('.')) {
    ++i;
    if (i >= s.size() || s[i] < '0' || s[i] > '9') fail("Format specifier missing precision");
    spec.precision = static_cast<int>(number(v.is_string() ? max_width : max_precision));
  }
  if (i < s.size()) spec.type = s[i++];
  if (i != s.size()) fail("Invalid format specifier");
  const auto unknown = [&] {
    fail("Unknown format code " + quoted(std::string(1, spec.type)) + " for object of type " +
         quoted(type_name(v)));
  };
  if (v.is_string()) {
    if (spec.type != '\0' && spec.type != 's') unknown();
    if (spec.align == '=' && !spec.zero) fail("'=' alignment not allowed in string format specifier");
    if (spec.sign != '-') fail("Sign not allowed in string format specifier");
    const Value cut = spec.precision < 0 ? v
                                         : slice(heap, v, Value(),
                                                 Value(static_cast<std::int64_t>(spec.precision)), Value());
    const char align = spec.align == '\0' || spec.align == '=' ? '<' : spec.align;
    append_padded(heap, out, cut.text(), "", spec, align);
    return;
  }
  const bool real =
      v.is(Kind::real) || (v.is_integral() && spec.type != '\0' &&
                           std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos);
  if (!real && !v.is_integral()) {
    fail("unsupported format string passed to " + type_name(v) + ".__format__");
  }
  const double d = v.is(Kind::real) ? v.real() : static_cast<double>(v.integer());
  const bool negative = real ? std::signbit(d) && !std::isnan(d) : v.integer() < 0;
  std::string head = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  std::string digits;
  if (real) {
    if (spec.type != '\0' && std::string_view("eEfFgGn%").find(spec.type) == std::string_view::npos)
      unknown();
    if (spec.type == '\0' && spec.precision < 0) {
      digits = real_repr(std::fabs(d));
    } else if (spec.type == '\0') {
      digits = real_digits(d, 'g', std::max(1, spec.precision), spec.alternate);
      if (digits.find_first_of(".en") == std::string::npos) digits += ".0";
    } else {
      const char type = spec.type == 'n' ? 'g' : spec.type;
      digits = real_digits(d, type, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
    }
    if (spec.grouping != '\0') {
      const std::size_t point = std::min(digits.find_first_not_of("0123456789"), digits.size());
      digits = grouped(digits.substr(0, point), spec.grouping, 3) + digits.substr(point);
    }
  } else {
    if (spec.precision >= 0) fail("Precision not allowed in integer format specifier");
    const std::uint64_t magnitude = magnitude_of(v.integer());
    const char type = spec.type == '\0' || spec.type == 'n' ? 'd' : spec.type;
    if (type == '\0' || std::string_view("bcdoxX").find(type) == std::string_view::npos) unknown();
    if (v.is(Kind::boolean) && spec.type == '\0' && spec.width == 0) {
      digits = std::to_string(magnitude);
    } else if (type == 'c') {
      if (v.integer() < 0 || v.integer() > 0x10FFFF) fail("%c arg not in range(0x110000)");
      utf8::append(digits, static_cast<char32_t>(v.integer()));
      head.clear();
    } else {
      const unsigned base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'd' ? 10 : 16;
      digits = digits_of(magnitude, base, type == 'X');
      if (spec.grouping != '\0') digits = grouped(digits, spec.grouping, base == 10 ? 3 : 4);
      if (spec.alternate && base != 10) head += std::string("0") + type;
    }
  }
  const char align = spec.align == '\0' ? '>' : spec.align;
  append_padded(heap, out, std::move(digits), head, spec, align);
}

Value percent_format(Heap& heap, const Text& format, const Value& args) {
  const bool is_tuple = is_sequence(args, SequenceType::tuple);
  const bool mapping = args.is(Kind::dict);
  std::size_t next = 0;
  const auto take = [&]() -> Value {
    if (is_tuple) {
      if (next >= as_sequence(args).items.size()) fail("not enough arguments for format string");
      return as_sequence(args).items[next++];
    }
    if (next++ > 0) fail("not enough arguments for format string");
    return args;
  };
  TextBuilder out(&heap.budget());
  const std::string& s = format.bytes;
  std::size_t run = 0;
  for (std::size_t i = 0; i < s.size();) {
    if (s[i] != '%') {
      ++i;
      continue;
    }
    heap.budget().step();
    out.add(format, run, i);
    ++i;
    Value value;
    bool have_value = false;
    if (i < s.size() && s[i] == '(') {
      const std::size_t close = s.find(')', i);
      if (close == std::string::npos) fail("incomplete format key");
      if (!mapping) fail("format requires a mapping");
      const std::string key = s.substr(i + 1, close - i - 1);
      const Value* item = find(heap, as_dict(args), heap.string(key));
      if (item == nullptr) fail(quoted(key));
      value = *item;
      have_value = true;
      next = 1;
      i = close + 1;
    }
    Spec spec;
    bool left = false;
    for (; i < s.size() && std::string_view("-+ #0").find(s[i]) != std::string_view::npos; ++i) {
      left |= s[i] == '-';
      spec.zero |= s[i] == '0';
      spec.alternate |= s[i] == '#';
      if (s[i] == '+' || (s[i] == ' ' && spec.sign != '+')) spec.sign = s[i];
    }
    const auto number = [&](std::int64_t limit) {
      std::int64_t n = 0;
      if (i < s.size() && s[i] == '*') {
        ++i;
        const Value star = take();
        if (!star.is_integral()) fail("* wants int");
        n = star.integer();
        if (n < 0) left = true;
        n = n < 0 ? (n < -limit ? limit + 1 : -n) : n;
        if (n > limit) fail("a format asks for too many characters (limit " + std::to_string(limit) + ")");
        return n;
      }
      while (i < s.size() && s[i] >= '0' && s[i] <= '9') {
        n = n * 10 + (s[i++] - '0');
        if (n > limit) fail("a format asks for too many characters (limit " + std::to_string(limit) + ")");
      }
      return n;
    };
    spec.width = number(max_width);
    if (i < s.size() && s[i] == '.') {
      ++i;
      spec.precision = static_cast<int>(number(max_precision));
    }
    if (i < s.size() && (s[i] == 'l' || s[i] == 'h' || s[i] == 'L')) ++i;
    if (i >= s.size()) fail("incomplete format");
    spec.type = s[i++];
    run = i;
    if (spec.type == '%') {
      out.add("%");
      continue;
    }
    if (std::string_view("sradiuoxXeEfFgGc").find(spec.type) == std::string_view::npos) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "%x", static_cast<unsigned char>(spec.type));
      fail("unsupported format character " + quoted(std::string(1, spec.type)) + " (0x" + code.data() +
           ") at index " + std::to_string(i - 1));
    }
    if (!have_value) value = take();
    const char align = left ? '<' : '>';
    if (spec.type == 's' || spec.type == 'r' || spec.type == 'a') {
      Value text;
      if (spec.type == 's') {
        text = to_string(heap, value);
      } else {
        TextBuilder builder(&heap.budget());
        append_repr(heap, builder, value);
        text = heap.string(std::move(builder));
      }
      if (spec.precision >= 0) {
        text = slice(heap, text, Value(), Value(static_cast<std::int64_t>(spec.precision)), Value());
      }
      if (format.markup) {
        TextBuilder builder(&heap.budget());
        append_escaped(heap, builder, text);
        text = heap.string(std::move(builder));
      }
      append_padded(heap, out, text.text(), "", spec, align);
      continue;
    }
    if (spec.type == 'c') {
      if (value.is_string() && code_points(heap, value.text()) == 1) {
        append_padded(heap, out, value.text(), "", spec, align);
        continue;
      }
      if (!value.is_integral()) fail("%c requires int or char");
      if (value.integer() < 0 || value.integer() > 0x10FFFF) fail("%c arg not in range(0x110000)");
      std::string character;
      utf8::append(character, static_cast<char32_t>(value.integer()));
      append_padded(heap, out, character, "", spec, align);
      continue;
    }
    if (value.is(Kind::undefined)) fail_undefined(heap, value);
    const bool real = std::string_view("eEfFgG").find(spec.type) != std::string_view::npos;
    if (!value.is_integral() && !value.is(Kind::real)) {
      fail(real ? "must be real number, not " + type_name(value)
                : "%" + std::string(1, spec.type) + " format: a real number is required, not " +
                      type_name(value));
    }
    std::string digits;
    bool negative = false;
    std::string prefix;
    if (real) {
      const double d = value.is(Kind::real) ? value.real() : static_cast<double>(value.integer());
      negative = std::signbit(d) && !std::isnan(d);
      digits = real_digits(d, spec.type, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
    } else {
      const bool decimal = spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
      std::int64_t integer = value.integer();
      if (value.is(Kind::real)) {
        if (!decimal) fail("%" + std::string(1, spec.type) + " format: an integer is required, not float");
        if (!std::isfinite(value.real()) || std::fabs(value.real()) >= 9.2e18) {
          fail("an integer beyond 64 bits is not supported");
        }
        integer = static_cast<std::int64_t>(value.real());
      }
      negative = integer < 0;
      digits = digits_of(magnitude_of(integer), decimal ? 10 : spec.type == 'o' ? 8 : 16, spec.type == 'X');
      if (spec.precision > static_cast<int>(digits.size())) {
        digits.insert(0, static_cast<std::size_t>(spec.precision) - digits.size(), '0');
      }
      if (spec.alternate && !decimal) prefix = std::string("0") + spec.type;
    }
    const std::string head = (negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign)) + prefix;
    if (spec.zero && !left) spec.fill = "0";
    append_padded(heap, out, std::move(digits), head, spec, spec.zero && !left ? '=' : align);
  }
  out.add(format, run, s.size());
  const bool single = !is_tuple && !mapping && !args.is(Kind::sequence) && next == 0;
  if ((is_tuple && next < as_sequence(args).items.size()) || single) {
    fail("not all arguments converted during string formatting");
  }
  return heap.string(std::move(out), format.markup);
}

namespace {

class Formatter {
 public:
  Formatter(Interpreter& in, const Arguments& arguments) : in_(in), arguments_(arguments) {}

  void run(const Text& format, TextBuilder& out, int depth) {
    if (depth > 2) fail("Max string recursion exceeded");
    const std::string& s = format.bytes;
    std::size_t run = 0;
    for (std::size_t i = 0; i < s.size();) {
      const char c = s[i];
      if (c != '{' && c != '}') {
        ++i;
        continue;
      }
      in_.budget().step();
      out.add(format, run, i);
      if (i + 1 < s.size() && s[i + 1] == c) {
        out.add(format, i, i + 1);
        i += 2;
        run = i;
        continue;
      }
      if (c == '}') fail("Single '}' encountered in format string");
      if (i + 1 >= s.size()) fail("Single '{' encountered in format string");
      const std::size_t begin = i + 1;
      std::size_t end = begin;
      for (int open = 1; end < s.size(); ++end) {
        if (s[end] == '{') ++open;
        if (s[end] == '}' && --open == 0) break;
      }
      if (end >= s.size()) fail("expected '}' before end of string");
      field(format, begin, end, out, depth);
      i = run = end + 1;
    }
    out.add(format, run, s.size());
  }

 private:
  void field(const Text& format, std::size_t begin, std::size_t end, TextBuilder& out, int depth) {
    const std::string_view all(format.bytes);
    std::size_t name_end = begin;
    bool bracket = false;
    while (name_end < end && (bracket || (all[name_end] != '!' && all[name_end] != ':'))) {
      if (all[name_end] == '[') bracket = true;
      if (all[name_end] == ']') bracket = false;
      ++name_end;
    }
    Value value = look_up(all.substr(begin, name_end - begin));
    std::size_t at = name_end;
    if (at < end && all[at] == '!') {
      if (at + 1 >= end) fail("end of string while looking for conversion specifier");
      const char conversion = all[at + 1];
      if (at + 2 < end && all[at + 2] != ':') fail("expected ':' after conversion specifier");
      TextBuilder builder(&in_.budget());
      if (conversion == 's') {
        append_str(in_.heap(), builder, value);
      } else if (conversion == 'r' || conversion == 'a') {
        append_repr(in_.heap(), builder, value);
      } else {
        fail("Unknown conversion specifier " + std::string(1, conversion));
      }
      value = in_.heap().string(std::move(builder));
      at += 2;
    }
    TextBuilder spec(&in_.budget());
    if (at < end && all[at] == ':') run(in_.heap().slice(format, at + 1, end).text(), spec, depth + 1);
    append_formatted(in_.heap(), out, value, in_.heap().string(std::move(spec)).text());
  }

  Value look_up(std::string_view name) {
    std::size_t i = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, i);
    Value value;
    std::int64_t index = 0;
    const bool digits = !first.empty() && first.find_first_not_of("0123456789") == std::string_view::npos;
    if (first.empty() || digits) {
      if (first.empty()) {
        if (manual_) fail("cannot switch from manual field specification to automatic field numbering");
        automatic_ = true;
        index = next_++;
      } else {
        if (automatic_) fail("cannot switch from automatic field numbering to manual field specification");
        manual_ = true;
        parse_integer(first, 10, index);
      }
      if (index >= static_cast<std::int64_t>(arguments_.positional.size())) {
        fail("tuple index out of range");
      }
      value = arguments_.positional[static_cast<std::size_t>(index)];
    } else {
      const Value* item = arguments_.keyword(first);
      if (item == nullptr) fail(quoted(first));
      value = *item;
    }
    while (i < name.size()) {
      if (name[i] == '.') {
        const std::size_t end = std::min(name.find_first_of(".[", i + 1), name.size());
        if (end == i + 1) fail("Empty attribute in format string");
        value = in_.attribute(value, in_.heap().string(name.substr(i + 1, end - i - 1)));
        i = end;
      } else {
        const std::size_t close = name.find(']', i);
        if (name[i] != '[') fail("Only '.' or '[' may follow ']' in format field specifier");
        if (close == std::string_view::npos) fail("Missing ']' in format string");
        const std::string_view key = name.substr(i + 1, close - i - 1);
        if (key.empty()) fail("Empty attribute in format string");
        const bool number = key.find_first_not_of("0123456789") == std::string_view::npos;
        value = in_.subscript(
            value, number && parse_integer(key, 10, index) ? Value(index) : in_.heap().string(key));
        i = close + 1;
      }
    }
    return value;
  }

  Interpreter& in_;
  const Arguments& arguments_;
  std::int64_t next_ = 0;
  bool automatic_ = false, manual_ = false;
};

}  // namespace

Value format_string(Interpreter& in, const Text& format, const Arguments& arguments) {
  TextBuilder out(&in.budget());
  Formatter(in, arguments).run(format, out, 0);
  return in.heap().string(std::move(out), format.markup);
}

}  // namespace ttt::inline v2::jinja
