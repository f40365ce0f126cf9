#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "testing/driver.h"
#include "testing/golden_run.h"
#include "testing/measure.h"
#include "testing/numbers.h"
#include "ttt/base/error.h"
#include "ttt/testing/debug.h"
#include "ttt/testing/evaluate.h"
#include "ttt/testing/fixture.h"

namespace ttt::inline v2::testing {

namespace {

// A folder of its own, gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ttt-golden-XXXXXX").string();
    if (!mkdtemp(pattern.data()))
      throw Error("a temporary folder can not be made", pattern, "set TMPDIR to a folder with room");
    path_ = pattern;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// p of the folder's row "name,p" in the table beside it; 1 when there is none.
double tabled_bf16_pcc(const std::filesystem::path& folder) {
  std::ifstream table(folder.parent_path() / "bf16_reference.csv");
  const std::string name = folder.filename().string() + ",";
  for (std::string line; std::getline(table, line);) {
    if (line.starts_with(name)) {
      const double value = std::strtod(line.c_str() + name.size(), nullptr);
      if (value > 0 && value <= 1) return value;
      throw Error("no correlation: '" + printable(line) + "'", "bf16_reference.csv",
                  "write NAME,NUMBER with a number up to 1");
    }
  }
  return 1;
}

// Whether rotations depend on how much of the sequence a step has seen. The reference's do then too: running
// the prompt in pieces is another computation.
bool rotates_by_length(const ModelSpec& spec, std::size_t length) {
  return std::ranges::any_of(spec.layers, [&](const LayerSpec& layer) {
    const auto* attention = std::get_if<AttentionSpec>(&layer.mixer);
    const auto* latent = std::get_if<LatentAttentionSpec>(&layer.mixer);
    const std::optional<RopeSpec> found = attention ? attention->rope : latent ? latent->rope : std::nullopt;
    if (!found) return false;
    const RopeSpec& rope = *found;
    const RopeScaling& s = rope.scaling;
    const bool two_sets = s.kind == RopeScalingKind::longrope && s.short_factor != s.long_factor;
    const int limit = two_sets                             ? s.original_max_positions
                      : s.kind == RopeScalingKind::dynamic ? rope.max_positions
                                                           : 0;
    return limit > 0 && length > static_cast<std::size_t>(limit);
  });
}

// The largest error and where it is.
struct Worst {
  double error = 0;
  std::string where;
};

void compare(Worst& worst, std::span<const float> ours, std::span<const float> theirs, std::int64_t vocab,
             const char* rows, std::int64_t first_row = 0) {
  for (std::size_t row = 0; row * static_cast<std::size_t>(vocab) < theirs.size(); ++row) {
    const auto part = [&](std::span<const float> x) {
      return x.subspan(row * static_cast<std::size_t>(vocab), static_cast<std::size_t>(vocab));
    };
    const double error = max_abs_error(part(ours), part(theirs));
    if (error > worst.error)
      worst = {error, rows + std::to_string(first_row + static_cast<std::int64_t>(row))};
  }
}

class GoldenEvaluation {
 public:
  GoldenEvaluation(const CausalLM& model, const Reference& reference, const GoldenOptions& options,
                   GoldenRun& run)
      : model_(model),
        reference_(reference),
        options_(options),
        run_(run),
        prompt_(reference.input_ids()),
        next_(reference.continuation()) {}

  void evaluate() {
    run_.tokens = static_cast<int>(next_.size());
    if (!run_one_piece()) return;
    const bool pieces = !rotates_by_length(model_.spec(), prompt_.size() + next_.size());
    if (options_.chunks && pieces) {
      run_.chunks_error = in_chunks(5);
      run_.single_error = in_chunks(1);
    }
    if (options_.batch && pieces) run_.batch_error = batched();
    if (!run_.failure.empty()) return;
    run_.passed = true;
  }

  // The first intermediate that is not the reference's.
  std::string first_divergence() {
    const Comparison found = testing::compare(
        model_, reference_,
        {.bound = {.tolerance = options_.tolerance, .required_pcc = run_.required_pcc}, .logits = false});
    if (const TapDifference* bad = found.first()) return to_string(*bad);
    return found.taps.empty() ? "unknown: the reference has no intermediates"
                              : "lm_head: the " + std::to_string(found.taps.size()) + " intermediates agree";
  }

