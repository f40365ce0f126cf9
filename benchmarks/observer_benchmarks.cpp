// What the observers cost where they stand: a tap, a module's scope, a counter and the hunt for NaNs when
// nobody listens; a zone when a profile does. A step of a model has as many of each as `ttt perf run` counts
// calls.
#include <benchmark/benchmark.h>

#include "ttt/modules/module.h"
#include "ttt/perf/counter.h"
#include "ttt/perf/profile.h"

namespace {

const ttt::ModuleName name{"layers.3.attn.qkv", 3};

void tap_off(benchmark::State& state) {
  const ttt::Tensor x;
  for (auto _ : state) ttt::tap(x, name, "q");
}
BENCHMARK(tap_off);

void module_scope_off(benchmark::State& state) {
  for (auto _ : state) {
    const ttt::ModuleScope scope(name);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(module_scope_off);

void zone_off(benchmark::State& state) {
  for (auto _ : state) {
    const ttt::perf::Zone zone("linear");
    benchmark::DoNotOptimize(zone.active());
  }
}
BENCHMARK(zone_off);

void counter_off(benchmark::State& state) {
  for (auto _ : state) ttt::perf::count("queue", 1);
}
BENCHMARK(counter_off);

void check_off(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(ttt::debug::checking());
}
BENCHMARK(check_off);

void zone_on(benchmark::State& state) {
  ttt::perf::Profile profile;
  std::int64_t zones = 0;
  for (auto _ : state) {
    ttt::perf::Zone zone("linear");
    zone.add(1, 1);
    if (++zones % 100'000 == 0) profile.clear();
  }
}
BENCHMARK(zone_on);

}  // namespace

BENCHMARK_MAIN();
