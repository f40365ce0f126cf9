#include "ttt/testing/debug.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "testing/driver.h"
#include "testing/numbers.h"
#include "ttt/base/error.h"
#include "ttt/convert/safetensors.h"
#include "ttt/debug/input.h"

namespace ttt::inline v2::testing {

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// ---------------------------------------------------------------- selection

namespace {

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    parts.emplace_back(list.substr(0, comma));
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return parts;
}

std::pair<int, int> layer_range(const std::string& text) {
  int first = 0, last = 0;
  const char* const end = text.data() + text.size();
  auto [at, failed] = std::from_chars(text.data(), end, first);
  last = first;
  if (failed == std::errc() && at != end && *at == '-') {
    const auto second = std::from_chars(at + 1, end, last);
    at = second.ptr, failed = second.ec;
  }
  if (failed != std::errc() || at != end || first < 0 || last < first)
    throw Error("no layers: '" + printable(text) + "'", "the selection of layers",
                "write numbers and ranges like 0,4-7");
  return {first, last};
}

}  // namespace

debug::Capture::Selection select_taps(std::string_view patterns, std::string_view layers) {
  std::vector<std::pair<int, int>> ranges;
  for (const std::string& part : split(layers)) ranges.push_back(layer_range(part));
  return [names = split(patterns), ranges](std::string_view tap) {
    const int layer = debug::layer_of(tap);
    if (!ranges.empty() &&
        std::ranges::none_of(ranges, [&](const auto& r) { return layer >= r.first && layer <= r.second; }))
      return false;
    if (names.empty()) return true;
    const std::string_view inside =
        layer < 0 ? tap : tap.substr(std::min(tap.size(), debug::full_name("", layer).size() + 1));
    return std::ranges::any_of(names, [&](const std::string& name) {
      return matches(name, tap) || (!inside.empty() && matches(name, inside));
    });
  };
}

// ---------------------------------------------------------------- run

const debug::Intermediate* DebugRun::find(std::string_view tap) const {
  const auto found = std::ranges::find(taps, tap, &debug::Intermediate::tap);
  return found == taps.end() ? nullptr : &*found;
}

namespace {

constexpr std::string_view input_part = ".in";

// Gives modules the inputs of DebugOptions::inputs, step by step.
class OtherInputs {
 public:
  OtherInputs(const DebugOptions& options, std::size_t prompt)
      : inputs_(options.inputs),
        prompt_(static_cast<std::int64_t>(prompt)),
        scope_(
            [this](const Tensor& x, std::string_view name, int layer) { return replace(x, name, layer); }) {}
  void next_step() { seen_.clear(); }

 private:
  std::optional<Tensor> replace(const Tensor& x, std::string_view name, int layer) {
    std::string full = debug::full_name(name, layer);
    if (const int times = ++seen_[full]; times > 1) full += "@" + std::to_string(times);  // as Capture
    const Reference::Intermediate* other = inputs_(full);
    const std::int64_t features = x.dim(-1), rows = x.shape().elements() / features;
    if (other == nullptr || other->features != features || other->rows != prompt_) return {};
    std::int64_t& done = done_[full];
    const auto values =
        std::span(other->values)
            .subspan(static_cast<std::size_t>(done * features), static_cast<std::size_t>(rows * features));
    done += rows;
    return from_host(x.device(), values, x.shape(), x.dtype());
  }

  const std::function<const Reference::Intermediate*(std::string_view)>& inputs_;
  std::int64_t prompt_;
  std::map<std::string, int> seen_;
  std::map<std::string, std::int64_t> done_;  // rows
  debug::InputScope scope_;
};

}  // namespace

DebugRun debug_run(const CausalLM& model, std::span<const std::int32_t> prompt, const DebugOptions& options) {
  require_numbers(model, "debugging");
  if (prompt.empty()) throw Error("no tokens", "the prompt", "give at least one");
  for (const std::int32_t id : prompt) {
    if (id < 0 || id >= model.spec().vocab)
      throw Error("token " + std::to_string(id) + " of a vocabulary of " + std::to_string(model.spec().vocab),
                  "the prompt", "use the tokenizer, or the reference, of this model");
  }
  if (const std::size_t limit = max_context(model); limit > 0 && prompt.size() > limit)
    throw Error(std::to_string(prompt.size()) + " tokens",
                "the model has a context of " + std::to_string(limit), "shorten the prompt");
  if (options.inputs && model.target().mesh != Mesh{})
    throw Error("other inputs on the mesh " + to_string(model.target().mesh), "debugging",
                "isolate modules on one device");
  DebugRun run{.precision = model.target().precision,
               .device = model.device().description(),
               .prompt = {prompt.begin(), prompt.end()},
               .taps = {},
               .non_finite = {}};
  std::optional<debug::CheckScope> hunt;
  if (options.hunt) {
    constexpr std::size_t most = 16;
    hunt.emplace(
        [&](const debug::NonFinite& found) {
          if (found.operands_finite && run.non_finite.size() < most) run.non_finite.push_back(found);
        },
        true);
  }
  const Want want = !options.taps || options.taps("logits") ? Want::all_rows : Want::nothing;
  debug::Capture capture(options.taps);
  std::optional<OtherInputs> other;
  if (options.inputs) other.emplace(options, prompt.size());
  Driver driver(model, 1, prompt.size());
  const std::size_t first = prompt.size() - std::min(options.decode, prompt.size() - 1);
  driver.feed(prompt.first(first), want);
  for (std::size_t i = first; i < prompt.size(); ++i) {
    capture.next_step();
    if (other) other->next_step();
    driver.feed(prompt.subspan(i, 1), want);
  }
  run.taps = capture.take();
  return run;
}

