// Scheduling: whatever shares the steps, the memory and the prefixes, each request answers what it answers
// alone.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/fake_model.h"
#include "ttt/base/error.h"
#include "ttt/runtime/generator.h"

namespace ttt {
namespace {

using test::FakeModel;
using test::reference_output;
using Ids = std::vector<std::int32_t>;

Ids random_ids(std::mt19937& rng, std::size_t size, int vocab) {
  Ids ids(size);
  for (auto& id : ids) id = static_cast<std::int32_t>(rng() % static_cast<unsigned>(vocab));
  return ids;
}

struct Mix {
  FakeModel::Settings model;
  GeneratorOptions generator;
};

Mix random_mix(std::mt19937& rng) {
  Mix mix;
  const auto pick = [&](int least, int most) {
    return least + static_cast<int>(rng() % static_cast<unsigned>(most - least + 1));
  };
  GeneratorOptions& g = mix.generator;
  g.block_size = pick(1, 8);
  g.max_batch = pick(1, 6);
  g.max_step_tokens = pick(1, 20);
  g.prefix_reuse = pick(0, 3) > 0;
  // From memory for one and a half requests, which forces preemption, to plenty.
  g.kv_blocks = (pick(0, 2) > 0 ? pick(72, 100) : pick(200, 600)) / g.block_size + 1;
  g.max_context = std::min(72, static_cast<int>(g.kv_blocks) * g.block_size);
  g.eos_token_ids = Ids{0};
  FakeModel::Settings& m = mix.model;
  m.vocab = pick(3, 12);
  switch (pick(0, 5)) {
    case 0:
      m.can.mixed_step = false;
      break;
    case 1:
      m.can.chunked_prefill = false;
      break;
    case 2:
      m.recurrent = true;
      m.can.prefix_reuse = m.can.speculation = false;
      break;
    default:
      m.period = pick(0, 1) * 3;
      g.prompt_lookup_tokens = pick(0, 1) * pick(1, 5);
  }
  m.max_sequences = static_cast<std::size_t>(g.max_batch);
  if (m.can.chunked_prefill)
    m.max_tokens = static_cast<std::size_t>(std::max(g.max_step_tokens, g.max_batch + 1));
  return mix;
}

SamplingParams random_params(std::mt19937& rng, int vocab) {
  SamplingParams p;
  p.seed = rng();
  p.max_new_tokens = 1 + static_cast<int>(rng() % 34);
  if (rng() % 2) p.temperature = 0.3f + static_cast<float>(rng() % 10) / 5;
  if (rng() % 3 == 0) p.top_k = 1 + static_cast<int>(rng() % 5);
  if (rng() % 3 == 0) p.top_p = 0.7f;
  if (rng() % 4 == 0) p.min_p = 0.1f;
  if (rng() % 4 == 0) p.repetition_penalty = 1.4f;
  if (rng() % 4 == 0) p.presence_penalty = 0.5f, p.frequency_penalty = -0.2f;
  if (rng() % 4 == 0) p.min_new_tokens = static_cast<int>(rng() % static_cast<unsigned>(p.max_new_tokens));
  if (rng() % 4 == 0) p.ignore_eos = true;
  if (rng() % 5 == 0) p.stop_token_ids = {1};
  if (rng() % 5 == 0)
    p.logit_bias = {{static_cast<std::int32_t>(rng() % static_cast<unsigned>(vocab)), 2.0f}};
  if (rng() % 4 == 0) p.logprobs = 2;
  if (rng() % 6 == 0) p.prompt_logprobs = 1;
  return p;
}

class RandomMix : public testing::TestWithParam<int> {};

TEST_P(RandomMix, EveryRequestAnswersAsAlone) {
  GeneratorStats total;  // the mixes must contain what they are to test
  for (int round = 0; round < 150; ++round) {
    std::mt19937 rng(static_cast<unsigned>(GetParam() * 1000 + round));
    const Mix mix = random_mix(rng);
    SCOPED_TRACE("round " + std::to_string(round) + ", block_size " +
                 std::to_string(mix.generator.block_size) + ", blocks " +
                 std::to_string(mix.generator.kv_blocks) + ", drafts " +
                 std::to_string(mix.generator.prompt_lookup_tokens));
    const FakeModel model(mix.model);
    Generator generator(model, nullptr, mix.generator);
    const int vocab = mix.model.vocab;

    struct Job {
      Ids prompt, streamed;
      SamplingParams params;
      bool cancelled = false;
      std::size_t logprobs = 0;
    };
    std::vector<Job> jobs(14);
    std::vector<RequestId> ids;
    const Ids stem = random_ids(rng, 20, vocab), other = random_ids(rng, 12, vocab);
    std::size_t submitted = 0;
    int steps = 0;
    while (submitted < jobs.size() || !generator.idle()) {
      ASSERT_LT(++steps, 5000) << "no progress";
      if (submitted < jobs.size() && rng() % 4 != 0) {
        Job& job = jobs[submitted];
        // Prompts begin with parts of two stems: prefixes to share.
        const Ids& source = rng() % 3 ? stem : other;
        job.prompt.assign(source.begin(),
                          source.begin() + static_cast<std::ptrdiff_t>(rng() % source.size()));
        for (const auto id : random_ids(rng, 1 + rng() % 18, vocab)) job.prompt.push_back(id);
        job.params = random_params(rng, vocab);
        GenerationRequest request{
            .prompt_ids = job.prompt, .sampling = job.params, .priority = static_cast<int>(rng() % 3)};
        request.on_delta = [&job](const GenerationDelta& delta) {
          job.streamed.insert(job.streamed.end(), delta.ids.begin(), delta.ids.end());
          job.logprobs += delta.logprobs.size();
        };
        ids.push_back(generator.submit(std::move(request)));
        ++submitted;
      }
      if (!ids.empty() && rng() % 25 == 0) {
        const std::size_t victim = rng() % ids.size();
        if (generator.cancel(ids[victim])) jobs[victim].cancelled = true;
      }
      generator.step();
    }

    std::uint64_t generated = 0;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      const auto result = generator.take(ids[i]);
      ASSERT_TRUE(result.has_value());
      const Job& job = jobs[i];
      const Ids expected = reference_output(model, job.prompt, job.params, *mix.generator.eos_token_ids);
      generated += result->ids.size();
      EXPECT_EQ(result->ids, job.streamed);
      EXPECT_EQ(result->timings.tokens.size(), result->ids.size());
      EXPECT_EQ(job.logprobs, job.params.logprobs ? result->ids.size() : 0);
      if (job.cancelled) {
        EXPECT_EQ(result->finish_reason, FinishReason::cancelled);
        ASSERT_LE(result->ids.size(), expected.size());
        EXPECT_TRUE(std::equal(result->ids.begin(), result->ids.end(), expected.begin()));
        continue;
      }
      EXPECT_EQ(result->ids, expected)
          << "request " << i << ", preempted " << result->preemptions << " times";
      EXPECT_EQ(result->error, "");
      EXPECT_EQ(result->finish_reason, result->stop_token ? FinishReason::stop : FinishReason::length);
      if (job.params.prompt_logprobs) {
        ASSERT_EQ(result->prompt_logprobs.size(), job.prompt.size() - 1);
        for (std::size_t p = 1; p < job.prompt.size() && !mix.model.recurrent; ++p) {
          const auto wanted =
              log_probabilities(model.logits(std::span(job.prompt).first(p)), job.prompt[p], 1);
          EXPECT_EQ(result->prompt_logprobs[p - 1].token, wanted.token);
          EXPECT_EQ(result->prompt_logprobs[p - 1].top, wanted.top);
        }
      }
    }
    const GeneratorStats stats = generator.stats();
    EXPECT_EQ(stats.kv_blocks_used, 0);
    EXPECT_EQ(stats.running, 0u);
    EXPECT_EQ(stats.waiting, 0u);
    EXPECT_EQ(stats.generated_tokens, generated);
    EXPECT_EQ(stats.submitted, jobs.size());
    EXPECT_EQ(stats.finished[0] + stats.finished[1] + stats.finished[2] + stats.finished[3], jobs.size());
    EXPECT_EQ(stats.steps, static_cast<std::uint64_t>(model.steps));
    total.preemptions += stats.preemptions;
    total.cached_tokens += stats.cached_tokens;
    total.accepted_tokens += stats.accepted_tokens;
    for (std::size_t r = 0; r < total.finished.size(); ++r) total.finished[r] += stats.finished[r];
  }
  EXPECT_GT(total.preemptions, 50u);
  EXPECT_GT(total.cached_tokens, 1000u);
  EXPECT_GT(total.accepted_tokens, 100u);
  EXPECT_GT(total.finished[static_cast<std::size_t>(FinishReason::cancelled)], 50u);
  EXPECT_GT(total.finished[static_cast<std::size_t>(FinishReason::stop)], 50u);
  EXPECT_EQ(total.finished[static_cast<std::size_t>(FinishReason::error)], 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomMix, testing::Range(0, 8));

GenerationRequest request_of(Ids prompt, int max_new_tokens) {
  GenerationRequest request{.prompt_ids = std::move(prompt)};
  request.sampling.max_new_tokens = max_new_tokens;
  return request;
}

TEST(Scheduler, PreemptsTheLatestAndFinishesAll) {
  const FakeModel model;
  Generator generator(model, nullptr, {.max_batch = 4, .block_size = 4, .kv_blocks = 12});
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 4; ++i) requests.push_back(request_of({1, 2, 3, static_cast<std::int32_t>(i)}, 30));
  const auto results = generator.generate(requests);
  EXPECT_GT(generator.stats().preemptions, 0u);
  EXPECT_EQ(results[0].preemptions, 0u) << "the first is never set back";
  for (std::size_t i = 0; i < results.size(); ++i)
    EXPECT_EQ(results[i].ids, reference_output(model, requests[i].prompt_ids, requests[i].sampling));
}

TEST(Scheduler, PriorityComesFirst) {
  const FakeModel model;
  Generator generator(model, nullptr, {.max_batch = 1});
  std::vector<int> order;
  for (const int priority : {0, 5, 1}) {
    GenerationRequest request = request_of({1, 2}, 3);
    request.priority = priority;
    request.on_finish = [&order, priority](GenerationResult&&) { order.push_back(priority); };
    generator.submit(std::move(request));
  }
  while (generator.step()) {}
  EXPECT_EQ(order, (std::vector<int>{5, 1, 0}));
}

TEST(Scheduler, ReusesPrefixes) {
  const FakeModel model;
  Generator generator(model, nullptr, {.block_size = 4, .kv_blocks = 100});
  std::mt19937 rng(1);
  const Ids prompt = random_ids(rng, 21, 11);
  const auto first = generator.generate(request_of(prompt, 8));
  EXPECT_EQ(first.cached_tokens, 0u);
  const auto computed = generator.stats().computed_tokens;
  const auto again = generator.generate(request_of(prompt, 8));
  EXPECT_EQ(again.cached_tokens, 20u);
  EXPECT_EQ(again.ids, first.ids);
  EXPECT_EQ(generator.stats().computed_tokens - computed, 21u - 20u + 7u);
  // The answer is a prefix, too: the next turn of a conversation.
  Ids turn = prompt;
  turn.insert(turn.end(), first.ids.begin(), first.ids.end());
  turn.push_back(3);
  EXPECT_EQ(generator.generate(request_of(turn, 2)).cached_tokens, 28u);
  EXPECT_EQ(generator.stats().cached_tokens, 48u);
  EXPECT_GT(generator.stats().kv_blocks_cached, 0);
  // A whole prompt in cached blocks: its last token is run all the same.
  const Ids exact(prompt.begin(), prompt.begin() + 8);
  EXPECT_EQ(generator.generate(request_of(exact, 4)).cached_tokens, 4u);
}

TEST(Scheduler, ReusesNoPrefixWhereTheModelCanNot) {
  FakeModel::Settings options;
  options.recurrent = true;
  options.can.prefix_reuse = false;
  const FakeModel model(options);
  Generator generator(model, nullptr, {.block_size = 2});
  EXPECT_FALSE(generator.options().prefix_reuse);
  generator.generate(request_of({1, 2, 3, 4, 5}, 4));
  EXPECT_EQ(generator.generate(request_of({1, 2, 3, 4, 5}, 4)).cached_tokens, 0u);
}

TEST(Scheduler, DecodeRowsComeBeforePrompts) {
  std::vector<std::vector<std::int32_t>> counts;
  FakeModel::Settings options;
  options.on_step = [&](const Batch& batch) {
    counts.emplace_back();
    for (std::size_t s = 0; s < batch.sequences(); ++s)
      counts.back().push_back(batch.row_begin[s + 1] - batch.row_begin[s]);
  };
  const FakeModel model(options);
  Generator generator(model, nullptr, {.max_step_tokens = 5});
  const auto first = generator.submit(request_of({1, 2, 3}, 6));
  generator.step();
  const auto second = generator.submit(request_of({4, 5, 6, 7, 8, 9, 1, 2, 3}, 2));
  generator.wait(first);
  generator.wait(second);
  ASSERT_GE(counts.size(), 4u);
  EXPECT_EQ(counts[0], (std::vector<std::int32_t>{3}));
  EXPECT_EQ(counts[1], (std::vector<std::int32_t>{1, 4}));
  EXPECT_EQ(counts[2], (std::vector<std::int32_t>{1, 4}));
  EXPECT_EQ(counts[3], (std::vector<std::int32_t>{1, 1}));
}

TEST(Scheduler, NeitherKindStarvesWhereStepsDoNotMix) {
  FakeModel::Settings options;
  options.can.mixed_step = false;
  const FakeModel model(options);
  Generator generator(model, nullptr, {.max_step_tokens = 1});
  // One row at a time: while a long prompt is read, the other request still writes.
  const auto writes = generator.submit(request_of({1}, 10));
  generator.step();
  generator.submit(request_of(Ids(40, 2), 1));
  for (int i = 0; i < 24; ++i) generator.step();
  const auto result = generator.take(writes);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->ids.size(), 10u);
}

