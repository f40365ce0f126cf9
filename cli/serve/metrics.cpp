#include "metrics.h"

#include <algorithm>
#include <cstdio>

namespace ttt_serve {

namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void header(std::string& out, const std::string& name, const char* type, const std::string& help) {
  out += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void value(std::string& out, const std::string& name, const char* type, const std::string& help, double v) {
  header(out, name, type, help);
  out += name + " " + number(v) + "\n";
}

}  // namespace

void Histogram::observe(double seconds) {
  const auto bucket = std::ranges::lower_bound(time_buckets, seconds);
  if (bucket != time_buckets.end()) ++counts_[static_cast<std::size_t>(bucket - time_buckets.begin())];
  ++count_;
  sum_ += seconds;
}

void Histogram::print(std::string& out, const std::string& name, const std::string& help) const {
  header(out, name, "histogram", help);
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < time_buckets.size(); ++i) {
    below += counts_[i];
    out += name + "_bucket{le=\"" + number(time_buckets[i]) + "\"} " + std::to_string(below) + "\n";
  }
  out += name + "_bucket{le=\"+Inf\"} " + std::to_string(count_) + "\n";
  out += name + "_sum " + number(sum_) + "\n" + name + "_count " + std::to_string(count_) + "\n";
}

void Metrics::answered(int status) {
  const std::lock_guard lock(mutex_);
  ++statuses_[status];
}

void Metrics::finished(const ttt::GenerationResult& result) {
  const std::lock_guard lock(mutex_);
  const auto& tokens = result.timings.tokens;
  queue_.observe(result.timings.queue);
  duration_.observe(result.timings.total);
  if (!tokens.empty()) first_token_.observe(tokens.front());
  for (std::size_t i = 1; i < tokens.size(); ++i) between_tokens_.observe(tokens[i] - tokens[i - 1]);
}

std::string Metrics::text(const ttt::GeneratorStats& stats) const {
  std::string out;
  value(out, "ttt_requests_running", "gauge", "Sequences that are being written.",
        static_cast<double>(stats.running));
  value(out, "ttt_requests_waiting", "gauge", "Sequences that wait.", static_cast<double>(stats.waiting));
  value(out, "ttt_kv_cache_usage_ratio", "gauge", "Share of the KV blocks that running sequences hold.",
        stats.kv_occupancy());
  value(out, "ttt_kv_cache_bytes", "gauge", "KV memory.", static_cast<double>(stats.kv_bytes));
  value(out, "ttt_step_sequences", "gauge", "Sequences in the last step.",
        static_cast<double>(stats.last_step_sequences));
  value(out, "ttt_steps_total", "counter", "Steps of the model.", static_cast<double>(stats.steps));
  value(out, "ttt_step_seconds_total", "counter", "Time in the model's step.", stats.step_seconds);
  value(out, "ttt_prompt_tokens_total", "counter", "Tokens of prompts.",
        static_cast<double>(stats.prompt_tokens));
  value(out, "ttt_prefix_cache_hit_tokens_total", "counter", "Of them, those whose KV was there.",
        static_cast<double>(stats.cached_tokens));
  value(out, "ttt_generation_tokens_total", "counter", "Tokens written.",
        static_cast<double>(stats.generated_tokens));
  value(out, "ttt_preemptions_total", "counter", "Sequences set back for want of memory.",
        static_cast<double>(stats.preemptions));
  header(out, "ttt_requests_finished_total", "counter", "Sequences that ended, by reason.");
  for (const auto reason : {ttt::FinishReason::stop, ttt::FinishReason::length, ttt::FinishReason::cancelled,
                            ttt::FinishReason::error})
    out += "ttt_requests_finished_total{reason=\"" + std::string(ttt::name(reason)) + "\"} " +
           std::to_string(stats.finished[static_cast<std::size_t>(reason)]) + "\n";
  const std::lock_guard lock(mutex_);
  header(out, "ttt_http_responses_total", "counter", "HTTP answers by status.");
  for (const auto& [status, count] : statuses_)
    out +=
        "ttt_http_responses_total{status=\"" + std::to_string(status) + "\"} " + std::to_string(count) + "\n";
  first_token_.print(out, "ttt_time_to_first_token_seconds",
                     "From the arrival of a request to its first token.");
  between_tokens_.print(out, "ttt_time_per_output_token_seconds", "Between tokens of a sequence.");
  queue_.print(out, "ttt_queue_seconds", "From the arrival of a request to its first step.");
  duration_.print(out, "ttt_request_seconds", "From the arrival of a request to its end.");
  return out;
}

}  // namespace ttt_serve
