// Which rows a step takes, and whose memory they use.
#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/generator_impl.h"
#include "runtime/prompt_lookup.h"

namespace ttt::inline v2 {

using runtime::BlockManager;
using runtime::Clock;
using runtime::Part;
using runtime::seconds;
using runtime::Sequence;
using runtime::SequencePtr;

namespace {

constexpr std::size_t prompt_logit_bytes = std::size_t{64} << 20;  // of one chunk whose logits are all wanted

bool before(const SequencePtr& a, const SequencePtr& b) {
  return a->request.priority != b->request.priority ? a->request.priority > b->request.priority
                                                    : a->id < b->id;
}

void insert_in_order(std::vector<SequencePtr>& list, SequencePtr sequence) {
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, before), std::move(sequence));
}

}  // namespace

// New requests join the queue; cancelled ones leave. Whether any did.
bool Generator::Impl::collect() {
  std::vector<SequencePtr> arrived;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(incoming_);
    work_arrived_ = false;
  }
  for (SequencePtr& s : arrived) insert_in_order(waiting_, std::move(s));
  std::vector<SequencePtr> leaving;
  for (const std::vector<SequencePtr>* list : {&waiting_, &running_})
    std::copy_if(list->begin(), list->end(), std::back_inserter(leaving),
                 [](const SequencePtr& s) { return s->cancelled.load(); });
  for (const SequencePtr& s : leaving) finish(s, FinishReason::cancelled);
  return !leaving.empty();
}

void Generator::Impl::free_memory(Sequence& s) {
  blocks_.release(s.blocks);
  s.blocks.clear();
  s.contents.clear();
  s.computed = 0;
  if (s.slot >= 0) free_slots_.push_back(s.slot);
  s.slot = -1;
}

// Gives back the blocks beyond those that the known tokens need.
void Generator::Impl::trim(Sequence& s) {
  const auto needed = static_cast<std::size_t>(blocks_for(s.tokens.size()));
  if (s.blocks.size() <= needed) return;
  blocks_.release(std::span(s.blocks).subspan(needed));
  s.blocks.resize(needed);
}

void Generator::Impl::preempt(const SequencePtr& s) {
  free_memory(*s);
  ++s->result.preemptions;
  std::erase(running_, s);
  insert_in_order(waiting_, s);
  const std::lock_guard lock(mutex_);
  ++stats_.preemptions;
}

// Gives the request a slot and blocks for all its tokens, found or new. False when they are not there now.
bool Generator::Impl::admit(const SequencePtr& s) {
  if (free_slots_.empty()) return false;
  BlockManager::Match match;
  // The last token is always run: its logits are wanted.
  if (options_.prefix_reuse && !s->wants_prompt_logits())
    match = blocks_.find(std::span(s->tokens).first(s->tokens.size() - 1));
  const auto held = std::count_if(match.blocks.begin(), match.blocks.end(),
                                  [&](std::int32_t b) { return blocks_.held(b); });
  const std::int64_t total = blocks_for(s->tokens.size());
  // A spare block for each that runs: otherwise its next token could set this one back again.
  if (total - held + static_cast<std::int64_t>(running_.size()) > blocks_.available()) return false;
  for (const std::int32_t block : match.blocks) blocks_.acquire(block);
  s->blocks = std::move(match.blocks);
  s->contents = std::move(match.contents);
  s->computed = s->blocks.size() * static_cast<std::size_t>(options_.block_size);
  while (static_cast<std::int64_t>(s->blocks.size()) < total) s->blocks.push_back(*blocks_.allocate());
  s->slot = free_slots_.back();
  free_slots_.pop_back();
  if (!s->scheduled_before) {
    s->scheduled_before = true;
    s->result.cached_tokens = s->computed;
    s->result.timings.queue = seconds(Clock::now() - s->submitted);
    const std::lock_guard lock(mutex_);
    stats_.prompt_tokens += s->prompt_size;
    stats_.cached_tokens += s->computed;
  }
  return true;
}

