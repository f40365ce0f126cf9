#include "ttt/testing/check.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "testing/diagnose.h"
#include "testing/driver.h"
#include "testing/golden_run.h"
#include "testing/hypotheses.h"
#include "testing/measure.h"
#include "testing/numbers.h"
#include "ttt/base/error.h"
#include "ttt/convert/binding.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/runtime/chat.h"
#include "ttt/testing/debug.h"
#include "ttt/testing/fixture.h"

namespace ttt::inline v2::testing {

namespace {

using Json = nlohmann::ordered_json;

std::string list(const std::vector<std::string>& texts, const char* between) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : between) + text;
  return all;
}

std::size_t count_of(const std::vector<WeightProblem>& problems) {
  std::size_t count = 0;
  for (const WeightProblem& p : problems) count += p.count;
  return count;
}

// The stages that need names and shapes only.
class Checker {
 public:
  explicit Checker(CheckResult& result) : result_(result) {}

  CheckStage& stage(std::string name, bool good, std::string detail, std::string cause = {}) {
    return result_.stages.emplace_back(CheckStage{.name = std::move(name),
                                                  .outcome = good ? Outcome::passed : Outcome::failed,
                                                  .detail = std::move(detail),
                                                  .cause = good ? std::string() : std::move(cause)});
  }
  void skip(std::string name, std::string why) {
    result_.stages.push_back(
        {.name = std::move(name), .outcome = Outcome::skipped, .detail = std::move(why)});
  }

  // True when there is a description to go on with.
  template <class F>
  std::optional<Description> config(F describe) {
    try {
      Description d = describe();
      result_.architecture = d.architecture;
      result_.family = d.family;
      const std::vector<std::string>& unread = d.unread_keys;
      stage(
          "config", unread.empty(),
          unread.empty()
              ? d.architecture + ", family " + d.family + ": every key was read or is ignored on purpose"
              : std::to_string(unread.size()) + " keys that nothing reads: " + list(unread, ", "),
          "a key that changes the network must be read in describe(); one that does not belongs in .ignore");
      return d;
    } catch (const Error& error) {
      stage("config", false, error.problem() + (error.where().empty() ? "" : ", " + error.where()),
            error.fix().empty() ? "ttt new writes a model file to start from" : error.fix());
      return {};
    }
  }

  // True when all tensors are the network's weights.
  bool weights(const Description& d, const std::vector<NamedShape>& shapes) {
    const std::vector<WeightSlot> slots = weight_slots(d.spec);
    const WeightMap map = WeightMap::from_json(d.weight_map_json);
    std::vector<WeightProblem> names, misshapen;
    for (WeightProblem& p : weight_problems(map, shapes, slots))
      (p.kind == "misshapen" ? misshapen : names).push_back(std::move(p));
    const std::string all =
        std::to_string(shapes.size()) + " tensors, " + std::to_string(slots.size()) + " weights";
    stage("weights", names.empty(), names.empty() ? all + ": each is the other's" : text(names),
          "a name that no rule takes needs a rename(), or ignore() where the network has no such part; a "
          "missing "
          "weight means a flag of the spec (bias, norm, gate) that this checkpoint does not have");
    std::string cause =
        "a size that describe() reads from another key, or axes that the checkpoint keeps the other way";
    std::size_t best = count_of(names) + count_of(misshapen);
    for (const Hypothesis& h : misshapen.empty() ? std::vector<Hypothesis>() : shape_hypotheses(d)) {
      const std::size_t left =
          count_of(weight_problems(WeightMap::from_json(h.changed.weight_map_json), shapes, slots));
      if (left < best) best = left, cause = h.cause;
    }
    stage("shapes", misshapen.empty(),
          misshapen.empty() ? "every tensor has its weight's shape" : text(misshapen), cause);
    return names.empty() && misshapen.empty();
  }

 private:
  static std::string text(const std::vector<WeightProblem>& problems) {
    std::string all;
    for (const WeightProblem& p : problems) {
      all +=
          (all.empty() ? "" : "; ") + std::to_string(p.count) + " " + p.kind + ": " + list(p.examples, ", ");
      if (p.count > p.examples.size()) all += ", ...";
    }
    return all;
  }

  CheckResult& result_;
};

class FullCheck {
 public:
  FullCheck(CheckResult& result, const CheckOptions& options)
      : result_(result), options_(options), checker_(result) {}

