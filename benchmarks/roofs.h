// What the machine can do, measured in the run that the figures are compared in.
#pragma once

namespace ttt::benchmarks {

struct Roofs {
  double read_bytes = 0;  // bytes/s of streaming reads, all threads
  double f32_flops = 0;   // float32 multiply-adds, all threads, best instruction set
  double bf16_flops = 0;  // products of bf16 pairs (AVX-512-BF16), or 0
};

// Measured on first use with `threads` threads; each the best of several short runs.
const Roofs& roofs(int threads);

}  // namespace ttt::benchmarks
