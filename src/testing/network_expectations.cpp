// What is expected of module instances, applied to the modules of a network.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "ttt/testing/expectations.h"

namespace ttt::inline v2::testing {

namespace {

using Instances = std::map<std::string, ModuleInstance, std::less<>>;

// The instance around a path that stands nearest: of "layers.3.attn.q" that of "layers.3.attn".
const ModuleInstance* instance_around(const Instances& instances, std::string_view path) {
  while (!path.empty()) {
    if (const auto found = instances.find(path); found != instances.end()) return &found->second;
    const std::size_t dot = path.rfind('.');
    path = dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
  }
  return nullptr;
}

// Mixers, feed-forwards and what is in them; norms and the arrangement of a block stand in the network.
bool runs_alone(std::string_view path) {
  return path.find(".attn.") != std::string_view::npos || path.ends_with(".attn") ||
         path.find(".ffn.") != std::string_view::npos || path.ends_with(".ffn");
}

bool in_float32(const ModuleInstance& instance) {
  return std::ranges::all_of(instance.dtypes, [](const auto& d) { return d.second == DataType::f32; });
}

// Real weights are less even than made-up ones: a 135M-parameter network loses up to 1.2 times what
// default_pcc() allows in bfp4_b, and five times what is recorded in bf16.
constexpr double slack_of_formats = 2, slack = 10;

// Of one instance: the PCC, and for float32 the error, that it must reach.
TapBound bound_of(ModuleInstance instance, const std::vector<Expectation>& known) {
  TapBound bound;  // the tolerance of float32
  if (!in_float32(instance)) bound.required_pcc = 1 - slack_of_formats * (1 - default_pcc(instance));
  std::optional<double> pcc, error;  // the lower expectation of both modes
  for (const Mode mode : {Mode::prefill, Mode::decode}) {
    instance.mode = mode;
    const Expectation* e = find_expectation(known, instance.key(), "");
    if (e == nullptr) continue;
    pcc = std::min(pcc.value_or(1), e->pcc_at_least);
    error = std::max(error.value_or(0), e->error_at_most);
  }
  if (!pcc) return bound;
  if (bound.required_pcc > 0) {
    bound.required_pcc = std::max(bound.required_pcc, 1 - slack * (1 - *pcc));
  } else {
    bound.tolerance = std::min(bound.tolerance, slack * *error);
  }
  return bound;
}

TapBound looser(const TapBound& a, const TapBound& b) {
  if (a.required_pcc > 0 && b.required_pcc > 0) return a.required_pcc < b.required_pcc ? a : b;
  if (a.required_pcc > 0 || b.required_pcc > 0) return a.required_pcc > 0 ? a : b;
  return a.tolerance > b.tolerance ? a : b;
}

}  // namespace

std::function<std::optional<TapBound>(std::string_view)> instance_bounds(const ModelSpec& spec,
                                                                         const Target& target,
                                                                         const Target& other,
                                                                         std::vector<Expectation> known) {
  return [ours = instances_by_path(spec, target), theirs = instances_by_path(spec, other),
          known = std::move(known)](std::string_view tap) -> std::optional<TapBound> {
    if (!runs_alone(tap)) return {};
    const ModuleInstance *a = instance_around(ours, tap), *b = instance_around(theirs, tap);
    if (a == nullptr || b == nullptr) return {};
    return looser(bound_of(*a, known), bound_of(*b, known));
  };
}

CompareOptions expecting(CompareOptions options, const CausalLM& model, const Target& other,
                         std::vector<Expectation> known) {
  options.bound = expected_bound(model.target().precision, other.precision);
  if (options.isolate)
    options.bounds = instance_bounds(model.spec(), model.target(), other, std::move(known));
  return options;
}

namespace {

std::vector<ModuleJudgement> judged(const PhaseProfile& phase, const Roof& roof, Instances instances,
                                    const std::vector<Expectation>& known, std::string_view device) {
  struct Found {
    std::vector<std::vector<double>> seconds{};  // of each module, by run
    std::uint64_t bytes = 0, flops = 0;          // of all modules
  };
  std::map<std::string, Found> found;
  for (const PhaseProfile::Module& module : phase.modules) {
    const auto at = instances.find(module.path);
    if (at == instances.end() || at->second.kind.module == "block") continue;
    at->second.mode = phase.name == "decode" ? Mode::decode : Mode::prefill;
    Found& f = found[at->second.key()];
    f.seconds.push_back(module.seconds);
    f.bytes += module.bytes, f.flops += module.flops;
  }
  std::vector<ModuleJudgement> all;
  for (const auto& [key, f] : found) {
    const Expectation* e = find_expectation(known, key, device);
    if (e == nullptr || e->device != device || !e->time) continue;
    ModuleJudgement j{.key = key, .modules = f.seconds.size()};
    const auto n = static_cast<double>(j.modules);
    std::vector<double> means(f.seconds.front().size());
    for (const std::vector<double>& runs : f.seconds)
      for (std::size_t i = 0; i < runs.size(); ++i) means[i] += runs[i] / n;
    j.measured = summarize(means);
    const double work = roof.seconds(f.bytes, f.flops) / n, recorded = roof.seconds(e->bytes, e->flops);
    if (!(recorded > 0) || !(j.measured.median > 0)) continue;
    Timing expected = *e->time;
    for (double* t : {&expected.median, &expected.low, &expected.high}) *t *= work / recorded;
    j.expected = expected.median;
    j.expected_roof = work / expected.median, j.measured_roof = work / j.measured.median;
    j.judgement = judge(j.measured, expected);
    all.push_back(std::move(j));
  }
  std::ranges::sort(all, std::ranges::greater{}, [](const ModuleJudgement& j) {
    return j.measured.median * static_cast<double>(j.modules);
  });
  return all;
}

}  // namespace

void judge(ProfileResult& result, const CausalLM& model, const std::vector<Expectation>& known) {
  const std::string device = machine(result.device);
  for (PhaseProfile& phase : result.phases)
    phase.judged = judged(phase, result.roof, instances_by_path(model.spec(), model.target()), known, device);
}

}  // namespace ttt::inline v2::testing
