// What a model needs on a card and how fast it can be, before there is a card: memory of each device, and the
// time of every operation by the roofline of ttt/hw/roofline.h. The model is built for a device that computes
// nothing (the null backend); a step of it is recorded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ttt/hw/roofline.h"
#include "ttt/model/causal_lm.h"

namespace ttt::inline v2 {

struct PlanRequest {
  std::int64_t batch = 1;      // users
  std::int64_t context = 128;  // tokens of each user's prompt; the token after them is decoded
  std::int64_t block_size = 32;
  std::int64_t step_tokens = 2048;  // longest piece of a prompt in one step
};

// Of each device.
struct PlacedTensor {
  std::string name;
  TensorSpec spec;
  std::size_t bytes = 0;  // of DRAM, as the fullest bank counts
};

struct MemoryPlan {
  std::vector<PlacedTensor> weights, caches;
  std::size_t weight_bytes = 0, kv_bytes = 0, state_bytes = 0;
  std::size_t activation_bytes = 0;  // the most that live at the same time, prefill and decode
  std::size_t usable_bytes = 0;      // DRAM of one device for tensors
  std::int64_t most_tokens = 0;      // of all users' contexts together beside the weights; 0: nothing fits
  std::size_t l1_bytes = 0;          // of the fullest core: operands, result and buffers of `l1_op`
  std::size_t usable_l1_bytes = 0;
  std::string l1_op;
  std::size_t bytes() const { return weight_bytes + kv_bytes + state_bytes + activation_bytes; }
  bool fits() const { return bytes() <= usable_bytes && l1_bytes <= usable_l1_bytes; }
};

// Calls of one step that are alike.
struct RecordedCall {
  std::string op, operands;  // "linear", "[1, 1, 1, 4096] bf16 ..; [1, 1, 4096, 6144] bfp8_b .."
  std::size_t calls = 0;
  hw::OpWork work;           // of one of them
  std::size_t l1_bytes = 0;  // on the fullest core
};
struct RecordedStep {
  std::vector<RecordedCall> calls;  // in the order of their first
  std::size_t read_bytes = 0;       // logits that the host reads, in whole tiles of rows
};
// A model's steps for a request: the pieces of one user's prompt, then the step that decodes a token for all.
struct Recording {
  std::vector<RecordedStep> prefill;
  RecordedStep decode;
};

// Error: a device that computes, a SKU without facts (cpu), sizes below 1, more context than the model has.
Recording record(const CausalLM&, const PlanRequest&);
MemoryPlan plan_memory(const CausalLM&, const PlanRequest&);

// Seconds of one step on each device and the host.
double step_seconds(const Sku&, const RecordedStep&, const hw::Calibration&, bool traced);

struct Roofline {
  double time_to_first_token = 0;  // seconds: one user's prompt, operations enqueued by the host
  double time_per_step = 0;        // seconds: a token for every user, replayed from a trace
  double tokens_per_second_per_user = 0;
};
Roofline predict(const Sku&, const Recording&, const hw::Calibration& = hw::calibration());

}  // namespace ttt::inline v2