  void run() {
    const Checkpoint checkpoint = Checkpoint::open(result_.path);
    LoadOptions load_options = options_.load;
    load_options.precision = "f32";
    if (!load_options.cache) load_options.cache.emplace();
    if (load_options.config.empty())
      load_options.config = R"({"attn_implementation": "eager"})";  // as references do
    progress("config");
    const std::optional<Description> d = checker_.config(
        [&] { return options_.description ? *options_.description : describe(result_.path, load_options); });
    if (!d) return;
    result_.addition = addition(d->spec, describe_target(), options_.load, d->architecture);
    progress("weights");
    const std::vector<NamedShape> shapes = checkpoint.shapes();
    if (shapes.empty()) {
      checker_.skip("weights", "the checkpoint has a config.json alone");
      return;
    }
    if (!checker_.weights(*d, shapes)) return;
    try {
      const LoadedModel loaded = load(result_.path, *d, load_options);
      require_numbers(*loaded.model, "ttt check");
      const std::optional<Reference> reference = find_reference(checkpoint);
      progress("forward");
      if (!forward(loaded, reference)) return;
      if (reference) {
        compare(loaded, *reference, *d, checkpoint, load_options);
      } else {
        for (const char* name : {"first layer", "all layers", "logits", "greedy tokens"})
          checker_.skip(name, "no reference: tools/reference --model PATH --taps --out FILE writes one");
      }
      progress("chat");
      chat(loaded);
    } catch (const Error& error) { checker_.stage("forward", false, error.what()); }
  }

 private:
  void progress(std::string_view name) const {
    if (options_.progress) options_.progress(name);
  }

  // What the test set is counted for: as ttt models --scaling counts it, on one card.
  static Target describe_target() { return make_target(hw::n150(), "performance"); }

  std::optional<Reference> find_reference(const Checkpoint& checkpoint) const {
    std::filesystem::path path = options_.reference;
    if (path.empty() && std::filesystem::is_directory(result_.path)) {
      path = result_.path / "golden.safetensors";
      if (!std::filesystem::exists(path)) return {};
    }
    if (path.empty()) return {};
    Reference reference = Reference::open(path);
    const std::string expected = reference.metadata("source_sha256");
    if (!expected.empty() && checkpoint.format() == CheckpointFormat::safetensors &&
        std::filesystem::is_directory(result_.path) && expected != source_sha256(result_.path))
      throw Error("the reference belongs to another checkpoint", printable(path.string(), 200),
                  "write it anew with tools/reference");
    return reference;
  }

  // A prompt gives finite numbers.
  bool forward(const LoadedModel& loaded, const std::optional<Reference>& reference) {
    std::vector<std::int32_t> prompt;
    if (reference) {
      prompt = reference->input_ids();
    } else {
      for (std::int32_t i = 0; i < 16; ++i) prompt.push_back((7 * i + 5) % loaded.model->spec().vocab);
    }
    const std::vector<float> logits =
        Driver(*loaded.model, 1, prompt.size()).feed(prompt, Want::last_rows).logits;
    const bool finite = std::ranges::all_of(logits, [](float v) { return std::isfinite(v); });
    double squares = 0;
    for (float v : logits) squares += static_cast<double>(v) * v;
    checker_.stage(
        "forward", finite,
        finite ? std::to_string(prompt.size()) + " tokens in one step, logits of root mean square " +
                     short_number(std::sqrt(squares / static_cast<double>(logits.size())))
               : "logits are not finite",
        "a norm without its 1 + weight, a wrong scale, or weights that are not what their names say");
    return finite;
  }

  void compare(const LoadedModel& loaded, const Reference& reference, const Description& d,
               const Checkpoint& checkpoint, const LoadOptions& load_options) {
    progress("first layer");
    const Comparison found = testing::compare(*loaded.model, reference,
                                              {.bound = {.tolerance = options_.tolerance}, .logits = false});
    const std::vector<TapDifference>& taps = found.taps;
    const TapDifference* const bad = found.first();
    if (taps.empty()) {
      for (const char* name : {"first layer", "all layers"})
        checker_.skip(name, "the reference has no intermediates: write it with --taps");
    } else {
      const auto in_first = [](const TapDifference& t) {
        return t.tap == "embed" || t.tap.starts_with("layers.0");
      };
      const auto first = static_cast<std::size_t>(std::ranges::count_if(taps, in_first));
      if (bad && in_first(*bad)) {
        checker_.stage("first layer", false, "first difference: " + to_string(*bad));
        checker_.skip("all layers", "the first one differs");
      } else {
        checker_.stage("first layer", true, std::to_string(first) + " intermediates agree");
        checker_.stage("all layers", !bad,
                       bad ? "first difference: " + to_string(*bad)
                           : std::to_string(taps.size()) + " intermediates agree");
      }
    }
    progress("logits");
    numbers(loaded, reference, bad, load_options, d);
    const CheckStage* logits = result_.stage("logits");
    const bool differs = bad || (logits != nullptr && logits->outcome == Outcome::failed);
    if (!differs) return;
    result_.diverges = bad ? bad->tap : taps.empty() ? "" : "lm_head";
    find_cause(reference, d, checkpoint, load_options);
  }