void write_reference(const DebugRun& run, const std::filesystem::path& path,
                     std::map<std::string, std::string> metadata) {
  const std::vector<std::int64_t> ids(run.prompt.begin(), run.prompt.end());
  std::vector<SafetensorsEntry> entries{make_entry("input_ids", {1, static_cast<std::int64_t>(ids.size())},
                                                   std::span<const std::int64_t>(ids))};
  for (const debug::Intermediate& tap : run.taps)
    entries.push_back(make_entry(tap.tap, {tap.rows, tap.features}, std::span<const float>(tap.values)));
  metadata.insert({{"format", "pt"},
                   {"schema", "ttt-reference-1"},
                   {"dtype", run.precision},
                   {"device", run.device},
                   {"tap_rows", std::to_string(run.prompt.size())}});
  write_safetensors(path, entries, metadata);
}

// ---------------------------------------------------------------- comparison

TapBound expected_bound(std::string_view precision, std::string_view other) {
  // From float32 down. A network of 30 layers and 135M parameters reaches 0.9992, 0.995, 0.907 and 0.765 at
  // its worst tap.
  const auto rank = [](std::string_view name) {
    if (name == "f32") return 0;
    if (name == "bf16") return 1;
    if (name == "bfp8_b" || name == "accuracy") return 2;
    return name == "performance" ? 3 : 4;
  };
  constexpr double required[] = {0, 0.99, 0.98, 0.85, 0.7};
  return {.required_pcc = required[std::max(rank(precision), rank(other))]};
}

// 0.999999 must not read as 1.
static std::string correlation(double pcc) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", pcc);
  return text;
}

std::string to_string(const TapBound& bound) {
  return bound.required_pcc > 0
             ? "PCC of at least " + correlation(bound.required_pcc)
             : "errors up to " + short_number(bound.tolerance) + " of the root mean square";
}

std::string to_string(const TapDifference& d) {
  if (!d.problem.empty()) return d.tap + " (" + d.problem + ")";
  return d.tap + " (largest error " + short_number(d.error) + ", PCC " + correlation(d.pcc) + ")";
}

namespace {

using Counterpart = std::function<std::optional<Reference::Intermediate>(const std::string& tap)>;

TapDifference difference(const debug::Intermediate& ours, const Reference::Intermediate& theirs,
                         const CompareOptions& options) {
  TapDifference d{.tap = ours.tap, .rows = theirs.rows, .features = theirs.features, .bound = options.bound};
  if (options.bounds) d.bound = options.bounds(d.tap).value_or(d.bound);
  if (ours.features != theirs.features || ours.rows < theirs.rows) {
    d.problem = std::to_string(ours.rows) + " rows of " + std::to_string(ours.features) + " features, not " +
                std::to_string(theirs.rows) + " of " + std::to_string(theirs.features);
    d.error = std::numeric_limits<double>::infinity();
    return d;
  }
  const std::span<const float> a = std::span(ours.values).last(theirs.values.size()), b = theirs.values;
  const double scale = debug::rms(b);
  d.error = debug::max_abs_error(a, b);
  d.pcc = debug::pcc(a, b);
  d.good = d.bound.required_pcc > 0 ? d.pcc >= d.bound.required_pcc
                                    : d.error <= d.bound.tolerance * std::max(1.0, scale);
  std::vector<float> errors(a.size());
  std::size_t worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    errors[i] = a[i] == b[i] ? 0 : a[i] - b[i];
    // A NaN is worse than anything, the first one worst.
    if (std::abs(errors[i]) > std::abs(errors[worst]) ||
        (std::isnan(errors[i]) && !std::isnan(errors[worst])))
      worst = i;
  }
  d.relative = debug::rms(errors) / std::max(scale, std::numeric_limits<double>::min());
  const auto features = static_cast<std::size_t>(theirs.features);
  if (!a.empty()) {
    d.row = static_cast<std::int64_t>(worst / features),
    d.feature = static_cast<std::int64_t>(worst % features);
    d.ours = a[worst], d.theirs = b[worst];
  }
  if (!options.details) return d;
  d.errors = debug::statistics(errors);
  for (std::size_t at = 0; at < errors.size(); at += features)
    d.row_errors.push_back(static_cast<float>(debug::rms(std::span(errors).subspan(at, features)) /
                                              std::max(scale, std::numeric_limits<double>::min())));
  return d;
}

