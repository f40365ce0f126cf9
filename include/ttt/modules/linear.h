// y = act(x W + b). The building block of the other modules; not a layer of its own in a spec.
#pragma once

#include "ttt/hw/choose.h"
#include "ttt/modules/module.h"
#include "ttt/modules/parallel.h"

namespace ttt::inline v2 {

struct LinearConfig {
  LazyWeight weight;  // as stored [out, in]
  LazyWeight bias{};  // [1, out]; unset: none
  ModuleName name{};
  std::optional<Activation> activation{};  // unset: none
  std::optional<DataType> dtype{};         // of the weight; unset: the target's rows
  std::optional<DataType> out_dtype{};     // unset: the activations'
  Parallel parallel = Parallel::none;      // how it divides on the target's mesh
};

struct LinearPlan {
  LazyWeight weight, bias;
  ModuleName name;
  DataType dtype = DataType::bf16, out_dtype = DataType::bf16;
  Activation activation{};
  Sharding sharding{}, bias_sharding{};
  int reduce_axis = -1;  // products are summed over this axis of the mesh; -1: they are whole
  MemoryConfig weight_memory{};
  // By the number of rows, ascending: a step takes the first that holds its rows. Empty (a processor), or
  // more rows than any holds: TTNN chooses.
  std::vector<hw::MatmulPlan> by_rows{};
  ComputeKernelConfig compute_kernel_config{};
  bool operator==(const LinearPlan&) const = default;
};

LinearPlan resolve(const LinearConfig&, const Target&);
void print(const LinearPlan&, PlanRows&);

class Linear {
 public:
  Linear(LazyWeight weight, LazyWeight bias = {}, const Target& target = {}, const Home& home = {});
  static Linear from_config(const LinearConfig&, const Target& = {}, const Home& = {});
  Linear(LinearPlan, const Home&);

  Tensor prefill(const Tensor& x) const {
    return forward(x, Mode::prefill);
  }  // [1, 1, tokens, in] -> [1, 1, tokens, out]
  Tensor decode(const Tensor& x) const { return forward(x, Mode::decode); }
  Tensor forward(const Tensor& x, Mode) const;
  const LinearPlan& plan() const { return plan_; }

 private:
  const hw::MatmulPlan& plan_for(std::int64_t rows) const;

  LinearPlan plan_;
};

}  // namespace ttt::inline v2
