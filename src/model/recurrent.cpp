#include "model/recurrent.h"

#include "ttt/modules/gated_delta_net.h"
#include "ttt/modules/short_conv.h"
#include "ttt/modules/state_space.h"

namespace ttt::inline v2 {

namespace {

constexpr int replicated = -1, by_rows = 0, by_cols = 1;

WeightSlot matrix(std::string name, std::int64_t rows, std::int64_t cols, int axis = by_rows) {
  return {
      .name = std::move(name), .role = WeightRole::linear, .rows = rows, .cols = cols, .shard_axis = axis};
}
WeightSlot table(std::string name, std::int64_t rows, std::int64_t cols) {
  return {
      .name = std::move(name), .role = WeightRole::vector, .rows = rows, .cols = cols, .shard_axis = by_rows};
}
WeightSlot vector(std::string name, std::int64_t n, int axis = by_cols) {
  return {.name = std::move(name), .role = WeightRole::vector, .rows = 1, .cols = n, .shard_axis = axis};
}

void positive(std::int64_t value, const char* field, const std::string& where, std::int64_t most = 1 << 24) {
  if (value <= 0 || value > most)
    throw Error(std::string(field) + " is " + std::to_string(value), where,
                "it must be positive and of a sensible size");
}
void check_kernel(int kernel, const std::string& where) {
  if (kernel < 2 || kernel > 1024)
    throw Error("a convolution over " + std::to_string(kernel) + " tokens", where, "it must be 2 to 1024");
}
void check_state(std::int64_t elements, const std::string& where) {
  positive(elements, "elements of a sequence's state", where, std::int64_t{1} << 32);
}

std::int64_t inner_of(const SsdSpec& s) { return std::int64_t{s.heads} * s.head_dim; }
std::int64_t conv_of(const SsdSpec& s) { return inner_of(s) + 2 * std::int64_t{s.groups} * s.state; }
std::int64_t keys_of(const GatedDeltaNetSpec& s) { return std::int64_t{s.key_heads} * s.key_dim; }
std::int64_t values_of(const GatedDeltaNetSpec& s) { return std::int64_t{s.heads} * s.value_dim; }

template <class Module>
class RecurrentMixer final : public Mixer {
 public:
  explicit RecurrentMixer(Module module) : module_(std::move(module)) {}
  Tensor forward(const Tensor& x, const Step& step) const override { return module_.forward(x, step); }
  void print(PlanRows& rows) const override { ttt::print(module_.plan(), rows); }

