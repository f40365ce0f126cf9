#include "ttt/hw/roofline.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hw/built_in.h"
#include "ttt/base/error.h"

namespace ttt::inline v2::hw {

std::span<const CalibrationTerm> calibration_terms() {
  using C = Calibration;
  static constexpr CalibrationTerm terms[] = {
      {"dram_efficiency", &C::dram_efficiency, 0.3, 0.95},
      {"cache_efficiency", &C::cache_efficiency, 0.1, 0.95},
      {"matmul_efficiency", &C::matmul_efficiency, 0.05, 0.95},
      {"attention_efficiency", &C::attention_efficiency, 0.05, 0.95},
      {"kernel_seconds", &C::kernel_seconds, 1e-6, 1e-4},
      {"launch_seconds", &C::launch_seconds, 1e-6, 3e-4},
      {"hop_seconds", &C::hop_seconds, 5e-7, 1e-4},
      {"link_efficiency", &C::link_efficiency, 0.1, 0.95},
      {"step_seconds", &C::step_seconds, 0, 2e-2},
      {"read_bandwidth", &C::read_bandwidth, 1e8, 3e10},
  };
  return terms;
}

Calibration parse_calibration(std::string_view json, std::string_view origin) {
  const std::string where(origin);
  const nlohmann::json object = nlohmann::json::parse(json, nullptr, false);
  const auto found = object.is_object() ? object.find("terms") : object.end();
  if (!object.is_object() || found == object.end() || !found->is_object())
    throw Error("no calibration", where, "write {\"terms\": {\"dram_efficiency\": 0.8, ..}}");
  Calibration result;
  for (const CalibrationTerm& term : calibration_terms()) {
    const auto value = found->find(term.name);
    if (value == found->end() || !value->is_number())
      throw Error("no number \"" + std::string(term.name) + "\"", where);
    const double number = value->get<double>();
    if (!(number >= term.least && number <= term.most))
      throw Error("\"" + std::string(term.name) + "\" is " + value->dump(), where,
                  "it lies between " + nlohmann::json(term.least).dump() + " and " +
                      nlohmann::json(term.most).dump());
    result.*term.value = number;
  }
  return result;
}

std::string to_json(const Calibration& c) {
  nlohmann::ordered_json terms;
  for (const CalibrationTerm& term : calibration_terms()) terms[std::string(term.name)] = c.*term.value;
  return nlohmann::ordered_json{{"terms", std::move(terms)}}.dump(2) + "\n";
}

const Calibration& calibration() {
  static const Calibration built_in =
      parse_calibration(built_in_calibration(), "data/roofline/calibration.json");
  return built_in;
}

Mesh whole_mesh(const Sku& sku) { return sku.mesh.devices() <= 8 ? Mesh{1, sku.mesh.devices()} : sku.mesh; }

std::string_view name(Resource resource) {
  switch (resource) {
    case Resource::dram:
      return "dram";
    case Resource::compute:
      return "compute";
    case Resource::link:
      return "link";
    case Resource::latency:
      return "latency";
  }
  return "invalid";
}

Resource OpTime::bound() const {
  const double most = std::max({dram, compute, link, latency});
  if (most == latency) return Resource::latency;
  if (most == link) return Resource::link;
  return most == dram ? Resource::dram : Resource::compute;
}

OpTime op_time(const Sku& sku, const OpWork& work, const Calibration& c, bool traced) {
  const auto time = [](double amount, double rate) { return amount > 0 && rate > 0 ? amount / rate : 0; };
  OpTime t;
  t.dram =
      time(work.dram_bytes, sku.dram_bandwidth * (work.attention ? c.cache_efficiency : c.dram_efficiency));
  t.compute = time(work.flops, peak_tflops(sku, work.fidelity) * 1e12 *
                                   (work.attention ? c.attention_efficiency : c.matmul_efficiency));
  t.link =
      work.hops * c.hop_seconds + time(work.link_bytes, sku.links * sku.link_bandwidth * c.link_efficiency);
  t.latency = c.kernel_seconds;
  t.seconds = std::max(t.dram, t.compute) + t.link + t.latency;
  if (!traced && t.seconds < c.launch_seconds)
    t.latency += c.launch_seconds - t.seconds, t.seconds = c.launch_seconds;
  return t;
}

}  // namespace ttt::inline v2::hw
