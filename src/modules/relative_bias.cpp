#include "ttt/modules/relative_bias.h"

#include "modules/print.h"

namespace ttt::inline v2 {

RelativeBiasPlan resolve(const RelativeBiasConfig& config, const Target&) {
  if (!config.profiles) throw Error("no weight profiles", config.name.path, "check the weight map");
  return {.profiles = config.profiles, .name = config.name};
}

void print(const RelativeBiasPlan& plan, PlanRows& rows) {
  row(rows, plan.name, "relative_bias",
      std::to_string(plan.profiles.rows()) + " profiles over " + std::to_string(plan.profiles.cols()) +
          " positions");
}

RelativeBias::RelativeBias(RelativeBiasPlan plan, const Home& home) : plan_(std::move(plan)) {
  plan_.profiles = home.bind(plan_.profiles, vector_dtype);
}

RelativeBias RelativeBias::from_config(const RelativeBiasConfig& config, const Target& target,
                                       const Home& home) {
  return RelativeBias(resolve(config, target), home);
}

Tensor RelativeBias::forward(const Tensor& r, const SequenceRows& rows) const {
  const std::int64_t heads = r.dim(1), extent = plan_.profiles.cols(), keys = rows.context + rows.count;
  const Tensor own = ops::typecast(r.narrow(2, rows.first, rows.first + rows.count), DataType::f32);
  // One value per distance, and a zero for all that are out of reach.
  const Tensor by_distance = ops::pad(ops::matmul(own, plan_.profiles.get()), -1, 0, 1);
  // As a table [rows * distances, heads] from which every (row, key) takes its line.
  const int heads_last[] = {0, 2, 3, 1}, heads_first[] = {0, 3, 1, 2};
  const Tensor table =
      ops::permute(by_distance, heads_last).reshape({1, 1, rows.count * (extent + 1), heads});
  std::vector<std::int32_t> lines;
  lines.reserve(static_cast<std::size_t>(rows.count * keys));
  for (std::int64_t i = 0; i < rows.count; ++i) {
    for (std::int64_t j = 0; j < keys; ++j) {
      const std::int64_t distance = rows.context + i - j;
      lines.push_back(static_cast<std::int32_t>(i * (extent + 1) +
                                                (distance >= 0 && distance < extent ? distance : extent)));
    }
  }
  const Tensor ids = from_host(r.device(), lines, {1, 1, 1, rows.count * keys});
  return ops::permute(ops::embedding(ids, table).reshape({1, rows.count, keys, heads}), heads_first);
}

}  // namespace ttt::inline v2