  void numbers(const LoadedModel& loaded, const Reference& reference, const TapDifference* bad,
               const LoadOptions& load_options, const Description& d) {
    if (reference.logits().empty() ||
        (!reference.continuation().empty() && reference.decode_logits().empty())) {
      checker_.skip("logits", "the reference has none: write it without --no-logits");
      checker_.skip("greedy tokens", "the reference has no logits");
      return;
    }
    GoldenResult golden{.path = result_.path,
                        .name = result_.path.filename().string(),
                        .architecture = d.architecture,
                        .family = d.family,
                        .reference = made_by(reference),
                        .device = loaded.device->description()};
    const auto begin = std::chrono::steady_clock::now();
    const GoldenOptions options{
        .load = load_options, .chunks = !bad, .batch = !bad, .tolerance = options_.tolerance};
    GoldenRun f32{.precision = "f32"};
    run_golden(*loaded.model, reference, options, f32);
    const bool agree = f32.max_error <= options_.tolerance && f32.failure.find("token") == std::string::npos;
    checker_.stage("logits", agree && f32.passed,
                   f32.passed
                       ? "largest error " + short_number(f32.max_error) + ", PCC " + short_number(f32.pcc) +
                             (f32.batch_error ? "; in pieces and in a batch the same" : "")
                       : f32.failure);
    if (f32.tokens == 0) {
      checker_.skip("greedy tokens", "the reference has no continuation");
    } else {
      checker_.stage(
          "greedy tokens", f32.tokens_equal == f32.tokens,
          std::to_string(f32.tokens_equal) + " of " + std::to_string(f32.tokens) + " are the reference's");
    }
    golden.runs.push_back(f32);
    if (f32.passed) {
      progress("bf16");
      LoadOptions half = load_options;
      half.precision = "bf16";
      Description changed = d;
      if (options_.description) {
        changed.target = make_target(changed.target.sku, "bf16", changed.target.mesh);
      } else {
        changed = describe(result_.path, half);
      }
      const LoadedModel bf16 = load(result_.path, changed, half);
      GoldenRun run{.precision = "bf16",
                    .required_pcc = std::min(0.99, reference.bf16_pcc().value_or(1) - 0.002)};
      run_golden(*bf16.model, reference, options, run);
      checker_.stage(
          "bf16", run.passed,
          run.passed ? "PCC " + short_number(run.pcc) + ", at least " + short_number(run.required_pcc)
                     : run.failure,
          "a router or an indexer that flips lowers it: tools/reference --bf16-pcc stores what the "
          "reference's own bfloat16 reaches");
      golden.runs.push_back(run);
    }
    golden.seconds = seconds_since(begin);
    result_.golden = std::move(golden);
  }

  // Puts what was found to the first stage that failed against the reference.
  void find_cause(const Reference& reference, const Description& d, const Checkpoint& checkpoint,
                  const LoadOptions& load_options) {
    CheckStage* failed = nullptr;
    for (CheckStage& stage : result_.stages) {
      if (stage.outcome == Outcome::failed && stage.name != "config" && failed == nullptr) failed = &stage;
    }
    if (failed == nullptr) return;
    if (options_.search_seconds <= 0 || reference.logits().empty()) {
      failed->cause = "not looked for";
      return;
    }
    progress("cause");
    const Diagnosis found = diagnose(result_.path, d, checkpoint.config(), reference, load_options,
                                     options_.tolerance, options_.search_seconds);
    result_.changes = found.changes;
    result_.changes_suffice = found.suffices;
    const std::string tried = std::to_string(found.tried) + " changes were tried" +
                              (found.out_of_time ? " until the time was up (--search-seconds)" : "");
    if (found.suffices) {
      failed->cause = list(found.changes, "; and ") + ": with this all logits agree";
    } else if (!found.changes.empty()) {
      failed->cause =
          list(found.changes, "; and ") + ": with this the difference begins later (" + tried + ")";
    } else {
      failed->cause = "no single known mistake: " + tried;
      if (!d.unread_keys.empty())
        failed->cause += "; look at the keys that nothing reads: " + list(d.unread_keys, ", ");
    }
  }

