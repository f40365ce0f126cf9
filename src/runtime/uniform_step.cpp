#include "runtime/uniform_step.h"

#include <vector>

namespace ttt::inline v2::runtime {

void uniform_step(const CausalLM& model, State& state, std::int64_t rows, std::int64_t tokens,
                  std::int64_t context, std::int64_t width) {
  const auto table_width = static_cast<std::int32_t>(width);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * tokens), 0), begin{0}, contexts, tables,
      slots, wanted;
  for (std::int64_t r = 0; r < rows; ++r) {
    begin.push_back(static_cast<std::int32_t>((r + 1) * tokens));
    contexts.push_back(static_cast<std::int32_t>(context));
    for (std::int32_t b = 0; b < table_width; ++b)
      tables.push_back(static_cast<std::int32_t>(r) * table_width + b);
    slots.push_back(static_cast<std::int32_t>(r));
    wanted.push_back(begin.back() - 1);
  }
  model.step({.tokens = ids,
              .row_begin = begin,
              .context = contexts,
              .block_tables = tables,
              .table_width = table_width,
              .slots = slots,
              .logit_rows = wanted},
             state);
}

}  // namespace ttt::inline v2::runtime
