#include "ttt/runtime/planner.h"

#include <algorithm>
#include <map>

#include "runtime/uniform_step.h"
#include "ttt/base/error.h"
#include "ttt/hw/check.h"
#include "ttt/hw/choose.h"
#include "ttt/model/bound_weights.h"
#include "ttt/ops/planning.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2 {

namespace {

void check(const CausalLM& model, const PlanRequest& request) {
  const Sku& sku = model.target().sku;
  call_source(model.device());
  if (sku.arch == Arch::cpu)
    throw Error("no facts about " + std::string(sku.name), "planner", "choose a SKU");
  for (const auto& [value, name] : {std::pair{request.batch, "batch"},
                                    {request.context, "context"},
                                    {request.block_size, "block size"},
                                    {request.step_tokens, "step tokens"}}) {
    if (value < 1 || value > std::int64_t{1} << 24)
      throw Error(std::string(name) + " of " + std::to_string(value), "planner", "choose from 1 to 16777216");
  }
  if (const std::int64_t most = model.spec().max_positions; most > 0 && request.context >= most)
    throw Error("a context of " + std::to_string(request.context) + " tokens and one more",
                "the model has " + std::to_string(most), "choose a shorter context");
}

std::int64_t blocks_of(const PlanRequest& request) {
  return (request.context + request.block_size) / request.block_size;  // with the token that is decoded
}

std::unique_ptr<State> allocate(const CausalLM& model, const PlanRequest& request) {
  return model.allocate({.blocks = blocks_of(request) * request.batch,
                         .block_size = request.block_size,
                         .slots = request.batch});
}

// L1 of the fullest core while the call runs.
std::size_t l1_bytes(const OpCall& call, const Sku& sku) {
  std::size_t bytes = 0;
  for (int i = 0; i < OpCall::max_inputs; ++i) {
    if (call.has(i)) bytes += hw::l1_core_bytes(sku, call.in(i).spec());
  }
  for (int i = 0; i < call.outputs_count; ++i)
    bytes += hw::l1_core_bytes(sku, call.output_specs[static_cast<std::size_t>(i)]);
  if (call.op == OpKind::linear) {
    const auto& a = call.as<LinearAttributes>();
    const Tensor &x = call.in(0), &w = call.in(1);
    bytes += hw::matmul_l1_bytes(sku,
                                 {.rows = x.shape().rows(),
                                  .in = x.dim(-1),
                                  .out = w.dim(-1),
                                  .weights = w.dtype(),
                                  .activations = x.dtype(),
                                  .result = call.output_specs[0].dtype},
                                 a.program_config, a.compute_kernel_config);
  }
  return bytes;
}

// Listens to a device for its own lifetime.
class Recorder {
 public:
  explicit Recorder(const CausalLM& model) : model_(model) {
    call_source(model.device()).on_call([this](const OpCall& call) { add(call); });
  }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  ~Recorder() { call_source(model_.device()).on_call({}); }

  RecordedStep take() {
    RecordedStep step;
    std::swap(step.calls, calls_);
    index_.clear();
    return step;
  }

 private:
  void add(const OpCall& call) {
    const std::string op(label(call));
    std::string of = operands(call);
    const auto [at, added] = index_.try_emplace(op + " " + of, calls_.size());
    if (added)
      calls_.push_back({.op = op,
                        .operands = std::move(of),
                        .work = work(call, model_.target().mesh),
                        .l1_bytes = l1_bytes(call, model_.target().sku)});
    ++calls_[at->second].calls;
  }

  const CausalLM& model_;
  std::vector<RecordedCall> calls_;
  std::map<std::string, std::size_t> index_;
};

}  // namespace

Recording record(const CausalLM& model, const PlanRequest& request) {
  check(model, request);
  model.load_weights();
  const auto state = allocate(model, request);
  Recorder recorder(model);
  const auto step = [&](std::int64_t rows, std::int64_t tokens, std::int64_t context) {
    runtime::uniform_step(model, *state, rows, tokens, context, blocks_of(request));
    RecordedStep done = recorder.take();
    const std::int64_t read = (rows + tile_size - 1) / tile_size * tile_size;
    done.read_bytes = static_cast<std::size_t>(read * model.spec().vocab) * element_size(DataType::bf16);
    return done;
  };
  Recording recording;
  for (std::int64_t at = 0; at < request.context; at += request.step_tokens)
    recording.prefill.push_back(step(1, std::min(request.step_tokens, request.context - at), at));
  recording.decode = step(request.batch, 1, request.context);
  return recording;
}