 private:
  Module module_;
};

template <class Module, class Config>
std::unique_ptr<Mixer> make(const Config& config, const Target& target, const Home& home) {
  return std::make_unique<RecurrentMixer<Module>>(Module::from_config(config, target, home));
}

std::vector<StateSlot> slots_of(const AttentionSpec&, std::int64_t) { return {}; }
std::vector<StateSlot> slots_of(const LatentAttentionSpec&, std::int64_t) { return {}; }
std::vector<StateSlot> slots_of(const Absent&, std::int64_t) { return {}; }
std::vector<StateSlot> slots_of(const CustomSpec& s, std::int64_t) { return s.state; }
std::vector<StateSlot> slots_of(const ShortConvSpec& s, std::int64_t dim) {
  return {{"conv", (s.kernel - 1) * dim}};
}
std::vector<StateSlot> slots_of(const SelectiveSsmSpec& s, std::int64_t) {
  return {{"conv", std::int64_t{s.conv_kernel - 1} * s.inner}, {"scan", std::int64_t{s.inner} * s.state}};
}
std::vector<StateSlot> slots_of(const SsdSpec& s, std::int64_t) {
  return {{"conv", (s.conv_kernel - 1) * conv_of(s)}, {"scan", inner_of(s) * s.state}};
}
std::vector<StateSlot> slots_of(const GatedDeltaNetSpec& s, std::int64_t) {
  return {{"conv", (s.conv_kernel - 1) * (2 * keys_of(s) + values_of(s))},
          {"delta", values_of(s) * s.key_dim}};
}

}  // namespace

std::vector<StateSlot> state_slots(const MixerSpec& spec, int dim) {
  return std::visit([&](const auto& s) { return slots_of(s, dim); }, spec);
}
std::vector<StateSlot> state_slots(const LayerSpec& layer, int dim) {
  return layer.block ? layer.block->state : state_slots(layer.mixer, dim);
}

// --- short convolution ---

std::vector<WeightSlot> recurrent_slots(const ShortConvSpec& s, std::int64_t dim) {
  std::vector<WeightSlot> slots;
  for (const char* part : {"b", "c", "x"}) {
    slots.push_back(matrix(part, dim, dim));
    if (s.bias) slots.push_back(vector(std::string(part) + ".bias", dim));
  }
  slots.push_back(table("conv", dim, s.kernel));
  if (s.bias) slots.push_back(vector("conv.bias", dim));
  slots.push_back(matrix("o", dim, dim, by_cols));
  if (s.bias) slots.push_back(vector("o.bias", dim, replicated));
  return slots;
}

void check_recurrent(const ShortConvSpec& s, const std::string& where) { check_kernel(s.kernel, where); }

std::unique_ptr<Mixer> recurrent_mixer(const ShortConvSpec&, const ModuleName& name, const PartWeight& w,
                                       const Target& target, const Home& home) {
  return make<ShortConv>(ShortConvConfig{.b = w("b"),
                                         .c = w("c"),
                                         .x = w("x"),
                                         .o = w("o"),
                                         .conv = w("conv"),
                                         .b_bias = w("b.bias"),
                                         .c_bias = w("c.bias"),
                                         .x_bias = w("x.bias"),
                                         .o_bias = w("o.bias"),
                                         .conv_bias = w("conv.bias"),
                                         .name = name},
                         target, home);
}

// --- state spaces ---

std::vector<WeightSlot> recurrent_slots(const SelectiveSsmSpec& s, std::int64_t dim) {
  std::vector<WeightSlot> slots;
  for (const char* part : {"x", "z"}) {
    slots.push_back(matrix(part, s.inner, dim));
    if (s.bias) slots.push_back(vector(std::string(part) + ".bias", s.inner));
  }
  slots.push_back(table("conv", s.inner, s.conv_kernel));
  if (s.conv_bias) slots.push_back(vector("conv.bias", s.inner));
  slots.push_back(matrix("dt_in", s.dt_rank, s.inner, by_cols));
  slots.push_back(matrix("b", s.state, s.inner, by_cols));
  slots.push_back(matrix("c", s.state, s.inner, by_cols));
  if (s.ssm_norm && s.ssm_norm->weight) {
    slots.push_back(vector("dt_norm", s.dt_rank, replicated));
    slots.push_back(vector("b_norm", s.state, replicated));
    slots.push_back(vector("c_norm", s.state, replicated));
  }
  slots.push_back(matrix("dt", s.inner, s.dt_rank));
  slots.push_back(vector("dt.bias", s.inner));
  slots.push_back(table("a", s.inner, s.state));
  slots.push_back(vector("d", s.inner));
  slots.push_back(matrix("o", dim, s.inner, by_cols));
  if (s.bias) slots.push_back(vector("o.bias", dim, replicated));
  return slots;
}

void check_recurrent(const SelectiveSsmSpec& s, const std::string& where) {
  positive(s.inner, "inner", where);
  positive(s.state, "state", where);
  positive(s.dt_rank, "dt_rank", where);
  check_kernel(s.conv_kernel, where);
  check_state(std::int64_t{s.inner} * s.state, where);
}

std::unique_ptr<Mixer> recurrent_mixer(const SelectiveSsmSpec& spec, const ModuleName& name,
                                       const PartWeight& w, const Target& target, const Home& home) {
  return make<SelectiveSsm>(SelectiveSsmConfig{.spec = spec,
                                               .x = w("x"),
                                               .z = w("z"),
                                               .conv = w("conv"),
                                               .dt_in = w("dt_in"),
                                               .b = w("b"),
                                               .c = w("c"),
                                               .dt = w("dt"),
                                               .dt_bias = w("dt.bias"),
                                               .a = w("a"),
                                               .d = w("d"),
                                               .o = w("o"),
                                               .x_bias = w("x.bias"),
                                               .z_bias = w("z.bias"),
                                               .o_bias = w("o.bias"),
                                               .conv_bias = w("conv.bias"),
                                               .dt_norm = w("dt_norm"),
                                               .b_norm = w("b_norm"),
                                               .c_norm = w("c_norm"),
                                               .name = name},
                            target, home);
}

std::vector<WeightSlot> recurrent_slots(const SsdSpec& s, std::int64_t dim) {
  const std::int64_t inner = inner_of(s), bc = std::int64_t{s.groups} * s.state;
  std::vector<WeightSlot> slots;
  for (const auto& [part, rows] :
       {std::pair{"z", inner}, {"x", inner}, {"b", bc}, {"c", bc}, {"dt", std::int64_t{s.heads}}}) {
    slots.push_back(matrix(part, rows, dim));
    if (s.bias) slots.push_back(vector(std::string(part) + ".bias", rows));
  }
  slots.push_back(table("conv", conv_of(s), s.conv_kernel));
  if (s.conv_bias) slots.push_back(vector("conv.bias", conv_of(s)));
  for (const char* part : {"dt_bias", "a", "d"}) slots.push_back(vector(part, s.heads));
  if (s.norm != SsmNorm::none) slots.push_back(vector("norm", inner));
  slots.push_back(matrix("o", dim, inner, by_cols));
  if (s.bias) slots.push_back(vector("o.bias", dim, replicated));
  return slots;
}

void check_recurrent(const SsdSpec& s, const std::string& where) {
  positive(s.heads, "heads", where, 1 << 16);
  positive(s.head_dim, "head_dim", where, 1 << 16);
  positive(s.state, "state", where, 1 << 16);
  positive(s.groups, "groups", where, 1 << 16);
  if (s.heads % s.groups != 0)
    throw Error(std::to_string(s.heads) + " heads in " + std::to_string(s.groups) + " groups", where,
                "heads must be a multiple of groups");
  check_kernel(s.conv_kernel, where);
  check_state(inner_of(s) * s.state, where);
  if (s.dt_min && s.dt_max && *s.dt_min > *s.dt_max)
    throw Error("dt_min is above dt_max", where, "check the config");
}

std::unique_ptr<Mixer> recurrent_mixer(const SsdSpec& spec, const ModuleName& name, const PartWeight& w,
                                       const Target& target, const Home& home) {
  return make<Ssd>(SsdConfig{.spec = spec,
                             .z = w("z"),
                             .x = w("x"),
                             .b = w("b"),
                             .c = w("c"),
                             .dt = w("dt"),
                             .conv = w("conv"),
                             .dt_bias = w("dt_bias"),
                             .a = w("a"),
                             .d = w("d"),
                             .norm = w("norm"),
                             .o = w("o"),
                             .z_bias = w("z.bias"),
                             .x_bias = w("x.bias"),
                             .b_bias = w("b.bias"),
                             .c_bias = w("c.bias"),
                             .o_bias = w("o.bias"),
                             .conv_bias = w("conv.bias"),
                             .step_bias = w("dt.bias"),
                             .name = name},
                   target, home);
}

// --- delta rule ---

std::vector<WeightSlot> recurrent_slots(const GatedDeltaNetSpec& s, std::int64_t dim) {
  const std::int64_t keys = keys_of(s), values = values_of(s),
                     gates = s.decay_per_channel ? std::int64_t{s.heads} * s.key_dim : s.heads;
  return {matrix("q", keys, dim),
          matrix("k", keys, dim),
          matrix("v", values, dim),
          matrix("z", values, dim),
          matrix("b", s.heads, dim),
          matrix("a", gates, dim),
          table("conv", 2 * keys + values, s.conv_kernel),
          vector("dt_bias", gates),
          vector("rate", s.heads),
          vector("norm", s.value_dim, replicated),
          matrix("o", dim, values, by_cols)};
}

void check_recurrent(const GatedDeltaNetSpec& s, const std::string& where) {
  positive(s.heads, "heads", where, 1 << 16);
  positive(s.key_heads, "key_heads", where, 1 << 16);
  positive(s.key_dim, "key_dim", where, 1 << 16);
  positive(s.value_dim, "value_dim", where, 1 << 16);
  if (s.heads % s.key_heads != 0)
    throw Error(std::to_string(s.heads) + " heads over " + std::to_string(s.key_heads) + " key heads", where,
                "heads must be a multiple of key_heads");
  check_kernel(s.conv_kernel, where);
  check_state(values_of(s) * s.key_dim, where);
}

std::unique_ptr<Mixer> recurrent_mixer(const GatedDeltaNetSpec& spec, const ModuleName& name,
                                       const PartWeight& w, const Target& target, const Home& home) {
  return make<GatedDeltaNet>(GatedDeltaNetConfig{.spec = spec,
                                                 .q = w("q"),
                                                 .k = w("k"),
                                                 .v = w("v"),
                                                 .z = w("z"),
                                                 .b = w("b"),
                                                 .a = w("a"),
                                                 .conv = w("conv"),
                                                 .dt_bias = w("dt_bias"),
                                                 .rate = w("rate"),
                                                 .norm = w("norm"),
                                                 .o = w("o"),
                                                 .name = name},
                             target, home);
}

}  // namespace ttt::inline v2
