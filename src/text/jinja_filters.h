// What the files of filters and tests share.
#pragma once

#include <span>
#include <string_view>
#include <utility>

#include "text/jinja_interpreter.h"

namespace ttt::inline v2::jinja {

using Filter = Value (*)(Interpreter&, const Value&, const Arguments&);
using NamedFilter = std::pair<std::string_view, Filter>;

std::span<const NamedFilter> text_filters();  // those that make text

bool is_true(const Value* v);
std::int64_t integer_argument(Interpreter& in, const Value* v, std::int64_t absent);
const Text& text_of(Interpreter& in, const Value& v);  // str(v)
// A str that a filter calls a method of, without converting it first.
const Text& require_text(Interpreter& in, const Value& v, const char* method);

}  // namespace ttt::inline v2::jinja