TEST(Scheduler, SpeculationChangesNothingButTheSteps) {
  FakeModel::Settings options;
  options.period = 4;
  options.vocab = 30;
  const FakeModel model(options);
  GenerationRequest request = request_of({1, 2, 3, 4, 1, 2, 3, 4, 1, 2}, 60);
  for (const float temperature : {0.0f, 0.8f}) {
    request.sampling.temperature = temperature;
    request.sampling.seed = 7;
    request.sampling.logprobs = 3;
    Generator plain(model, nullptr), drafting(model, nullptr, {.prompt_lookup_tokens = 4});
    const int before = model.steps;
    const auto expected = plain.generate(request);
    const int without = model.steps - before;
    const auto result = drafting.generate(request);
    EXPECT_EQ(result.ids, expected.ids);
    EXPECT_EQ(result.logprobs.size(), result.ids.size());
    for (std::size_t i = 0; i < result.logprobs.size(); ++i)
      EXPECT_EQ(result.logprobs[i].top, expected.logprobs[i].top);
    EXPECT_LT(model.steps - before - without, without * 2 / 3);
    EXPECT_GT(result.accepted_tokens, 10u);
    EXPECT_LE(result.accepted_tokens, result.drafted_tokens);
    EXPECT_EQ(drafting.stats().accepted_tokens, result.accepted_tokens);
  }
  options.can.speculation = false;
  const FakeModel recurrent(options);
  EXPECT_THROW(Generator(recurrent, nullptr, {.prompt_lookup_tokens = 4}), Error);
}