// One row for every request whose next token is all that is missing.
void Generator::Impl::schedule_decode(std::vector<Part>& parts) {
  // By index: preempting shortens the list at its end.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const SequencePtr s = running_[i];
    if (s->pending() != 1) continue;
    while (static_cast<std::int64_t>(s->blocks.size()) < blocks_for(s->tokens.size())) {
      if (const auto block = blocks_.allocate()) {
        s->blocks.push_back(*block);
        continue;
      }
      const SequencePtr latest = running_.back();
      preempt(latest);
      if (latest == s) break;
    }
    if (s->slot < 0) break;
    parts.push_back({.sequence = s, .rows = {s->tokens.back()}});
  }
}

std::size_t Generator::Impl::chunk_size(const Sequence& s, std::size_t budget) const {
  std::size_t count = std::min(s.pending(), budget);
  if (s.wants_prompt_logits())
    count = std::min(count, std::max<std::size_t>(
                                1, prompt_logit_bytes / (sizeof(float) * static_cast<std::size_t>(vocab_))));
  return count;
}

// Chunks of prompts within what decode rows leave of the step, first of those already begun, then of those
// that wait.
void Generator::Impl::schedule_prefill(std::vector<Part>& parts) {
  const auto limit = static_cast<std::size_t>(options_.max_step_tokens);
  std::size_t budget = limit > parts.size() ? limit - parts.size() : 1;
  bool first = true;
  // Where steps do not mix, single rows are of the other kind than longer chunks.
  bool single = false;
  const auto add = [&](const SequencePtr& s) {
    std::size_t count = chunk_size(*s, budget);
    if (!capabilities_.chunked_prefill) {
      if (!first && s->pending() > budget) return false;
      count = s->pending();
    }
    if (!capabilities_.mixed_step) {
      if (first)
        single = count == 1;
      else if (single != (count == 1))
        return false;
    }
    const auto begin = s->tokens.begin() + static_cast<std::ptrdiff_t>(s->computed);
    parts.push_back({.sequence = s, .rows = {begin, begin + static_cast<std::ptrdiff_t>(count)}});
    budget -= std::min(budget, count);
    first = false;
    return true;
  };
  for (const SequencePtr& s : running_) {
    if (budget == 0) return;
    if (s->pending() > 1) add(s);
  }
  while (budget > 0 && !waiting_.empty()) {
    const SequencePtr s = waiting_.front();
    if (!admit(s)) return;
    waiting_.erase(waiting_.begin());
    insert_in_order(running_, s);
    if (!add(s)) return;  // it holds its memory and comes with a later step
  }
}

// Drafts for decode rows, in what is left of the step and of memory.
void Generator::Impl::add_drafts(std::vector<Part>& parts) {
  std::size_t rows = 0;
  for (const Part& part : parts) rows += part.rows.size();
  for (Part& part : parts) {
    Sequence& s = *part.sequence;
    const auto budget = static_cast<std::size_t>(options_.max_step_tokens);
    if (s.pending() != 1 || rows >= budget) continue;
    const std::size_t left = s.limit - s.output().size();
    const std::size_t count =
        std::min({static_cast<std::size_t>(options_.prompt_lookup_tokens), left - 1, budget - rows});
    const auto drafts =
        runtime::prompt_lookup(s.tokens, static_cast<std::size_t>(options_.prompt_lookup_ngram), count);
    for (const std::int32_t draft : drafts) {
      if (static_cast<std::int64_t>(s.blocks.size()) < blocks_for(s.tokens.size() + part.drafts + 1)) {
        if (blocks_.available() <= static_cast<std::int64_t>(running_.size())) break;
        s.blocks.push_back(*blocks_.allocate());
      }
      part.rows.push_back(draft);
      ++part.drafts;
    }
    rows += part.drafts;
  }
}

std::vector<Part> Generator::Impl::schedule() {
  std::vector<Part> parts;
  if (capabilities_.mixed_step) {
    schedule_decode(parts);
    schedule_prefill(parts);
    if (options_.prompt_lookup_tokens > 0) add_drafts(parts);
  } else {
    // In turns, so that neither kind starves the other.
    if (decode_turn_) schedule_decode(parts);
    const bool prefill = parts.empty() && (schedule_prefill(parts), !parts.empty());
    if (parts.empty()) schedule_decode(parts);
    decode_turn_ = prefill;
  }
  // Single rows first, as a step orders them.
  std::stable_partition(parts.begin(), parts.end(), [](const Part& part) { return part.rows.size() == 1; });
  return parts;
}

}  // namespace ttt::inline v2