  // Text to ids and back, the template, and one answer.
  void chat(const LoadedModel& loaded) {
    if (!loaded.tokenizer) {
      checker_.skip("chat", "the checkpoint has no tokenizer");
      return;
    }
    const Tokenizer& tokenizer = *loaded.tokenizer;
    const std::string text = "Hello, world. 1 + 1 = 2";
    try {
      std::vector<std::int32_t> ids = tokenizer.encode(text);
      if (loaded.chat_template) {
        const std::vector<ChatMessage> messages{{.role = "user", .content = text}};
        ids = encode_prompt(tokenizer, loaded.chat_template->render(messages),
                            control_ids(tokenizer, *loaded.chat_template));
      }
      const int vocab = loaded.model->spec().vocab;
      const auto outside = std::ranges::find_if(ids, [&](std::int32_t id) { return id < 0 || id >= vocab; });
      if (outside != ids.end()) {
        checker_.stage("chat", false,
                       "token " + std::to_string(*outside) + " is outside of the network's vocabulary of " +
                           std::to_string(vocab),
                       "the tokenizer belongs to another checkpoint, or vocab_size is read from a wrong key");
        return;
      }
      if (loaded.generation.eos_ids.empty() && tokenizer.end_ids().empty()) {
        checker_.stage("chat", false, "nothing says which token ends an answer",
                       "generation_config.json or config.json should have eos_token_id");
        return;
      }
      constexpr std::size_t length = 16;
      Driver driver(*loaded.model, 1, ids.size() + length);
      std::vector<std::int32_t> answer;
      std::int32_t next = argmax(driver.feed(ids, Want::last_rows).logits);
      while (answer.size() + 1 < length && next >= 0) {
        answer.push_back(next);
        next = argmax(driver.feed(std::span(&answer.back(), 1), Want::last_rows).logits);
      }
      checker_.stage(
          "chat", true,
          std::string(loaded.chat_template ? "prompt by the template, " : "no template, plain text, ") +
              std::to_string(ids.size()) + " tokens; the answer begins '" +
              printable(tokenizer.decode(answer), 80) + "'");
    } catch (const Error& error) {
      checker_.stage("chat", false, error.problem() + ", " + error.where(), error.fix());
    }
  }

  CheckResult& result_;
  const CheckOptions& options_;
  Checker checker_;
};

}  // namespace

bool CheckResult::passed() const {
  return !stages.empty() &&
         std::ranges::none_of(stages, [](const CheckStage& s) { return s.outcome == Outcome::failed; });
}

const CheckStage* CheckResult::stage(std::string_view name) const {
  const auto found = std::ranges::find(stages, name, &CheckStage::name);
  return found == stages.end() ? nullptr : &*found;
}

CheckResult check(const std::filesystem::path& path, const CheckOptions& options) {
  if (!std::filesystem::exists(path))
    throw Error("no such checkpoint", printable(path.string(), 200), "give a folder or a GGUF file");
  CheckResult result{.path = path};
  FullCheck(result, options).run();
  return result;
}

CheckResult check_names(std::string_view text, const LoadOptions& options) {
  const Error malformed("no listing of names", "names",
                        R"(write {"config": {..}, "tensors": {"name": [shape]}})");
  const HfConfig listing = [&] {
    try {
      return HfConfig::parse(text, "names");  // tolerates what Python writes
    } catch (const Error&) { throw malformed; }
  }();
  if (!listing.has("config") || !listing.has("tensors")) throw malformed;
  CheckResult result{.path = listing.get_or("name", std::string("names"))};
  Json config = Json::parse(listing.json("config"), nullptr, false);
  if (listing.has("architecture")) config["architectures"] = {listing.get<std::string>("architecture")};
  std::vector<NamedShape> shapes;
  const Json tensors = Json::parse(listing.json("tensors"), nullptr, false);
  try {
    for (const auto& [name, shape] : tensors.items())
      shapes.push_back({name, shape.get<std::vector<std::int64_t>>()});
  } catch (const Json::exception&) { throw malformed; }
  Checker checker(result);
  if (const auto d = checker.config([&] { return describe_config(config.dump(), options); }))
    checker.weights(*d, shapes);
  return result;
}

}  // namespace ttt::inline v2::testing