TEST(Scheduler, RefusesWhatCanNeverFit) {
  const FakeModel model;
  Generator generator(model, nullptr, {.block_size = 4, .kv_blocks = 4});
  EXPECT_EQ(generator.max_context(), 16);
  EXPECT_EQ(generator.generate(request_of(Ids(15, 1), 5)).ids.size(), 1u) << "the context ends the output";
  try {
    generator.submit(request_of(Ids(16, 1), 5));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("16 tokens"), std::string::npos) << e.what();
    EXPECT_NE(e.fix().find("KV memory"), std::string::npos) << e.what();
  }
  EXPECT_TRUE(generator.idle());
  EXPECT_THROW(Generator(model, nullptr, {.block_size = 4, .kv_blocks = 4, .max_context = 17}), Error);
  EXPECT_THROW(Generator(model, nullptr, {.kv_bytes = 7}), Error);
  EXPECT_THROW(Generator(model, nullptr, {.max_context = 4097}), Error);
  EXPECT_THROW(Generator(model, nullptr, {.max_batch = 0}), Error);
  EXPECT_THROW(Generator(model, nullptr, {.block_size = 0}), Error);
  const Generator sized(model, nullptr, {.max_batch = 2, .block_size = 16, .kv_bytes = 16 * 8 * 10 + 5});
  EXPECT_EQ(sized.options().kv_blocks, 10);
  EXPECT_EQ(sized.options().kv_bytes, 16u * 8 * 10);
  EXPECT_EQ(sized.max_context(), 160);
}

