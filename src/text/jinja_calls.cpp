// Attributes, items and calls: what a template can reach from a value.
#include <algorithm>

#include "text/jinja_interpreter.h"

namespace ttt::inline v2::jinja {

namespace {
std::string plural(std::size_t n) { return n == 1 ? "" : "s"; }
}  // namespace

const Value* Arguments::keyword(std::string_view name) const {
  for (const auto& [key, value] : keywords) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::vector<const Value*> bind(std::string_view function, const Arguments& arguments,
                               std::initializer_list<std::string_view> names, std::size_t required) {
  const std::string call = std::string(function) + "()";
  if (arguments.positional.size() > names.size()) {
    fail(call + " takes at most " + std::to_string(names.size()) + " argument" + plural(names.size()) + " (" +
         std::to_string(arguments.positional.size()) + " given)");
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [key, value] : arguments.keywords) {
    const auto* at = std::find(names.begin(), names.end(), key);
    if (at == names.end()) fail(call + " got an unexpected keyword argument " + quoted(key));
    const Value*& slot = bound[static_cast<std::size_t>(at - names.begin())];
    if (slot != nullptr) fail(call + " got multiple values for argument " + quoted(key));
    slot = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (bound[i] == nullptr) fail(call + " missing required argument " + quoted(names.begin()[i]));
  }
  return bound;
}

// Attributes and items
// ------------------------------------------------------------------------------------------------

Value Interpreter::method(const Value& self, const Value& name, bool& found) {
  const std::string& bytes = name.text().bytes;
  found = true;
  if (modifies(self, bytes) || (bytes.size() > 4 && bytes.substr(0, 2) == "__" &&
                                (bytes == "__class__" || bytes == "__init__" || bytes == "__dict__" ||
                                 bytes == "__doc__" || bytes == "__getitem__" || bytes == "__len__"))) {
    return heap_.undefined("access to attribute " + quoted(bytes) + " of " + quoted(type_name(self)) +
                           " object is unsafe.");
  }
  if (is_method(self, bytes)) {
    auto* callable = heap_.make<Callable>();
    callable->type = CallableType::method;
    callable->self = self;
    callable->name = bytes;
    return Value(Kind::callable, callable);
  }
  found = false;
  return {};
}

Value Interpreter::loop_attribute(const Value& value, const std::string& name, bool& found) {
  Loop& loop = *static_cast<Loop*>(value.object());
  const auto integer = [](std::size_t i) { return Value(static_cast<std::int64_t>(i)); };
  const auto length = [&] {
    while (pull(loop)) {}
    return loop.items.size();
  };
  found = true;
  if (name == "index") return integer(loop.index0 + 1);
  if (name == "index0") return integer(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 >= loop.items.size() && !pull(loop));
  if (name == "length") return integer(length());
  if (name == "revindex") return integer(length() - loop.index0);
  if (name == "revindex0") return integer(length() - loop.index0 - 1);
  if (name == "depth") return Value(static_cast<std::int64_t>(loop.depth0) + 1);
  if (name == "depth0") return Value(static_cast<std::int64_t>(loop.depth0));
  if (name == "previtem") {
    return loop.index0 > 0 ? loop.items[loop.index0 - 1] : heap_.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    const bool more = loop.index0 + 1 < loop.items.size() || pull(loop);
    return more ? loop.items[loop.index0 + 1] : heap_.undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    auto* callable = heap_.make<Callable>();
    callable->type = name == "cycle" ? CallableType::loop_cycle : CallableType::loop_changed;
    callable->loop = &loop;
    return Value(Kind::callable, callable);
  }
  found = false;
  return {};
}

Value Interpreter::attribute(const Value& object, const Value& name) {
  bool found = false;
  Value value;
  switch (object.kind()) {
    case Kind::undefined:
      value = method(object, name, found);  // what every Python object has
      if (!found) fail_undefined(heap_, object);
      break;
    case Kind::name_space:
      if (const Value* item = find(as_dict(object), name.text().bytes)) return *item;
      break;
    case Kind::loop:
      value = loop_attribute(object, name.text().bytes, found);
      break;
    case Kind::callable: {
      auto& callable = *static_cast<Callable*>(object.object());
      const std::string& bytes = name.text().bytes;
      if (callable.type == CallableType::cycler) {
        if (bytes == "current") return callable.items[callable.position];
        if (bytes == "next" || bytes == "reset") {
          auto* method = heap_.make<Callable>();
          method->type = bytes == "next" ? CallableType::cycler_next : CallableType::cycler_reset;
          method->owner = &callable;
          return Value(Kind::callable, method);
        }
      }
      if (callable.type == CallableType::global && callable.name == "dict" && bytes == "fromkeys") {
        auto* from_keys = heap_.make<Callable>();
        from_keys->type = CallableType::method;
        from_keys->self = heap_.dict();
        from_keys->name = bytes;
        return Value(Kind::callable, from_keys);
      }
      if (callable.type == CallableType::macro && bytes == "name") return heap_.string(callable.macro->name);
      break;
    }
    default:
      value = method(object, name, found);
      if (!found && object.is(Kind::dict)) {
        if (const Value* item = find(heap_, as_dict(object), name)) return *item;
      }
  }
  return found ? value : heap_.undefined_of(object, name);
}

Value Interpreter::subscript(const Value& object, const Value& key) {
  switch (object.kind()) {
    case Kind::undefined:
      fail_undefined(heap_, object);
    case Kind::string:
      if (key.is_integral()) {
        const Text& text = object.text();
        const std::vector<std::size_t> offsets =
            text.ascii ? std::vector<std::size_t>() : character_offsets(heap_, text);
        const auto n = static_cast<std::int64_t>(text.ascii ? text.bytes.size() : offsets.size() - 1);
        const std::int64_t i = key.integer() < 0 ? key.integer() + n : key.integer();
        if (i < 0 || i >= n) break;
        const auto at = static_cast<std::size_t>(i);
        return text.ascii ? heap_.slice(text, at, at + 1) : heap_.slice(text, offsets[at], offsets[at + 1]);
      }
      break;
    case Kind::sequence:
      if (key.is_integral() && as_sequence(object).subscriptable()) {
        const Sequence& s = as_sequence(object);
        const auto n = static_cast<std::int64_t>(s.items.size());
        const std::int64_t i = key.integer() < 0 ? key.integer() + n : key.integer();
        if (i >= 0 && i < n) return s.items[static_cast<std::size_t>(i)];
      }
      break;
    case Kind::dict:
      if (hashable(key)) {
        if (const Value* item = find(heap_, as_dict(object), key)) return *item;
      }
      break;
    default:
      break;
  }
  if (key.is_string()) {
    if (object.is(Kind::loop) || object.is(Kind::name_space) || object.is(Kind::callable))
      return attribute(object, key);
    bool found = false;
    const Value value = method(object, key, found);
    if (found) return value;
  }
  return heap_.undefined_of(object, key);
}

Value Interpreter::path(Value object, const Value& attribute, const Value* fallback) {
  const auto look = [&](const Value& key) {
    object = subscript(object, key);
    if (fallback != nullptr && !fallback->is(Kind::none) && object.is(Kind::undefined)) object = *fallback;
  };
  if (attribute.is(Kind::none)) return object;
  if (!attribute.is_string()) {
    look(attribute);
    return object;
  }
  const std::string& bytes = attribute.text().bytes;
  for (std::size_t begin = 0; begin <= bytes.size();) {
    const std::size_t end = std::min(bytes.find('.', begin), bytes.size());
    const std::string part = bytes.substr(begin, end - begin);
    std::int64_t index = 0;
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    look(digits && parse_integer(part, 10, index) ? Value(index) : heap_.string(part));
    begin = end + 1;
  }
  return object;
}

// Calls
// ---------------------------------------------------------------------------------------------------------------

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is(Kind::undefined)) fail_undefined(heap_, callee);
  if (callee.is(Kind::loop)) {
    Loop& loop = *static_cast<Loop*>(callee.object());
    if (!loop.node->recursive) {
      fail("The loop must have the 'recursive' marker to be called recursively.");
    }
    const auto bound = bind("loop", arguments, {"iterable"}, 1);
    if (macro_depth_ >= budget().depth_limit) budget().too_deep();
    ++macro_depth_;
    TextBuilder out(&budget());
    run_loop(*loop.node, *loop.scope, iterate(heap_, *bound[0]), loop.depth0 + 1, out);
    --macro_depth_;
    return heap_.string(std::move(out));
  }
  if (!callee.is(Kind::callable)) fail(quoted(type_name(callee)) + " object is not callable");
  auto& callable = *static_cast<Callable*>(callee.object());
  switch (callable.type) {
    case CallableType::macro:
      return call_macro(callable, arguments);
    case CallableType::method:
      return call_method(*this, callable.self, callable.name, arguments);
    case CallableType::global:
      return call_global(callable.name, arguments);
    case CallableType::loop_cycle:
      if (arguments.positional.empty()) fail("no items for cycling given");
      return arguments.positional[callable.loop->index0 % arguments.positional.size()];
    case CallableType::loop_changed: {
      std::optional<std::vector<Value>>& last = callable.loop->last_changed;
      bool same = last.has_value() && last->size() == arguments.positional.size();
      for (std::size_t i = 0; same && i < last->size(); ++i)
        same = equal(heap_, (*last)[i], arguments.positional[i]);
      if (!same) last = arguments.positional;
      return Value(!same);
    }
    case CallableType::cycler_next: {
      Callable& cycler = *callable.owner;
      const Value current = cycler.items[cycler.position];
      cycler.position = (cycler.position + 1) % cycler.items.size();
      return current;
    }
    case CallableType::cycler_reset:
      callable.owner->position = 0;
      return {};
    case CallableType::joiner:
      if (callable.position++ == 0) return heap_.string("");
      return callable.items[0];
    case CallableType::cycler:
    case CallableType::loop:
      break;
  }
  fail("object is not callable");
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  const Macro& macro = *callable.macro;
  if (macro_depth_ >= budget().depth_limit) budget().too_deep();
  ++macro_depth_;
  const Deeper deeper(*this);
  Scope* scope = make_scope(callable.scope);
  const std::size_t given = std::min(arguments.positional.size(), macro.parameters.size());
  std::vector<bool> used(arguments.keywords.size(), false);
  const auto take = [&](std::string_view name) -> const Value* {
    for (std::size_t i = 0; i < arguments.keywords.size(); ++i) {
      if (!used[i] && arguments.keywords[i].first == name) {
        used[i] = true;
        return &arguments.keywords[i].second;
      }
    }
    return nullptr;
  };
  bool explicit_caller = false;
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    const std::string& name = template_.names[static_cast<std::size_t>(parameter.name)];
    explicit_caller |= parameter.name == caller_name_;
    const Value* value = i < given ? &arguments.positional[i] : take(name);
    if (value != nullptr) {
      set(*scope, parameter.name, *value);
    } else {
      set(*scope, parameter.name, heap_.undefined("parameter " + quoted(name) + " was not provided"));
      missing.push_back(i);
    }
  }
  if (macro.uses_caller && !explicit_caller) {
    const Value* caller = take("caller");
    set(*scope, caller_name_, caller != nullptr ? *caller : heap_.undefined("No caller defined"));
  }
  const auto unused = std::find(used.begin(), used.end(), false);
  if (macro.uses_kwargs) {
    const Value kwargs = heap_.dict();
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (!used[i]) {
        store(heap_, as_dict(kwargs), heap_.string(arguments.keywords[i].first),
              arguments.keywords[i].second);
      }
    }
    set(*scope, kwargs_name_, kwargs);
  } else if (unused != used.end()) {
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (!used[i] && arguments.keywords[i].first == "caller") {
        fail("macro " + quoted(macro.name) +
             " was invoked with two values for the special caller argument. This is most likely a bug.");
      }
    }
    fail("macro " + quoted(macro.name) + " takes no keyword argument " +
         quoted(arguments.keywords[static_cast<std::size_t>(unused - used.begin())].first));
  }
  if (macro.uses_varargs) {
    set(*scope, varargs_name_,
        heap_.tuple(
            {arguments.positional.begin() + static_cast<std::ptrdiff_t>(given), arguments.positional.end()}));
  } else if (arguments.positional.size() > macro.parameters.size()) {
    fail("macro " + quoted(macro.name) + " takes not more than " + std::to_string(macro.parameters.size()) +
         " argument(s)");
  }
  for (std::size_t i : missing) {  // a default may read the parameters before it
    const Parameter& parameter = macro.parameters[i];
    if (parameter.default_value != nullptr)
      set(*scope, parameter.name, evaluate(*parameter.default_value, *scope));
  }
  TextBuilder out(&budget());
  run_body(macro.body, *scope, out);
  --macro_depth_;
  return heap_.string(std::move(out));
}

}  // namespace ttt::inline v2::jinja
