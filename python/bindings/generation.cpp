#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "bindings.h"
#include "ttt/base/error.h"
#include "ttt/runtime/generator.h"

namespace ttt_python {

namespace {

using Unlocked = nb::call_guard<nb::gil_scoped_release>;
using Ids = std::vector<std::int32_t>;

// A delta that outlives the callback.
struct Delta {
  std::string text;
  Ids ids;
  std::vector<ttt::PositionLogprobs> logprobs;
  std::optional<std::string> finish_reason;
};

// One request that runs, between the generator's callbacks and the thread that reads.
struct Running {
  std::mutex mutex;
  std::deque<Delta> deltas;
  std::optional<ttt::GenerationResult> result;

  void attach(ttt::GenerationRequest& request, bool deltas_wanted, const std::shared_ptr<Running>& self) {
    if (deltas_wanted) {
      request.on_delta = [self](const ttt::GenerationDelta& d) {
        Delta delta{.text = std::string(d.text),
                    .ids = {d.ids.begin(), d.ids.end()},
                    .logprobs = {d.logprobs.begin(), d.logprobs.end()},
                    .finish_reason = {}};
        if (d.finish_reason) delta.finish_reason = std::string(name(*d.finish_reason));
        const std::lock_guard lock(self->mutex);
        self->deltas.push_back(std::move(delta));
      };
    }
    request.on_finish = [self](ttt::GenerationResult&& r) {
      const std::lock_guard lock(self->mutex);
      self->result = std::move(r);
    };
  }
  bool finished() {
    const std::lock_guard lock(mutex);
    return result.has_value();
  }
};
using RunningPtr = std::shared_ptr<Running>;

struct Engine {
  ModelPtr keep;
  std::unique_ptr<ttt::Generator> generator;
};
using EnginePtr = std::shared_ptr<Engine>;

// Steps until the request is done; Ctrl-C cancels it and raises. Without the GIL.
void run_until(ttt::Generator& generator, ttt::RequestId id, const std::function<bool()>& done) {
  try {
    while (!done()) {
      generator.step();
      check_signals();
    }
  } catch (...) {
    generator.cancel(id);
    while (generator.step()) {  // lets it leave; the others go on
      if (done()) break;
    }
    throw;
  }
}

// The deltas of one request, as a Python iterator.
class Stream {
 public:
  Stream(EnginePtr engine, RunningPtr running, ttt::RequestId id)
      : engine_(std::move(engine)), running_(std::move(running)), id_(id) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    if (!running_->finished()) engine_->generator->cancel(id_);
  }

  Delta next() {
    std::optional<Delta> delta;
    {
      const nb::gil_scoped_release unlocked;
      run_until(*engine_->generator, id_, [&] {
        const std::lock_guard lock(running_->mutex);
        return !running_->deltas.empty() || running_->result.has_value();
      });
      const std::lock_guard lock(running_->mutex);
      if (!running_->deltas.empty()) {
        delta = std::move(running_->deltas.front());
        running_->deltas.pop_front();
      }
    }
    if (!delta) throw nb::stop_iteration();
    return std::move(*delta);
  }
  void cancel() { engine_->generator->cancel(id_); }
  std::optional<ttt::GenerationResult> result() {
    const std::lock_guard lock(running_->mutex);
    return running_->result;
  }