TEST(Scheduler, RefusesBadRequestsBeforeAnyRuns) {
  const FakeModel model;
  Generator generator(model);
  std::vector<GenerationRequest> requests = {request_of({1, 2}, 3), request_of({}, 3)};
  EXPECT_THROW(generator.generate(requests), Error);
  EXPECT_TRUE(generator.idle());
  EXPECT_THROW(generator.submit(request_of({1, 11}, 3)), Error);
  EXPECT_THROW(generator.submit(request_of({-1}, 3)), Error);
  EXPECT_THROW(generator.submit({.prompt = "text without a tokenizer"}), Error);
  GenerationRequest stop = request_of({1}, 3);
  stop.sampling.stop = {"x"};
  EXPECT_THROW(generator.submit(stop), Error);
  EXPECT_THROW(generator.wait(99), Error);
  EXPECT_FALSE(generator.cancel(99));
  EXPECT_FALSE(generator.step());
}

TEST(Scheduler, ScoresAPromptWithoutAnswer) {
  const FakeModel model;
  Generator generator(model, nullptr, {.max_step_tokens = 3});
  GenerationRequest request = request_of({1, 2, 3, 4, 5, 6, 7}, 0);
  request.sampling.prompt_logprobs = 0;
  const auto result = generator.generate(request);
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  EXPECT_TRUE(result.ids.empty());
  ASSERT_EQ(result.prompt_logprobs.size(), 6u);
  EXPECT_EQ(result.prompt_logprobs[3].token.id, 5);
}

