#include "model/step_builder.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace ttt::inline v2 {

namespace {

[[noreturn]] void fail(const std::string& what, std::size_t sequence, const char* fix = "") {
  throw Error(what, "sequence " + std::to_string(sequence) + " of the batch", fix);
}

void check(const Batch& batch, const State& state, const StepLimits& limits) {
  const std::size_t n = batch.sequences();
  if (n == 0) throw Error("an empty batch", "CausalLM::step", "give at least one sequence");
  if (batch.row_begin.size() != n + 1 || batch.row_begin.front() != 0 ||
      static_cast<std::size_t>(batch.row_begin.back()) != batch.tokens.size())
    throw Error("row_begin does not cover the tokens", "CausalLM::step",
                "give sequences + 1 offsets from 0 to the number of tokens");
  if (limits.paged && (batch.table_width <= 0 ||
                       batch.block_tables.size() != n * static_cast<std::size_t>(batch.table_width)))
    throw Error("block_tables is not sequences x table_width", "CausalLM::step");
  if (limits.recurrent && batch.slots.size() != n)
    throw Error("slots does not name one slot per sequence", "CausalLM::step");
  for (std::size_t s = 0; s < n; ++s) {
    const std::int64_t count = std::int64_t{batch.row_begin[s + 1]} - batch.row_begin[s],
                       context = batch.context[s];
    if (count <= 0) fail("no tokens", s, "leave the sequence out of the step");
    if (context < 0) fail("negative context", s);
    const std::int64_t length = context + count;
    if (limits.max_positions > 0 && length > limits.max_positions)
      fail("position " + std::to_string(length - 1) + " in a network of " +
               std::to_string(limits.max_positions) + " positions",
           s, "shorten the prompt or the answer");
    if (limits.recurrent && (batch.slots[s] < 0 || batch.slots[s] >= state.slots))
      fail("slot " + std::to_string(batch.slots[s]) + " of " + std::to_string(state.slots), s);
    if (!limits.paged) continue;
    const std::int64_t blocks = (length + state.block_size - 1) / state.block_size;
    if (blocks > batch.table_width)
      fail(std::to_string(blocks) + " blocks needed, the table has " + std::to_string(batch.table_width), s,
           "give it more blocks");
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int32_t block =
          batch.block_tables[s * static_cast<std::size_t>(batch.table_width) + static_cast<std::size_t>(b)];
      if (block < 0 || block >= state.blocks)
        fail("block " + std::to_string(block) + " of " + std::to_string(state.blocks), s,
             "the block table must name allocated blocks");
    }
  }
  for (std::size_t s = 1; limits.recurrent && s < n; ++s) {
    const auto before = batch.slots.first(s);
    if (std::ranges::find(before, batch.slots[s]) != before.end())
      throw Error("two sequences in slot " + std::to_string(batch.slots[s]), "CausalLM::step",
                  "give each sequence a slot of its own");
  }
  for (std::int32_t token : batch.tokens) {
    if (token < 0 || token >= limits.vocab)
      throw Error("token " + std::to_string(token) + " of a vocabulary of " + std::to_string(limits.vocab),
                  "CausalLM::step", "use this model's own tokenizer");
  }
  for (std::int32_t row : batch.logit_rows) {
    if (row < 0 || static_cast<std::size_t>(row) >= batch.tokens.size())
      throw Error("logit row " + std::to_string(row) + " of " + std::to_string(batch.tokens.size()),
                  "CausalLM::step");
  }
}

}  // namespace

std::int32_t page_columns(std::int32_t table_width, const StepLimits& limits) {
  constexpr std::uint32_t least = 8;
  const auto width = static_cast<std::uint32_t>(std::max(table_width, 1));
  return static_cast<std::int32_t>(limits.rounded_tables ? std::bit_ceil(std::max(width, least)) : width);
}

void build_step(const Batch& batch, State& state, Backend& device, const StepLimits& limits,
                BuiltStep& built) {
  check(batch, state, limits);
  const std::size_t n = batch.sequences();
  const auto count_of = [&](std::size_t s) { return batch.row_begin[s + 1] - batch.row_begin[s]; };
  built.order.resize(n);
  std::iota(built.order.begin(), built.order.end(), std::size_t{0});
  const bool all_decode = batch.tokens.size() == n;
  if (!all_decode)
    std::stable_partition(built.order.begin(), built.order.end(),
                          [&](std::size_t s) { return count_of(s) == 1; });

  Step& step = built.step;
  step.tokens = static_cast<std::int64_t>(batch.tokens.size());
  step.state = &state;
  step.device = &device;
  step.sequences.clear();
  step.sequences.reserve(n);
  step.positions.resize(batch.tokens.size());
  built.row_of_token.resize(batch.tokens.size());

  const auto given = static_cast<std::size_t>(std::max(batch.table_width, 0)),
             width = static_cast<std::size_t>(page_columns(batch.table_width, limits));
  built.ids.resize(batch.tokens.size());
  built.table.assign(n * width, -1);
  built.decode_positions.clear();
  std::size_t row = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t s = built.order[i];
    const std::int32_t count = count_of(s);
    step.sequences.push_back({.first = static_cast<std::int64_t>(row),
                              .count = count,
                              .context = batch.context[s],
                              .slot = batch.slots.empty() ? 0 : batch.slots[s],
                              .page_row = static_cast<std::int64_t>(i)});
    if (count == 1) built.decode_positions.push_back(batch.context[s]);
    for (std::int32_t k = 0; k < count; ++k, ++row) {
      const auto token = static_cast<std::size_t>(batch.row_begin[s] + k);
      built.ids[row] = batch.tokens[token];
      step.positions[row] = batch.context[s] + k;
      built.row_of_token[token] = static_cast<std::int32_t>(row);
    }
    if (limits.paged)
      std::copy_n(batch.block_tables.begin() + static_cast<std::ptrdiff_t>(s * given), given,
                  built.table.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  step.decode_rows = static_cast<std::int64_t>(built.decode_positions.size());
  step.mode = step.decode_rows == step.tokens ? Mode::decode : Mode::prefill;
  const auto place = [&](Tensor& tensor, std::span<const std::int32_t> values, const Shape& shape) {
    if (tensor)
      device.write(tensor, values);
    else
      tensor = from_host(device, values, shape);
  };
  place(step.ids, built.ids, {1, 1, 1, step.tokens});
  if (limits.paged)
    place(step.page_table, built.table, {static_cast<std::int64_t>(n), static_cast<std::int64_t>(width)});
  if (limits.recurrent) {
    built.segments.clear();
    for (const SequenceRows& rows : step.sequences) {
      for (const std::int64_t value : {rows.first, rows.count, rows.slot, std::int64_t{rows.context == 0}})
        built.segments.push_back(static_cast<std::int32_t>(value));
    }
    place(step.segments, built.segments, {static_cast<std::int64_t>(n), 4});
  }
  if (step.decode_rows > 0) place(step.decode_positions, built.decode_positions, {step.decode_rows});
}

}  // namespace ttt::inline v2