 private:
  EnginePtr engine_;
  RunningPtr running_;
  ttt::RequestId id_;
};

// A prompt is text or ids.
ttt::GenerationRequest make_request(const nb::object& prompt, const ttt::SamplingParams* sampling,
                                    int priority, bool add_special_tokens,
                                    const nb::object& logits_processor) {
  ttt::GenerationRequest request;
  if (nb::isinstance<nb::str>(prompt)) {
    request.prompt = nb::cast<std::string>(prompt);
  } else {
    request.prompt_ids = nb::cast<Ids>(prompt);
    if (request.prompt_ids.empty())
      throw ttt::Error("the prompt is empty", "prompt", "give at least one token");
  }
  request.encode.add_special_tokens = add_special_tokens;
  if (sampling != nullptr) request.sampling = *sampling;
  request.priority = priority;
  if (!logits_processor.is_none()) {
    // The generator drops it without the GIL.
    const std::shared_ptr<nb::object> function(new nb::object(logits_processor), [](nb::object* p) {
      const nb::gil_scoped_acquire gil;
      delete p;
    });
    request.logits_processor = [function](std::span<const std::int32_t> output, std::span<float> logits) {
      const nb::gil_scoped_acquire gil;
      const nb::ndarray<nb::numpy, const std::int32_t> ids(output.data(), {output.size()});
      const nb::ndarray<nb::numpy, float> row(logits.data(), {logits.size()});
      (*function)(nb::cast(ids, nb::rv_policy::copy), nb::cast(row, nb::rv_policy::reference));
    };
  }
  return request;
}

// What a result says of a failure, raised.
void raise_failure(const ttt::GenerationResult& result) {
  if (result.finish_reason == ttt::FinishReason::error) throw ttt::Error(result.error, "while generating");
  if (result.finish_reason == ttt::FinishReason::cancelled && !result.error.empty())
    throw ttt::Error(result.error, "in a callback of the request");
}

std::vector<ttt::GenerationResult> generate(const EnginePtr& engine,
                                            std::vector<ttt::GenerationRequest> requests) {
  std::vector<RunningPtr> running;
  std::vector<ttt::RequestId> ids;
  {
    const nb::gil_scoped_release unlocked;
    ttt::Generator& generator = *engine->generator;
    try {
      for (ttt::GenerationRequest& request : requests) {
        running.push_back(std::make_shared<Running>());
        running.back()->attach(request, false, running.back());
        ids.push_back(generator.submit(request));
      }
      for (std::size_t i = 0; i < ids.size(); ++i)
        run_until(generator, ids[i], [&] { return running[i]->finished(); });
    } catch (...) {
      for (const ttt::RequestId id : ids) generator.cancel(id);
      generator.step();
      throw;
    }
  }
  std::vector<ttt::GenerationResult> results;
  for (const RunningPtr& one : running) {
    raise_failure(*one->result);
    results.push_back(std::move(*one->result));
  }
  return results;
}

// A schema is a text, or what json.dumps takes.
std::optional<std::string> schema_text(const nb::object& schema) {
  if (schema.is_none()) return std::nullopt;
  if (nb::isinstance<nb::str>(schema)) return nb::cast<std::string>(schema);
  return nb::cast<std::string>(nb::module_::import_("json").attr("dumps")(schema));
}

void bind_sampling(nb::module_& m) {
  using P = ttt::SamplingParams;
  nb::class_<P>(m, "SamplingParams",
                "How tokens are chosen and when a request ends; names and meanings are vLLM's.")
      .def(
          "__init__",
          [](P* self, float temperature, int top_k, float top_p, float min_p, float repetition,
             float presence, float frequency, std::optional<std::uint64_t> seed,
             const std::optional<nb::dict>& bias, Ids allowed, std::optional<int> logprobs,
             std::optional<int> prompt_logprobs, const nb::object& json_schema, int max_new_tokens,
             int min_new_tokens, std::vector<std::string> stop, bool include_stop, Ids stop_ids,
             bool ignore_eos) {
            new (self) P{.temperature = temperature,
                         .top_k = top_k,
                         .top_p = top_p,
                         .min_p = min_p,
                         .repetition_penalty = repetition,
                         .presence_penalty = presence,
                         .frequency_penalty = frequency,
                         .seed = seed,
                         .logit_bias = {},
                         .allowed_token_ids = std::move(allowed),
                         .logprobs = logprobs,
                         .prompt_logprobs = prompt_logprobs,
                         .json_schema = schema_text(json_schema),
                         .max_new_tokens = max_new_tokens,
                         .min_new_tokens = min_new_tokens,
                         .stop = std::move(stop),
                         .include_stop_string = include_stop,
                         .stop_token_ids = std::move(stop_ids),
                         .ignore_eos = ignore_eos};
            if (bias) {
              for (const auto& [id, value] : *bias)
                self->logit_bias.emplace_back(nb::cast<std::int32_t>(id), nb::cast<float>(value));
            }
          },
          nb::kw_only(), nb::arg("temperature") = 0.f, nb::arg("top_k") = 0, nb::arg("top_p") = 1.f,
          nb::arg("min_p") = 0.f, nb::arg("repetition_penalty") = 1.f, nb::arg("presence_penalty") = 0.f,
          nb::arg("frequency_penalty") = 0.f, nb::arg("seed") = nb::none(),
          nb::arg("logit_bias") = nb::none(), nb::arg("allowed_token_ids") = Ids{},
          nb::arg("logprobs") = nb::none(), nb::arg("prompt_logprobs") = nb::none(),
          nb::arg("json_schema") = nb::none(), nb::arg("max_new_tokens") = 256, nb::arg("min_new_tokens") = 0,
          nb::arg("stop") = std::vector<std::string>{}, nb::arg("include_stop_string") = false,
          nb::arg("stop_token_ids") = Ids{}, nb::arg("ignore_eos") = false)
      .def_rw("temperature", &P::temperature, "Below 1e-5: greedy.")
      .def_rw("top_k", &P::top_k)
      .def_rw("top_p", &P::top_p)
      .def_rw("min_p", &P::min_p)
      .def_rw("repetition_penalty", &P::repetition_penalty)
      .def_rw("presence_penalty", &P::presence_penalty)
      .def_rw("frequency_penalty", &P::frequency_penalty)
      .def_rw("seed", &P::seed)
      .def_rw("allowed_token_ids", &P::allowed_token_ids)
      .def_rw("logprobs", &P::logprobs)
      .def_rw("prompt_logprobs", &P::prompt_logprobs)
      .def_prop_rw(
          "json_schema", [](const P& p) { return p.json_schema; },
          [](P& p, const nb::object& schema) { p.json_schema = schema_text(schema); },
          nb::arg("value").none(), "JSON schema, as a dict or a text, that the output is a value of.")
      .def_rw("max_new_tokens", &P::max_new_tokens)
      .def_rw("min_new_tokens", &P::min_new_tokens)
      .def_rw("stop", &P::stop)
      .def_rw("include_stop_string", &P::include_stop_string)
      .def_rw("stop_token_ids", &P::stop_token_ids)
      .def_rw("ignore_eos", &P::ignore_eos);
}

void bind_results(nb::module_& m) {
  nb::class_<ttt::TokenLogprob>(m, "TokenLogprob")
      .def_ro("id", &ttt::TokenLogprob::id)
      .def_ro("logprob", &ttt::TokenLogprob::logprob);
  nb::class_<ttt::PositionLogprobs>(m, "PositionLogprobs", "Log-probabilities at one position.")
      .def_ro("token", &ttt::PositionLogprobs::token, "Of the chosen token.")
      .def_ro("rank", &ttt::PositionLogprobs::rank, "1 + number of likelier tokens.")
      .def_ro("top", &ttt::PositionLogprobs::top, "The likeliest, best first.");
  nb::class_<Delta>(m, "GenerationDelta", "What one step brought to a request.")
      .def_ro("text", &Delta::text, "Whole characters; all deltas together are the result's text.")
      .def_ro("ids", &Delta::ids)
      .def_ro("logprobs", &Delta::logprobs)
      .def_ro("finish_reason", &Delta::finish_reason,
              "Set in the last delta: stop, length, cancelled or error.");
  using T = ttt::GenerationTimings;
  nb::class_<T>(m, "GenerationTimings", "Seconds.")
      .def_ro("queue", &T::queue)
      .def_ro("time_to_first_token", &T::time_to_first_token)
      .def_ro("total", &T::total)
      .def_ro("tokens", &T::tokens)
      .def_prop_ro("tokens_per_second", &T::tokens_per_second);
  using R = ttt::GenerationResult;
  nb::class_<R>(m, "GenerationResult", "A finished request.")
      .def_ro("ids", &R::ids, "New tokens, the end id included.")
      .def_ro("text", &R::text, "Of the new tokens, without end ids and special tokens.")
      .def_prop_ro(
          "finish_reason", [](const R& r) { return std::string(name(r.finish_reason)); },
          "stop, length, cancelled or error.")
      .def_ro("stop_string", &R::stop_string)
      .def_ro("stop_token", &R::stop_token)
      .def_ro("error", &R::error)
      .def_ro("logprobs", &R::logprobs)
      .def_ro("prompt_logprobs", &R::prompt_logprobs)
      .def_ro("prompt_tokens", &R::prompt_tokens)
      .def_ro("cached_tokens", &R::cached_tokens)
      .def_ro("preemptions", &R::preemptions)
      .def_ro("seed", &R::seed)
      .def_ro("timings", &R::timings);
  using S = ttt::GeneratorStats;
  nb::class_<S>(m, "GeneratorStats", "A snapshot; counters run from the construction.")
      .def_ro("waiting", &S::waiting)
      .def_ro("running", &S::running)
      .def_ro("kv_blocks", &S::kv_blocks)
      .def_ro("kv_blocks_used", &S::kv_blocks_used)
      .def_ro("kv_blocks_cached", &S::kv_blocks_cached)
      .def_ro("kv_bytes", &S::kv_bytes)
      .def_ro("steps", &S::steps)
      .def_ro("submitted", &S::submitted)
      .def_ro("prompt_tokens", &S::prompt_tokens)
      .def_ro("cached_tokens", &S::cached_tokens)
      .def_ro("computed_tokens", &S::computed_tokens)
      .def_ro("generated_tokens", &S::generated_tokens)
      .def_ro("preemptions", &S::preemptions)
      .def_ro("step_seconds", &S::step_seconds);
}

}  // namespace