TEST(Scheduler, AFailedStepEndsItsRequestsOnly) {
  bool fail = false;
  FakeModel::Settings options;
  options.on_step = [&](const Batch&) {
    if (fail) throw Error("the device is gone", "layer 3");
  };
  const FakeModel model(options);
  Generator generator(model, nullptr, {.max_batch = 2, .block_size = 2});
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i)
    ids.push_back(generator.submit(request_of({1, 2, static_cast<std::int32_t>(i)}, 5)));
  generator.step();
  fail = true;
  generator.step();
  fail = false;
  for (int i = 0; i < 2; ++i) {
    const auto failed = generator.take(ids[static_cast<std::size_t>(i)]);
    ASSERT_TRUE(failed);
    EXPECT_EQ(failed->finish_reason, FinishReason::error);
    EXPECT_EQ(failed->error, "the device is gone, layer 3");
    EXPECT_EQ(failed->ids.size(), 1u);
  }
  const auto survivor = generator.wait(ids[2]);
  EXPECT_EQ(survivor.ids, reference_output(model, Ids{1, 2, 2}, request_of({}, 5).sampling));
  EXPECT_EQ(generator.stats().kv_blocks_used, 0);
  EXPECT_EQ(generator.stats().finished[static_cast<std::size_t>(FinishReason::error)], 2u);
}

TEST(Scheduler, NaNEndsTheRequestThatHasIt) {
  FakeModel::Settings options;
  options.nan_after = 9;
  const FakeModel model(options);
  Generator generator(model);
  const auto results = generator.generate(std::vector{request_of({1, 2, 9}, 5), request_of({1, 2, 3}, 1)});
  EXPECT_EQ(results[0].finish_reason, FinishReason::error);
  EXPECT_NE(results[0].error.find("NaN"), std::string::npos) << results[0].error;
  EXPECT_EQ(results[1].finish_reason, FinishReason::length);
}

TEST(Scheduler, CallbacksMayCancelThrowAndSubmit) {
  const FakeModel model;
  Generator generator(model);
  RequestId id = 0;
  GenerationRequest cancels = request_of({1, 2}, 20);
  int deltas = 0;
  cancels.on_delta = [&](const GenerationDelta& delta) {
    if (++deltas == 3) generator.cancel(delta.request);
  };
  GenerationRequest throws = request_of({1, 2}, 20);
  throws.on_delta = [](const GenerationDelta&) { throw std::runtime_error("reader has left"); };
  GenerationRequest submits = request_of({1, 2}, 4);
  RequestId child = 0;
  submits.on_finish = [&](GenerationResult&&) { child = generator.submit(request_of({5}, 2)); };
  GenerationRequest steps = request_of({1, 2}, 4);
  bool refused = false;
  steps.on_delta = [&](const GenerationDelta&) {
    try {
      generator.step();
    } catch (const Error&) { refused = true; }
  };
  const auto first = generator.submit(cancels), second = generator.submit(throws),
             third = generator.submit(submits), fourth = generator.submit(steps);
  id = generator.submit(request_of({1, 2}, 20));
  const auto whole = generator.wait(id);
  EXPECT_EQ(whole.ids.size(), 20u);
  const auto cancelled = generator.take(first);
  EXPECT_EQ(cancelled->finish_reason, FinishReason::cancelled);
  EXPECT_EQ(cancelled->ids.size(), 3u);
  EXPECT_EQ(deltas, 4) << "the last delta tells the end";
  const auto thrown = generator.take(second);
  EXPECT_EQ(thrown->finish_reason, FinishReason::cancelled);
  EXPECT_EQ(thrown->error, "reader has left");
  EXPECT_FALSE(generator.take(third)) << "on_finish took it";
  EXPECT_TRUE(generator.take(fourth));
  EXPECT_TRUE(refused);
  EXPECT_EQ(generator.wait(child).ids.size(), 2u);
}