double step_seconds(const Sku& sku, const RecordedStep& step, const hw::Calibration& c, bool traced) {
  double seconds = c.step_seconds;
  if (c.read_bandwidth > 0) seconds += static_cast<double>(step.read_bytes) / c.read_bandwidth;
  for (const RecordedCall& call : step.calls)
    seconds += static_cast<double>(call.calls) * hw::op_time(sku, call.work, c, traced).seconds;
  return seconds;
}

Roofline predict(const Sku& sku, const Recording& recording, const hw::Calibration& c) {
  Roofline r;
  for (const RecordedStep& step : recording.prefill)
    r.time_to_first_token += step_seconds(sku, step, c, false);
  r.time_per_step = step_seconds(sku, recording.decode, c, true);
  r.tokens_per_second_per_user = 1 / r.time_per_step;
  return r;
}

MemoryPlan plan_memory(const CausalLM& model, const PlanRequest& request) {
  check(model, request);
  const Sku& sku = model.target().sku;
  const auto banks = static_cast<std::size_t>(sku.dram_banks);
  MemoryPlan plan{.usable_bytes = hw::usable_dram_bytes(sku), .usable_l1_bytes = hw::usable_l1_bytes(sku)};
  const auto place = [&](std::vector<PlacedTensor>& list, std::size_t& total, std::string name,
                         const TensorSpec& spec) {
    const std::size_t bytes = hw::dram_bank_bytes(sku, spec) * banks;
    list.push_back({std::move(name), spec, bytes});
    total += bytes;
  };
  model.load_weights();
  for (const LazyWeight& weight : bound_weights(model))
    place(plan.weights, plan.weight_bytes, weight.name(), weight.get().spec());
  const auto state = allocate(model, request);
  for (const auto& [key, cache] : state->kv) {
    const std::string name = "layers." + std::to_string(key.first) + ".";
    for (const auto& [tensor, part] :
         {std::pair{&cache.k, "k_cache"}, {&cache.v, "v_cache"}, {&cache.indexer, "indexer_cache"}}) {
      if (*tensor) place(plan.caches, plan.kv_bytes, name + part, tensor->spec());
    }
  }
  for (const auto& [key, tensors] : state->recurrent) {
    for (const auto& [name, tensor] : tensors)
      place(plan.caches, plan.state_bytes, "layers." + std::to_string(key.first) + "." + name, tensor.spec());
  }
  // Activations: what a step allocates beyond what is there before it.
  const std::int64_t piece = std::min(request.step_tokens, request.context);
  Recorder recorder(model);
  const auto measure = [&](std::int64_t rows, std::int64_t tokens, std::int64_t context) {
    call_source(model.device()).reset_peak();
    const std::size_t before = model.device().allocated_bytes();
    runtime::uniform_step(model, *state, rows, tokens, context, blocks_of(request));
    plan.activation_bytes = std::max(plan.activation_bytes, model.device().peak_bytes() - before);
    for (const RecordedCall& call : recorder.take().calls) {
      if (call.l1_bytes <= plan.l1_bytes) continue;
      plan.l1_bytes = call.l1_bytes;
      plan.l1_op = call.op + " " + call.operands;
    }
  };
  measure(1, piece, request.context - piece);
  measure(request.batch, 1, request.context);

  const std::size_t fixed = plan.weight_bytes + plan.state_bytes + plan.activation_bytes;
  const std::int64_t tokens = blocks_of(request) * request.batch * request.block_size;
  if (plan.kv_bytes > 0 && fixed < plan.usable_bytes)
    plan.most_tokens =
        static_cast<std::int64_t>(static_cast<double>(plan.usable_bytes - fixed) /
                                  static_cast<double>(plan.kv_bytes) * static_cast<double>(tokens));
  return plan;
}

}  // namespace ttt::inline v2
