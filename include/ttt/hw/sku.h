// Facts about hardware: what a card has, not what we do with it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ttt/tensor/memory_config.h"

namespace ttt::inline v2 {

enum class Arch : std::uint8_t { cpu, wormhole_b0, blackhole };
enum class MathFidelity : std::uint8_t { lofi, hifi2, hifi3, hifi4 };  // passes over the multiplier: 1 to 4

enum class Topology : std::uint8_t {
  linear,
  ring
};  // ring: the last device of an axis is linked to the first

struct Mesh {
  int rows = 1, cols = 1;
  int devices() const { return rows * cols; }
  bool operator==(const Mesh&) const = default;
};

struct Sku {
  std::string_view name;         // "n150"
  std::string_view description;  // one line for people
  Arch arch = Arch::cpu;
  Mesh mesh{};                 // devices of the whole system
  CoreCoord grid{};            // Tensix cores of one device, as a compute grid (x, y)
  int dram_banks = 0;          // per device
  std::size_t l1_bytes = 0;    // per core
  std::size_t dram_bytes = 0;  // per device
  double dram_bandwidth = 0;   // bytes/s per device
  double tflops_lofi = 0;      // dense peak of one device at LoFi; HiFi2 is half of it, HiFi4 a quarter
  int links = 0;               // Ethernet links to a neighbour of the mesh
  Topology topology{};         // of an axis of the mesh
  double link_bandwidth = 0;   // bytes/s per link and direction
  bool operator==(const Sku&) const = default;
};

std::string_view name(Arch);
std::string_view name(Topology);
// Dense peak of one device in TFLOPS: the multiplier passes once at LoFi, twice at HiFi2, and so on.
double peak_tflops(const Sku&, MathFidelity);

std::string to_string(const Mesh&);  // "2x4"
Mesh parse_mesh(std::string_view);   // Error unless "RxC" with both from 1 to 64

namespace hw {

const Sku& n150();
const Sku& n300();
const Sku& t3k();
const Sku& galaxy();
const Sku& p100();
const Sku& p150();
const Sku& p150x4();
const Sku& p150x8();
const Sku& cpu();  // the machine that runs this
std::span<const Sku* const> all();
const Sku& find(std::string_view name);  // Error names the choices

}  // namespace hw
}  // namespace ttt::inline v2
