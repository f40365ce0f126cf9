// jinja2's built-in tests.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "text/jinja_filters.h"

namespace ttt::inline v2::jinja {

namespace {

using Test = bool (*)(Interpreter&, const Value&, const Arguments&);

const Value& operand(const Arguments& a) { return *bind("test", a, {"other"}, 1)[0]; }

bool parity(Interpreter& in, const Value& v, std::int64_t rest) {
  const Value remainder = modulo(in.heap(), v, Value(std::int64_t{2}));
  return equal(in.heap(), remainder, Value(rest));
}

bool test_sequence(Interpreter&, const Value& v, const Arguments&) {
  if (v.is(Kind::sequence)) return as_sequence(v).subscriptable();
  return v.is_string() || v.is(Kind::dict) || v.is(Kind::undefined);
}

bool test_iterable(Interpreter&, const Value& v, const Arguments&) {
  return v.is_string() || v.is(Kind::dict) || v.is(Kind::undefined) || v.is(Kind::sequence) ||
         v.is(Kind::loop);
}

bool test_number(Interpreter&, const Value& v, const Arguments&) {
  return v.is_integral() || v.is(Kind::big_integer) || v.is(Kind::real);
}

template <char first, bool or_equal>
bool test_order(Interpreter& in, const Value& v, const Arguments& a) {
  constexpr std::array<char, 3> op = {first, or_equal ? '=' : '\0', '\0'};
  return less(in.heap(), v, operand(a), op.data());
}

bool test_equal(Interpreter& in, const Value& v, const Arguments& a) {
  return equal(in.heap(), v, operand(a));
}
bool test_unequal(Interpreter& in, const Value& v, const Arguments& a) {
  return !equal(in.heap(), v, operand(a));
}

const std::unordered_map<std::string_view, Test>& tests() {
  using A = Arguments;
  using I = Interpreter;
  using V = Value;
  static const std::unordered_map<std::string_view, Test> table = {
      {"odd", [](I& in, const V& v, const A&) { return parity(in, v, 1); }},
      {"even", [](I& in, const V& v, const A&) { return parity(in, v, 0); }},
      {"divisibleby",
       [](I& in, const V& v, const A& a) {
         return equal(in.heap(), modulo(in.heap(), v, operand(a)), V(std::int64_t{0}));
       }},
      {"defined", [](I&, const V& v, const A&) { return !v.is(Kind::undefined); }},
      {"undefined", [](I&, const V& v, const A&) { return v.is(Kind::undefined); }},
      {"filter", [](I&, const V& v, const A&) { return v.is_string() && is_filter(v.text().bytes); }},
      {"test", [](I&, const V& v, const A&) { return v.is_string() && is_test(v.text().bytes); }},
      {"none", [](I&, const V& v, const A&) { return v.is(Kind::none); }},
      {"boolean", [](I&, const V& v, const A&) { return v.is(Kind::boolean); }},
      {"false", [](I&, const V& v, const A&) { return v.is(Kind::boolean) && !v.boolean(); }},
      {"true", [](I&, const V& v, const A&) { return v.is(Kind::boolean) && v.boolean(); }},
      {"integer", [](I&, const V& v, const A&) { return v.is(Kind::integer) || v.is(Kind::big_integer); }},
      {"float", [](I&, const V& v, const A&) { return v.is(Kind::real); }},
      {"lower", [](I& in, const V& v, const A&) { return is_lower_text(text_of(in, v)); }},
      {"upper", [](I& in, const V& v, const A&) { return is_upper_text(text_of(in, v)); }},
      {"string", [](I&, const V& v, const A&) { return v.is_string(); }},
      {"mapping", [](I&, const V& v, const A&) { return v.is(Kind::dict); }},
      {"number", test_number},
      {"sequence", test_sequence},
      {"iterable", test_iterable},
      {"callable",
       [](I&, const V& v, const A&) {
         return v.is(Kind::callable) || v.is(Kind::loop) || v.is(Kind::undefined);
       }},
      {"sameas", [](I&, const V& v, const A& a) { return v.same_as(operand(a)); }},
      {"escaped", [](I&, const V& v, const A&) { return v.is_string() && v.text().markup; }},
      {"in", [](I& in, const V& v, const A& a) { return contains(in.heap(), operand(a), v); }},
      {"==", test_equal},
      {"eq", test_equal},
      {"equalto", test_equal},
      {"!=", test_unequal},
      {"ne", test_unequal},
      {">", test_order<'>', false>},
      {"gt", test_order<'>', false>},
      {"greaterthan", test_order<'>', false>},
      {"ge", test_order<'>', true>},
      {">=", test_order<'>', true>},
      {"<", test_order<'<', false>},
      {"lt", test_order<'<', false>},
      {"lessthan", test_order<'<', false>},
      {"<=", test_order<'<', true>},
      {"le", test_order<'<', true>},
  };
  return table;
}

}  // namespace

bool is_test(std::string_view name) { return tests().count(name) > 0; }

bool Interpreter::apply_test(std::string_view name, const Value& value, const Arguments& arguments) {
  budget().step();
  const auto found = tests().find(name);
  if (found == tests().end()) fail("No test named " + quoted(name) + ".");
  static constexpr std::array<std::string_view, 18> with_operand = {
      "divisibleby", "sameas",      "in", "==", "eq", "equalto", "!=",       "ne", ">",
      "gt",          "greaterthan", "ge", ">=", "<",  "lt",      "lessthan", "<=", "le"};
  const std::size_t given = arguments.positional.size() + arguments.keywords.size();
  if (given > 0 && std::find(with_operand.begin(), with_operand.end(), name) == with_operand.end()) {
    fail("test_" + std::string(name) + "() takes 1 positional argument but " + std::to_string(given + 1) +
         " were given");
  }
  return found->second(*this, value, arguments);
}

}  // namespace ttt::inline v2::jinja