 private:
  static constexpr int block_size = 16;  // the prompts of goldens fill more than one block

  bool exact() const { return run_.required_pcc == 0; }
  void fail(const std::string& why) {
    if (run_.failure.empty()) run_.failure = why;
  }

  bool run_one_piece() {
    Driver driver(model_, 1, prompt_.size() + next_.size(), block_size);
    const StepOutput output = driver.feed(prompt_, Want::all_rows);
    if (output.vocab != reference_.vocab()) {
      fail("logits of " + std::to_string(output.vocab) + " tokens, the reference has " +
           std::to_string(reference_.vocab()));
      return false;
    }
    vocab_ = output.vocab;
    whole_ = output.logits;
    Worst worst;
    compare(worst, whole_, reference_.logits(), vocab_, "prompt position ");
    run_.pcc = pcc(whole_, reference_.logits());
    std::int32_t predicted = argmax(std::span(whole_).last(static_cast<std::size_t>(vocab_)));
    for (std::size_t i = 0; i < next_.size(); ++i) {
      run_.tokens_equal += predicted == next_[i];
      const std::vector<float> row = driver.feed(std::span(&next_[i], 1), Want::all_rows).logits;
      compare(worst, row, std::span(reference_.decode_logits()).subspan(i * row.size(), row.size()), vocab_,
              "decode step ", static_cast<std::int64_t>(i));
      predicted = argmax(row);
      whole_.insert(whole_.end(), row.begin(), row.end());
    }
    run_.max_error = worst.error;
    if (exact()) {
      if (!(worst.error <= options_.tolerance))
        fail("logits differ by " + short_number(worst.error) + " at " + worst.where + " (at most " +
             short_number(options_.tolerance) + ")");
      if (run_.tokens_equal != run_.tokens)
        fail(std::to_string(run_.tokens - run_.tokens_equal) + " of " + std::to_string(run_.tokens) +
             " greedy tokens differ");
    } else if (!(run_.pcc >= run_.required_pcc)) {
      fail("PCC of the logits " + short_number(run_.pcc) + ", at least " + short_number(run_.required_pcc) +
           " is required");
    }
    return true;
  }

  // Compares logits of another way to run the same tokens with those of the run in one piece.
  double agree(std::span<const float> logits, std::span<const float> whole, const std::string& way) {
    const double error = max_abs_error(logits, whole);
    const bool good = exact() ? error <= options_.tolerance : pcc(logits, whole) >= run_.required_pcc;
    if (!good) fail(way + " changes logits by " + short_number(error));
    return error;
  }

  double in_chunks(std::size_t size) {
    Driver driver(model_, 1, prompt_.size(), block_size);
    std::vector<float> logits;
    for (std::size_t begin = 0; begin < prompt_.size(); begin += size) {
      const StepOutput output = driver.feed(
          std::span(prompt_).subspan(begin, std::min(size, prompt_.size() - begin)), Want::all_rows);
      logits.insert(logits.end(), output.logits.begin(), output.logits.end());
    }
    return agree(logits, std::span(whole_).first(logits.size()),
                 "running the prompt in chunks of " + std::to_string(size));
  }

  // Prefixes of the prompt as eight sequences, whose rows must be those of the whole; then each goes on, so
  // that one step has decode rows of some and prompt rows of others.
  double batched() {
    std::vector<std::int32_t> all(prompt_);
    all.insert(all.end(), next_.begin(), next_.end());
    constexpr std::size_t sequences = 8;
    Driver driver(model_, sequences, all.size(), block_size);
    std::vector<std::span<const std::int32_t>> first, second(sequences);
    for (std::size_t s = 0; s < sequences; ++s)
      first.push_back(std::span(all).first(
          std::max<std::size_t>(1, prompt_.size() - std::min(3 * s, prompt_.size() - 1))));
    double error = batched_step(driver, first);
    std::vector<std::span<const std::int32_t>> decode(sequences), prefill(sequences);
    for (std::size_t s = 0; s < sequences; ++s) {
      const std::size_t length = first[s].size(), count = s % 2 == 0 ? 1 : 4;
      if (length + count > all.size()) continue;
      second[s] = std::span(all).subspan(length, count);
      (count == 1 ? decode : prefill)[s] = second[s];
    }
    if (model_.capabilities().mixed_step) return std::max(error, batched_step(driver, second));
    error = std::max(error, batched_step(driver, decode));
    return std::max(error, batched_step(driver, prefill));
  }

