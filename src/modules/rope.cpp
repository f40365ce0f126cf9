#include "ttt/modules/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "modules/print.h"

namespace ttt::inline v2 {

namespace {

std::vector<float> plain_frequencies(float theta, int dim) {
  std::vector<float> inv_freq(static_cast<std::size_t>(dim / 2));
  for (int i = 0; i < dim / 2; ++i)
    inv_freq[static_cast<std::size_t>(i)] =
        1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dim));
  return inv_freq;
}

// Slow dimensions are interpolated, fast ones kept, a smooth transition between.
void scale_llama3(std::vector<float>& inv_freq, const RopeScaling& s) {
  const float original = static_cast<float>(s.original_max_positions);
  const float low_wavelength = original / s.low_freq_factor, high_wavelength = original / s.high_freq_factor;
  for (float& f : inv_freq) {
    const float wavelength = 2 * std::numbers::pi_v<float> / f;
    if (wavelength > low_wavelength) {
      f /= s.factor;
    } else if (wavelength >= high_wavelength) {
      const float smooth =
          (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      f = (1 - smooth) * f / s.factor + smooth * f;
    }
  }
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// The dimension that turns `rotations` times within the original length.
double correction_dim(double rotations, int dim, double theta, double length) {
  return dim * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

void scale_yarn(std::vector<float>& inv_freq, const RopeSpec& spec) {
  const RopeScaling& s = spec.scaling;
  double low = correction_dim(s.beta_fast, spec.rotary_dim, spec.theta, s.original_max_positions);
  double high = correction_dim(s.beta_slow, spec.rotary_dim, spec.theta, s.original_max_positions);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < inv_freq.size(); ++i) {
    const auto ramp =
        std::clamp(static_cast<float>((static_cast<double>(i) - low) / (high - low)), 0.0f, 1.0f);
    inv_freq[i] = inv_freq[i] / s.factor * ramp + inv_freq[i] * (1 - ramp);
  }
}

float cos_sin_scale(const RopeScaling& s) {
  if (s.attention_factor) return *s.attention_factor;
  if (s.kind == RopeScalingKind::yarn) {
    if (s.mscale != 0 && s.mscale_all_dim != 0)
      return static_cast<float>(yarn_mscale(s.factor, s.mscale) / yarn_mscale(s.factor, s.mscale_all_dim));
    return static_cast<float>(yarn_mscale(s.factor, 1));
  }
  if (s.kind == RopeScalingKind::longrope && s.factor > 1)
    return static_cast<float>(std::sqrt(1 + std::log(static_cast<double>(s.factor)) /
                                                std::log(static_cast<double>(s.original_max_positions))));
  return 1;
}

std::vector<float> divide(std::vector<float> inv_freq, const std::vector<float>& factors) {
  for (std::size_t i = 0; i < inv_freq.size(); ++i) inv_freq[i] /= factors[i];
  return inv_freq;
}

std::string describe(const RopeSpec& spec) {
  std::string key = "theta " + text(spec.theta) + ", dim " + std::to_string(spec.rotary_dim);
  const RopeScaling& s = spec.scaling;
  static constexpr const char* kinds[] = {"", "linear", "dynamic", "llama3", "yarn", "longrope"};
  if (s.kind != RopeScalingKind::none)
    key += std::string(", ") + kinds[static_cast<int>(s.kind)] + " " + text(s.factor);
  return key;
}

}  // namespace

RopePlan resolve(const RopeConfig& config, const Target&) {
  RopePlan plan{.spec = config.spec, .name = config.name, .inv_freq = {}, .long_inv_freq = {}, .key = {}};
  RopeSpec& spec = plan.spec;
  if (spec.rotary_dim == 0) spec.rotary_dim = config.head_dim;
  if (spec.rotary_dim <= 0 || spec.rotary_dim % 2 != 0 || spec.rotary_dim > config.head_dim) {
    throw Error("rotary_dim " + std::to_string(spec.rotary_dim) + " of a head of " +
                    std::to_string(config.head_dim) + " dimensions",
                config.name.path, "it must be even and at most the head's width");
  }
  const RopeScaling& s = spec.scaling;
  const auto original = [&] {
    if (s.original_max_positions <= 0)
      throw Error("rope scaling without the original length", config.name.path,
                  "set original_max_position_embeddings");
  };
  plan.inv_freq = plain_frequencies(spec.theta, spec.rotary_dim);
  switch (s.kind) {
    case RopeScalingKind::none:
      break;
    case RopeScalingKind::linear:
      for (float& f : plan.inv_freq) f /= s.factor;
      break;
    case RopeScalingKind::dynamic:
      if (spec.max_positions <= 0)
        throw Error("dynamic rope scaling without max_positions", config.name.path,
                    "set max_position_embeddings");
      break;
    case RopeScalingKind::llama3:
      original(), scale_llama3(plan.inv_freq, s);
      break;
    case RopeScalingKind::yarn:
      original(), scale_yarn(plan.inv_freq, spec);
      break;
    case RopeScalingKind::longrope:
      original();
      if (s.short_factor.size() != plan.inv_freq.size() || s.long_factor.size() != plan.inv_freq.size()) {
        throw Error("longrope needs " + std::to_string(plan.inv_freq.size()) + " short and long factors",
                    config.name.path, "check rope_parameters");
      }
      plan.long_inv_freq = divide(plan.inv_freq, s.long_factor);
      plan.inv_freq = divide(std::move(plan.inv_freq), s.short_factor);
      break;
  }
  plan.cos_sin_scale = cos_sin_scale(s);
  plan.key = describe(spec) + "|" + text(plan.cos_sin_scale);
  for (float f : plan.inv_freq) plan.key += " " + text(f);
  return plan;
}

void print(const RopePlan& plan, PlanRows& rows) {
  row(rows, plan.name, "rope", describe(plan.spec) + (plan.spec.interleaved ? ", interleaved" : ""));
}

std::vector<float> rope_frequencies(const RopePlan& plan, std::int64_t length) {
  const RopeSpec& spec = plan.spec;
  const RopeScaling& s = spec.scaling;
  if (s.kind == RopeScalingKind::longrope && length > s.original_max_positions) return plan.long_inv_freq;
  if (s.kind == RopeScalingKind::dynamic && length > spec.max_positions) {
    const double stretch =
        static_cast<double>(s.factor) * static_cast<double>(length) / spec.max_positions - (s.factor - 1);
    const double exponent = static_cast<double>(spec.rotary_dim) / (spec.rotary_dim - 2);
    return plain_frequencies(static_cast<float>(spec.theta * std::pow(stretch, exponent)), spec.rotary_dim);
  }
  return plan.inv_freq;
}

Rope::Rope(const RopeSpec& spec, int head_dim)
    : plan_(resolve(RopeConfig{.spec = spec, .head_dim = head_dim}, Target{})) {}
Rope Rope::from_config(const RopeConfig& config, const Target& target, const Home&) {
  return Rope(resolve(config, target));
}

// cos or sin of the angle of each row and pair of dimensions.
static void fill_rows(const RopePlan& plan, const Step& step, float (*function)(float),
                      std::span<float> values) {
  const std::size_t half = plan.inv_freq.size();
  const bool by_length = plan.spec.scaling.kind == RopeScalingKind::dynamic ||
                         plan.spec.scaling.kind == RopeScalingKind::longrope;
  for (const SequenceRows& sequence : step.sequences) {
    const std::vector<float> own =
        by_length ? rope_frequencies(plan, sequence.context + sequence.count) : std::vector<float>{};
    const std::vector<float>& inv_freq = by_length ? own : plan.inv_freq;
    for (std::int64_t r = sequence.first; r < sequence.first + sequence.count; ++r) {
      const auto position = static_cast<float>(step.positions[static_cast<std::size_t>(r)]);
      float* row = &values[static_cast<std::size_t>(r) * half];
      for (std::size_t i = 0; i < half; ++i) row[i] = function(position * inv_freq[i]) * plan.cos_sin_scale;
    }
  }
}

static std::pair<Tensor, Tensor> make_rows(const RopePlan& plan, const Step& step) {
  const auto rows = [&](float (*function)(float)) {
    return step.input(
        {1, 1, step.tokens, static_cast<std::int64_t>(plan.inv_freq.size())}, DataType::f32,
        [&plan, function](const Step& s, std::span<float> values) { fill_rows(plan, s, function, values); });
  };
  return {rows([](float angle) { return std::cos(angle); }),
          rows([](float angle) { return std::sin(angle); })};
}

Tensor Rope::forward(Tensor x, const Step& step) const {
  auto found = step.rope_rows.find(plan_.key);
  if (found == step.rope_rows.end()) found = step.rope_rows.emplace(plan_.key, make_rows(plan_, step)).first;
  return ops::rotary_embedding(std::move(x), found->second.first, found->second.second,
                               plan_.spec.interleaved);
}

}  // namespace ttt::inline v2
