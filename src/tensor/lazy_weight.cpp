#include "ttt/tensor/lazy_weight.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

struct LazyWeight::State {
  WeightSourcePtr source;
  std::string name;
  WeightSpec spec;
  Device* device = nullptr;
  WeightCache cache;
  std::once_flag once;
  std::atomic<bool> materialised = false;
  Tensor tensor;
};

namespace {

// Row `order` of the parts stacked: for each of `groups` equal parts of every matrix, first those of part 0,
// then of part 1, ...
WeightSourcePtr interleave_groups(const std::vector<WeightSourcePtr>& parts, std::int64_t groups) {
  std::vector<std::int64_t> order;
  for (std::int64_t g = 0; g < groups; ++g) {
    std::int64_t start = 0;
    for (const WeightSourcePtr& part : parts) {
      const std::int64_t n = part->rows() / groups;
      for (std::int64_t r = 0; r < n; ++r) order.push_back(start + g * n + r);
      start += part->rows();
    }
  }
  return gather_rows(concat_rows(parts), std::move(order));
}

}  // namespace

LazyWeight::LazyWeight(WeightSourcePtr source, WeightRole role, std::string name)
    : state_(std::make_shared<State>()) {
  if (!source) throw Error("a weight without a source", name);
  state_->source = std::move(source);
  state_->spec.role = role;
  state_->name = std::move(name);
}

LazyWeight LazyWeight::from_values(std::vector<float> values, std::int64_t rows, std::int64_t cols,
                                   WeightRole role) {
  return LazyWeight(make_source(std::move(values), rows, cols), role, "values");
}

static const std::string no_name;
static const WeightSourcePtr no_source;
static const WeightSpec no_spec;

const std::string& LazyWeight::name() const { return state_ ? state_->name : no_name; }
WeightRole LazyWeight::role() const { return spec().role; }
std::int64_t LazyWeight::rows() const { return state_ ? state_->source->rows() : 0; }
std::int64_t LazyWeight::cols() const { return state_ ? state_->source->cols() : 0; }
const WeightSourcePtr& LazyWeight::source() const { return state_ ? state_->source : no_source; }
const WeightSpec& LazyWeight::spec() const { return state_ ? state_->spec : no_spec; }

LazyWeight LazyWeight::bind(Device& device, DataType dtype, MemoryConfig memory, WeightCache cache,
                            const Sharding& sharding) const {
  if (!state_) return {};
  WeightSpec spec = state_->spec;
  spec.dtype = dtype;
  spec.memory = memory;
  spec.sharding = sharding;
  if (state_->device == &device && state_->spec == spec && state_->cache.folder() == cache.folder())
    return *this;
  LazyWeight bound(state_->source, spec.role, state_->name);
  bound.state_->spec = spec;
  bound.state_->device = &device;
  bound.state_->cache = std::move(cache);
  return bound;
}

LazyWeight LazyWeight::experts(std::int64_t count) const {
  if (!state_) return {};
  LazyWeight stacked(state_->source, WeightRole::experts, state_->name);
  stacked.state_->spec.experts = count;
  try {
    weight_shape(stacked.state_->spec, rows(), cols());
  } catch (const Error& error) { throw Error(error.problem(), name()); }
  return stacked;
}

const Tensor& LazyWeight::get() const {
  if (!state_) throw Error("get() of an absent weight");
  if (state_->device == nullptr)
    throw Error("the weight is not bound to a device", state_->name, "call bind() first");
  std::call_once(state_->once, [this] {
    try {
      state_->tensor = state_->cache.load(state_->source, state_->spec, *state_->device);
    } catch (const Error& error) {
      const std::string& source = error.where().empty() ? state_->source->describe() : error.where();
      throw Error(error.problem(), state_->name.empty() ? source : state_->name + " (" + source + ")",
                  error.fix());
    }
    state_->materialised = true;
  });
  return state_->tensor;
}

bool LazyWeight::materialised() const { return state_ && state_->materialised; }

std::size_t LazyWeight::bytes() const {
  if (!state_ || state_->device == nullptr) return 0;
  return state_->device->packed_bytes(state_->spec, rows(), cols());
}

LazyWeight LazyWeight::concat(std::vector<LazyWeight> parts, std::int64_t groups) {
  if (parts.empty()) throw Error("concat of no weights");
  std::string joined;
  std::vector<WeightSourcePtr> sources;
  for (const LazyWeight& part : parts) {
    if (!part) throw Error("concat with an absent weight", joined);
    if (part.role() != parts[0].role() || part.spec().experts != parts[0].spec().experts) {
      throw Error("weights of different roles cannot be fused", parts[0].name() + " and " + part.name());
    }
    joined += (joined.empty() ? "" : "+") + part.name();
    sources.push_back(part.source());
  }
  if (parts.size() == 1) return parts[0];
  const WeightRole role = parts[0].role();
  // Matrices that lie one behind the other in every part; of vectors, each row is one, of a single column.
  std::int64_t matrices = role == WeightRole::experts ? parts[0].spec().experts : 1;
  std::int64_t cols = 0;
  if (role == WeightRole::vector) {
    matrices = parts[0].rows();
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (parts[i].rows() != matrices) {
        throw Error("vectors of " + std::to_string(matrices) + " and " + std::to_string(parts[i].rows()) +
                        " rows cannot be fused",
                    joined);
      }
      cols += sources[i]->cols();
      sources[i] = reshape_source(sources[i], matrices * sources[i]->cols(), 1);
    }
  }
  for (const WeightSourcePtr& source : sources) {
    if (groups < 1 || source->rows() % (matrices * groups) != 0)
      throw Error(std::to_string(source->rows() / matrices) + " outputs do not divide into " +
                      std::to_string(groups) + " groups",
                  joined);
  }
  WeightSourcePtr fused = matrices * groups == 1 ? concat_rows(std::move(sources))
                                                 : interleave_groups(sources, matrices * groups);
  if (role == WeightRole::vector) fused = reshape_source(std::move(fused), matrices, cols);
  const LazyWeight weight(std::move(fused), role, joined);
  return role == WeightRole::experts ? weight.experts(matrices) : weight;
}

}  // namespace ttt::inline v2