void bind_generation(nb::module_& m) {
  bind_sampling(m);
  bind_results(m);
  nb::class_<Stream>(m, "Stream", "The deltas of a request. Dropping it cancels the request.")
      .def(
          "__iter__", [](Stream& s) -> Stream& { return s; }, nb::rv_policy::reference)
      .def("__next__", &Stream::next)
      .def("cancel", &Stream::cancel, "Ends the request at the next step.")
      .def_prop_ro("result", &Stream::result, "Once the last delta came.");

  nb::class_<Engine>(
      m, "Generator",
      "Continuous batching over one model: requests join and leave between steps. Threads may share one.")
      .def(nb::new_([](const Model& model, int max_batch, int max_step_tokens, int block_size,
                       std::size_t kv_bytes, std::int64_t kv_blocks, int max_context, bool prefix_reuse,
                       int prompt_lookup_tokens) {
             ttt::GeneratorOptions options{.max_batch = max_batch,
                                           .max_step_tokens = max_step_tokens,
                                           .block_size = block_size,
                                           .kv_bytes = kv_bytes,
                                           .kv_blocks = kv_blocks,
                                           .max_context = max_context,
                                           .prefix_reuse = prefix_reuse,
                                           .eos_token_ids = ttt::end_ids(*model.loaded),
                                           .prompt_lookup_tokens = prompt_lookup_tokens};
             const nb::gil_scoped_release unlocked;
             const auto& tokenizer = model.loaded->tokenizer;
             auto engine = std::make_shared<Engine>();
             engine->keep = model.loaded;
             engine->generator = std::make_unique<ttt::Generator>(model.network(),
                                                                  tokenizer ? &*tokenizer : nullptr, options);
             return engine;
           }),
           nb::arg("model"), nb::kw_only(), nb::arg("max_batch") = 32, nb::arg("max_step_tokens") = 512,
           nb::arg("block_size") = 32, nb::arg("kv_bytes") = 0, nb::arg("kv_blocks") = 0,
           nb::arg("max_context") = 0, nb::arg("prefix_reuse") = true, nb::arg("prompt_lookup_tokens") = 0)
      .def(
          "generate",
          [](const EnginePtr& engine, const nb::object& prompt, const ttt::SamplingParams* sampling,
             bool special, const nb::object& processor) {
            std::vector<ttt::GenerationRequest> requests;
            requests.push_back(make_request(prompt, sampling, 0, special, processor));
            return std::move(generate(engine, std::move(requests)).front());
          },
          nb::arg("prompt"), nb::arg("sampling") = nb::none(), nb::kw_only(),
          nb::arg("add_special_tokens") = true, nb::arg("logits_processor") = nb::none())
      .def(
          "generate_batch",
          [](const EnginePtr& engine, const nb::list& prompts, const nb::object& sampling, bool special) {
            std::vector<ttt::GenerationRequest> requests;
            const bool many = nb::isinstance<nb::list>(sampling);
            if (many && nb::len(sampling) != nb::len(prompts))
              throw ttt::Error("as many sampling parameters as prompts are needed", "generate_batch",
                               "give one, or a list of that length");
            for (std::size_t i = 0; i < nb::len(prompts); ++i)
              requests.push_back(make_request(
                  prompts[i], nb::cast<const ttt::SamplingParams*>(many ? nb::object(sampling[i]) : sampling),
                  0, special, nb::none()));
            return generate(engine, std::move(requests));
          },
          nb::arg("prompts"), nb::arg("sampling") = nb::none(), nb::kw_only(),
          nb::arg("add_special_tokens") = true)
      .def(
          "stream",
          [](const EnginePtr& engine, const nb::object& prompt, const ttt::SamplingParams* sampling,
             int priority, bool special, const nb::object& processor) {
            ttt::GenerationRequest request = make_request(prompt, sampling, priority, special, processor);
            auto running = std::make_shared<Running>();
            running->attach(request, true, running);
            ttt::RequestId id = 0;
            {
              const nb::gil_scoped_release unlocked;
              id = engine->generator->submit(request);
            }
            return std::make_unique<Stream>(engine, running, id);
          },
          nb::arg("prompt"), nb::arg("sampling") = nb::none(), nb::kw_only(), nb::arg("priority") = 0,
          nb::arg("add_special_tokens") = true, nb::arg("logits_processor") = nb::none())
      .def(
          "step", [](Engine& e) { return e.generator->step(); }, Unlocked(),
          "One iteration for all requests; False when there was nothing to do.")
      .def(
          "cancel_all", [](Engine& e) { e.generator->cancel_all(); }, Unlocked())
      .def_prop_ro("stats", [](Engine& e) { return e.generator->stats(); })
      .def_static("follows_schemas", &ttt::Generator::follows_schemas,
                  "Whether this build can follow SamplingParams.json_schema.")
      .def_prop_ro("max_context", [](Engine& e) { return e.generator->max_context(); });
}

}  // namespace ttt_python