// The input of a module ("layers.3.attn.in", and of a layer that runs again "layers.3.attn.in@2").
bool is_input(std::string_view tap) { return tap.substr(0, tap.find('@')).ends_with(input_part); }

// `names`: what the counterpart has.
Comparison compare(const CausalLM& model, std::span<const std::int32_t> prompt,
                   const std::vector<std::string>& names, const Counterpart& counterpart,
                   const CompareOptions& options) {
  Comparison c{.bound = options.bound};
  const auto wanted = [&](std::string_view tap) {
    if (options.isolate && is_input(tap)) return false;  // it is the counterpart's own
    return (options.logits || tap != "logits") && (!options.debug.taps || options.debug.taps(tap));
  };
  DebugOptions debug = options.debug;
  std::map<std::string, Reference::Intermediate, std::less<>> inputs;
  std::set<std::string, std::less<>> used;
  if (options.isolate) {
    for (const std::string& name : names) {
      if (!is_input(name)) continue;
      if (auto theirs = counterpart(name); theirs && theirs->rows == static_cast<std::int64_t>(prompt.size()))
        inputs.emplace(name, *std::move(theirs));
    }
    if (inputs.empty())
      throw Error("no input of a module, of all " + std::to_string(prompt.size()) + " tokens",
                  "what modules are to be isolated by",
                  "compare with another run, or write the reference with the taps of all rows");
    debug.inputs = [&](std::string_view tap) -> const Reference::Intermediate* {
      const auto found = inputs.find(tap);
      if (found == inputs.end()) return nullptr;
      used.emplace(tap);
      return &found->second;
    };
  }
  debug.taps = [&](std::string_view tap) {  // nothing is kept that has no counterpart
    if (!wanted(tap)) return false;
    if (std::ranges::find(names, tap) != names.end()) return true;
    if (std::ranges::find(c.unknown, tap) == c.unknown.end()) c.unknown.emplace_back(tap);
    return false;
  };
  DebugRun run = debug_run(model, prompt, debug);
  c.ours = run.precision + ", " + run.device;
  c.prompt = std::move(run.prompt);
  c.non_finite = std::move(run.non_finite);
  c.isolated = used.size();
  for (debug::Intermediate& tap : run.taps) {
    if (const auto theirs = counterpart(tap.tap)) c.taps.push_back(difference(tap, *theirs, options));
    std::vector<float>().swap(tap.values);  // of long prompts they are large
  }
  for (const std::string& name : names) {
    if (wanted(name) && std::ranges::find(c.taps, name, &TapDifference::tap) == c.taps.end())
      c.missing.push_back(name);
  }
  return c;
}

}  // namespace

const TapDifference* Comparison::first() const {
  const auto bad = std::ranges::find(taps, false, &TapDifference::good);
  return bad == taps.end() ? nullptr : &*bad;
}

std::string Comparison::expected() const {
  if (isolated == 0) return to_string(bound);
  return "of " + std::to_string(isolated) +
         " modules, each by itself, what is recorded of it or its number "
         "formats allow";
}

const TapDifference* Comparison::steepest() const {
  const TapDifference* found = nullptr;
  double before = 0, most = 0;
  for (const TapDifference& tap : taps) {
    if (!std::isfinite(tap.relative)) return &tap;
    if (tap.relative - before > most) most = tap.relative - before, found = &tap;
    if (isolated == 0) before = std::max(before, tap.relative);
  }
  return found;
}

Comparison compare(const CausalLM& model, const Reference& reference, const CompareOptions& options) {
  Comparison c = compare(
      model, reference.input_ids(), reference.taps(),
      [&](const std::string& tap) { return reference.intermediate(tap); }, options);
  c.theirs = reference.path().filename().string();
  return c;
}

Comparison compare(const CausalLM& model, const CausalLM& other, std::span<const std::int32_t> prompt,
                   const CompareOptions& options) {
  DebugOptions quiet = options.debug;
  quiet.hunt = false;
  if (options.isolate && quiet.taps)
    quiet.taps = [&](std::string_view tap) { return is_input(tap) || options.debug.taps(tap); };
  DebugRun theirs = debug_run(other, prompt, quiet);
  std::vector<std::string> names;
  for (const debug::Intermediate& tap : theirs.taps) names.push_back(tap.tap);
  Comparison c = compare(
      model, prompt, names,
      [&](const std::string& tap) -> std::optional<Reference::Intermediate> {
        const auto found = std::ranges::find(theirs.taps, tap, &debug::Intermediate::tap);
        if (found == theirs.taps.end()) return {};
        return Reference::Intermediate{
            .values = std::move(found->values), .rows = found->rows, .features = found->features};
      },
      options);
  c.theirs = theirs.precision + ", " + theirs.device;
  return c;
}

}  // namespace ttt::inline v2::testing
