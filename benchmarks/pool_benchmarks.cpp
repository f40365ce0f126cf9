// The price of a parallel section: from the call to the return of an empty one.
#include <benchmark/benchmark.h>

#include "thread_pool.h"
#include "ttt/base/threads.h"

namespace {

void empty_section(benchmark::State& state) {
  ttt::cpu::ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    pool.parallel_for(state.range(0), 1,
                      [](std::int64_t begin, std::int64_t, int) { benchmark::DoNotOptimize(begin); });
  }
}
BENCHMARK(empty_section)->Arg(1)->Arg(2)->Arg(ttt::usable_threads())->UseRealTime();

void handed_out(benchmark::State& state) {
  ttt::cpu::ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state)
    pool.parallel_for(32, 1, [](std::int64_t begin, std::int64_t, int) { benchmark::DoNotOptimize(begin); });
}
BENCHMARK(handed_out)->Arg(2)->Arg(ttt::usable_threads())->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