  double batched_step(Driver& driver, const std::vector<std::span<const std::int32_t>>& tokens) {
    std::vector<float> whole;
    for (std::size_t s = 0; s < tokens.size(); ++s) {
      const auto row = [&](std::size_t i) {
        return whole_.begin() +
               static_cast<std::ptrdiff_t>((driver.length(s) + i) * static_cast<std::size_t>(vocab_));
      };
      whole.insert(whole.end(), row(0), row(tokens[s].size()));
    }
    if (whole.empty()) return 0;
    return agree(driver.feed(tokens, Want::all_rows).logits, whole, "running it in a batch");
  }

  const CausalLM& model_;
  const Reference& reference_;
  const GoldenOptions& options_;
  GoldenRun& run_;
  const std::vector<std::int32_t>&prompt_, &next_;
  std::int64_t vocab_ = 0;
  std::vector<float> whole_;  // [prompt + continuation, vocab]
};

}  // namespace

void run_golden(const CausalLM& model, const Reference& reference, const GoldenOptions& options,
                GoldenRun& run) {
  GoldenEvaluation evaluation(model, reference, options, run);
  try {
    evaluation.evaluate();
    if (!run.passed) run.diverges = evaluation.first_divergence();
  } catch (const Error& error) { run.failure = error.what(); }
}

std::string made_by(const Reference& reference) {
  const std::string version = reference.metadata("transformers");
  return "transformers" + (version.empty() ? version : " " + version);
}

bool GoldenResult::passed() const {
  return !runs.empty() && std::ranges::all_of(runs, [](const GoldenRun& run) { return run.passed; });
}

GoldenResult evaluate_golden(const std::filesystem::path& path, const GoldenOptions& options) {
  const bool fixture = path.extension() == ".json";
  GoldenResult result{.path = path, .name = {}, .architecture = {}, .family = {}};
  std::filesystem::path folder = std::filesystem::absolute(path).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  result.name = fixture ? path.stem().string() : folder.filename().string();
  std::filesystem::path reference_path =
      fixture ? folder.parent_path().parent_path() / "reference" / (result.name + ".safetensors")
              : folder / "golden.safetensors";
  if (!std::filesystem::exists(path))
    throw Error("no such golden", printable(path.string(), 200),
                "give a checkpoint folder with a golden.safetensors");
  if (!std::filesystem::exists(reference_path))
    throw Error("no reference outputs", printable(reference_path.string(), 200),
                "write them with tools/reference");
  const Reference reference = Reference::open(reference_path);
  if (reference.logits().empty() || (!reference.continuation().empty() && reference.decode_logits().empty()))
    throw Error("no logits", printable(reference_path.string(), 200),
                "write the file with tools/reference without --no-logits");

  std::optional<TemporaryFolder> temporary;
  if (fixture) {
    folder = temporary.emplace().path();
    write_fixture(path, folder);
  }
  const std::string expected = reference.metadata("source_sha256");
  if (!expected.empty() && expected != source_sha256(folder))
    throw Error("the reference belongs to another checkpoint", printable(reference_path.string(), 200),
                "write it anew with tools/reference");
  result.reference = made_by(reference);
  const auto begin = std::chrono::steady_clock::now();
  const double p = reference.bf16_pcc() ? *reference.bf16_pcc() : tabled_bf16_pcc(folder);

  for (const std::string& precision : options.precisions) {
    LoadOptions load_options = options.load;
    load_options.precision = precision;
    if (!load_options.cache) load_options.cache.emplace();  // they are small and many
    // References are made with transformers' eager attention; in some networks it differs from its default.
    if (load_options.config.empty()) load_options.config = R"({"attn_implementation": "eager"})";
    const LoadedModel loaded = load(folder, load_options);
    require_numbers(*loaded.model, "a golden");
    result.architecture = loaded.architecture;
    result.family = loaded.family;
    result.device = loaded.device->description();
    GoldenRun& run = result.runs.emplace_back(GoldenRun{.precision = precision});
    run.required_pcc = precision == "f32" ? 0 : std::min(0.99, p - 0.002);
    run_golden(*loaded.model, reference, options, run);
  }
  result.seconds = seconds_since(begin);
  return result;
}

}  // namespace ttt::inline v2::testing
