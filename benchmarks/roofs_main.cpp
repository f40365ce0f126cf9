// roofs [THREADS]: what the machine can do, as one JSON object.
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "roofs.h"

int main(int argc, char** argv) {
  const int asked = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  const ttt::benchmarks::Roofs& roof = ttt::benchmarks::roofs(asked > 0 ? asked : 1);
  std::printf("{\"read_gb_per_s\": %.2f, \"f32_gflop_per_s\": %.1f, \"bf16_gflop_per_s\": %.1f}\n",
              roof.read_bytes / 1e9, roof.f32_flops / 1e9, roof.bf16_flops / 1e9);
}