TEST(Scheduler, TheEndOfTheGeneratorEndsItsRequests) {
  const FakeModel model;
  std::vector<FinishReason> reasons;
  {
    Generator generator(model, nullptr, {.max_batch = 1});
    for (int i = 0; i < 3; ++i) {
      GenerationRequest request = request_of({1, 2}, 20);
      request.on_finish = [&](GenerationResult&& result) { reasons.push_back(result.finish_reason); };
      generator.submit(std::move(request));
    }
    generator.step();
    generator.step();
  }
  EXPECT_EQ(reasons, std::vector<FinishReason>(3, FinishReason::cancelled));
}

TEST(Scheduler, SeedsRepeatAndDiffer) {
  const FakeModel model;
  Generator generator(model);
  GenerationRequest request = request_of({1, 2, 3}, 25);
  request.sampling.temperature = 1.5f;
  const auto first = generator.generate(request), second = generator.generate(request);
  EXPECT_NE(first.seed, second.seed);
  EXPECT_NE(first.ids, second.ids);
  request.sampling.seed = first.seed;
  EXPECT_EQ(generator.generate(request).ids, first.ids);
}

TEST(Scheduler, ProcessorsAndAllowedIdsBindTheChoice) {
  const FakeModel model;
  Generator generator(model);
  GenerationRequest request = request_of({1, 2, 3}, 12);
  request.sampling.allowed_token_ids = {4, 7, 4};
  request.sampling.logprobs = 1;
  for (const auto id : generator.generate(request).ids) EXPECT_TRUE(id == 4 || id == 7);
  request.sampling.allowed_token_ids.clear();
  request.logits_processor = [](std::span<const std::int32_t> output, std::span<float> logits) {
    logits[output.size() % 11] = 50;  // spells 0 1 2 ..
  };
  const auto result = generator.generate(request);
  for (std::size_t i = 0; i < 11; ++i) EXPECT_EQ(result.ids[i], static_cast<std::int32_t>(i));
  // Log-probabilities are the model's, not those after the processor.
  const auto raw = log_probabilities(model.logits(Ids{1, 2, 3}), 0, 1);
  EXPECT_EQ(result.logprobs[0].token, raw.token);
  EXPECT_EQ(result.logprobs[0].rank, raw.rank);
  EXPECT_EQ(result.logprobs[0].top, raw.top);
}

TEST(Scheduler, ManyThreads) {
  const FakeModel model;
  Generator generator(model, nullptr, {.max_batch = 4, .block_size = 4, .kv_blocks = 40});
  std::jthread server([&](std::stop_token stop) { generator.run(stop); });
  std::atomic<int> wrong = 0, finished = 0;
  {
    std::vector<std::jthread> clients;
    for (int c = 0; c < 4; ++c) {
      clients.emplace_back([&, c] {
        std::mt19937 rng(static_cast<unsigned>(c));
        for (int i = 0; i < 20; ++i) {
          GenerationRequest request =
              request_of(random_ids(rng, 1 + rng() % 20, 11), 1 + static_cast<int>(rng() % 20));
          const Ids expected = reference_output(model, request.prompt_ids, request.sampling);
          if (i % 4 == 3) {
            request.on_finish = [&](GenerationResult&&) { ++finished; };
            generator.cancel(generator.submit(std::move(request)));
          } else {
            wrong += generator.generate(request).ids != expected;
            ++finished;
          }
          (void)generator.stats();
        }
      });
    }
  }
  while (!generator.idle()) std::this_thread::yield();
  server.request_stop();
  server.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(finished, 80);
}

}  // namespace
}  // namespace ttt
