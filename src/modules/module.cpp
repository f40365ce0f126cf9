#include "ttt/modules/module.h"

#include <algorithm>
#include <utility>

#include "ttt/debug/input.h"
#include "ttt/modules/shown.h"

namespace ttt::inline v2 {

Backend& Home::backend() const { return device ? *device : *default_device(); }

LazyWeight Home::bind(const LazyWeight& weight, DataType dtype, const MemoryConfig& memory,
                      const Sharding& sharding) const {
  if (!weight) return {};
  LazyWeight result = weight.bind(backend(), dtype, memory, cache, sharding);
  if (bound) bound->push_back(result);
  return result;
}

static thread_local std::uint64_t looks = 0;
std::uint64_t looks_at_rows() { return looks; }
void detail::look_at_rows() { ++looks; }

template <class T>
static Tensor make_input(const Step& step, const TensorSpec& spec, const Step::Fill<T>& fill) {
  const Tensor tensor = step.device->allocate(spec);
  StepInput input{.tensor = tensor,
                  .write = [tensor, fill, values = std::vector<T>()](const Step& s) mutable {
                    values.assign(static_cast<std::size_t>(tensor.shape().elements()), T{});
                    fill(s, values);
                    s.device->write(tensor, std::span<const T>(values));
                  }};
  const std::uint64_t before = looks;
  input.write(step);
  looks = before;  // a replay looks too
  if (step.inputs != nullptr) step.inputs->push_back(std::move(input));
  return tensor;
}

Tensor Step::input(const Shape& shape, DataType dtype, const Fill<float>& fill) const {
  return make_input(*this, {.shape = shape, .dtype = dtype}, fill);
}
Tensor Step::input(const Shape& shape, const Fill<std::int32_t>& fill) const {
  return make_input(*this, {.shape = shape, .dtype = DataType::i32, .layout = Layout::row_major}, fill);
}

const Step::RowPlaces& Step::row_places() const {
  if (!row_places_.positions) {
    row_places_.positions = input({tokens}, [](const Step& step, std::span<std::int32_t> values) {
      std::ranges::copy(step.positions, values.begin());
    });
    row_places_.page_rows = input({tokens}, [](const Step& step, std::span<std::int32_t> values) {
      for (const SequenceRows& rows : step.sequences)
        std::fill_n(values.begin() + rows.first, rows.count, static_cast<std::int32_t>(rows.page_row));
    });
  }
  return row_places_;
}

namespace {

// The module that runs whose result nobody has shown yet.
thread_local const ModuleName* awaited = nullptr;

// The listener gets the layer as a number and the rest of the path as the name.
std::string name_in_layer(const ModuleName& module, std::string_view part) {
  std::string_view name = module.path;
  if (module.layer >= 0) {
    const std::string prefix = "layers." + std::to_string(module.layer);
    if (name.starts_with(prefix)) name.remove_prefix(std::min(name.size(), prefix.size() + 1));
  }
  std::string full(name);
  if (!part.empty()) full += (full.empty() ? "" : ".") + std::string(part);
  return full;
}

}  // namespace

void tap(const Tensor& x, const ModuleName& module, std::string_view part) {
  if (!debug::tapping()) [[likely]]
    return;
  if (part.empty() && awaited != nullptr && module.path == awaited->path) awaited = nullptr;
  debug::tap(x, name_in_layer(module, part), module.layer);
}

Tensor shown(const Tensor& x, const ModuleName& module, const std::function<Tensor(const Tensor&)>& forward) {
  // A part that goes by the name of the module around it: that one shows.
  if (awaited != nullptr && module.path == awaited->path) return forward(x);
  const Tensor in = debug::input(x, name_in_layer(module, "in"), module.layer);
  tap(in, module, "in");
  struct Awaiting {
    const ModuleName* outer;
    ~Awaiting() { awaited = outer; }
  } const awaiting{std::exchange(awaited, &module)};
  Tensor y = forward(in);
  if (awaited != nullptr) tap(y, module);
  return y;
}

}  // namespace ttt::inline v2
