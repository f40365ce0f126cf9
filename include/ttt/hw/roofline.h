// How long an operation takes on a card: the SKU's facts, and a few physical terms that no data sheet has.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ttt/hw/program_config.h"
#include "ttt/hw/sku.h"

namespace ttt::inline v2::hw {

// The terms, one set for all models, SKUs and precisions. tools/roofline fits them to published measurements
// (data/roofline), docs/hardware.md says how well they predict.
struct Calibration {
  double dram_efficiency = 1;       // share of the DRAM bandwidth that products reach
  double cache_efficiency = 1;      // share of it that attention over a paged cache reaches
  double matmul_efficiency = 1;     // share of the peak that products reach
  double attention_efficiency = 1;  // share of the peak that attention reaches
  double kernel_seconds = 0;        // of every operation: filling and draining the cores
  double launch_seconds = 0;        // the host's, for an operation that no trace replays
  double hop_seconds = 0;           // from a device to its neighbour, per step of a collective
  double link_efficiency = 1;       // share of the links' bandwidth
  double step_seconds = 0;          // the host's, for a step: inputs, sampling
  double read_bandwidth = 0;        // bytes/s at which the host reads logits back; 0: no limit
  bool operator==(const Calibration&) const = default;
};

// One term by its name, for files and for the fit.
struct CalibrationTerm {
  std::string_view name;
  double Calibration::*value;
  double least, most;  // what is physically possible
};
std::span<const CalibrationTerm> calibration_terms();

const Calibration& calibration();                                               // of data/roofline, built in
Calibration parse_calibration(std::string_view json, std::string_view origin);  // Error names the term
std::string to_json(const Calibration&);

// All devices of the system as plans use them unless told otherwise: a row of up to eight, else the system's
// own mesh.
Mesh whole_mesh(const Sku&);

// What one operation asks of each device.
struct OpWork {
  double dram_bytes = 0, flops = 0;
  MathFidelity fidelity = MathFidelity::hifi2;
  bool attention = false;  // over a cache
  int hops = 0;            // collectives: steps from neighbour to neighbour
  double link_bytes = 0;   // that a link carries
};

enum class Resource : std::uint8_t { dram, compute, link, latency };
std::string_view name(Resource);

// The roofline of Williams et al. 2009 with a floor: DRAM and matrix units work at the same time, kernel and
// links add to the slower of both. An operation that is enqueued one by one takes the host's time at least.
struct OpTime {
  double seconds = 0, dram = 0, compute = 0, link = 0, latency = 0;
  Resource bound() const;  // the largest part
};
OpTime op_time(const Sku&, const OpWork&, const Calibration&, bool traced);

}  // namespace ttt::inline v2::hw
