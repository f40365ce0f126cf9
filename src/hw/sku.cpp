// Sources: docs.tenstorrent.com, specifications of the Wormhole and Blackhole cards and systems; the compute
// grids, L1 sizes and links are those that TTNN 0.81 reports for each system.
#include "ttt/hw/sku.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <thread>
#include <vector>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

std::string_view name(Arch arch) {
  switch (arch) {
    case Arch::cpu:
      return "cpu";
    case Arch::wormhole_b0:
      return "wormhole_b0";
    case Arch::blackhole:
      return "blackhole";
  }
  return "invalid";
}

std::string_view name(Topology topology) { return topology == Topology::ring ? "ring" : "linear"; }

double peak_tflops(const Sku& sku, MathFidelity fidelity) {
  return sku.tflops_lofi / (1 + static_cast<int>(fidelity));
}

std::string to_string(const Mesh& mesh) {
  return std::to_string(mesh.rows) + "x" + std::to_string(mesh.cols);
}

Mesh parse_mesh(std::string_view text) {
  constexpr int most = 64;
  Mesh mesh{0, 0};
  const char* const end = text.data() + text.size();
  const auto [cross, bad_rows] = std::from_chars(text.data(), end, mesh.rows);
  bool good = bad_rows == std::errc() && cross != end && *cross == 'x';
  if (good) {
    const auto [rest, bad_cols] = std::from_chars(cross + 1, end, mesh.cols);
    good = bad_cols == std::errc() && rest == end;
  }
  if (!good || mesh.rows < 1 || mesh.cols < 1 || mesh.rows > most || mesh.cols > most) {
    throw Error("the mesh \"" + printable(text) + "\" cannot be read", {},
                "write ROWSxCOLS, both from 1 to 64, as 1x2");
  }
  return mesh;
}

namespace hw {

namespace {

constexpr std::size_t GiB = std::size_t{1} << 30;

// The matrix unit of a Tensix core makes 2,048 multiply-adds in a cycle at LoFi.
constexpr double lofi_tflops(CoreCoord grid, double clock_ghz) {
  return grid.x * grid.y * 4096 * clock_ghz / 1000;
}

// Wormhole: 12 GB as 6 GDDR6 channels of two banks at 12 GT/s, Ethernet at 100 Gbit/s. The grid is what
// dispatch leaves.
constexpr Sku wormhole(std::string_view name, std::string_view description, Mesh mesh, int links,
                       Topology topology = Topology::linear) {
  constexpr CoreCoord grid{8, 8};
  return {.name = name,
          .description = description,
          .arch = Arch::wormhole_b0,
          .mesh = mesh,
          .grid = grid,
          .dram_banks = 12,
          .l1_bytes = 1464 * 1024,
          .dram_bytes = 12 * GiB,
          .dram_bandwidth = 288e9,
          .tflops_lofi = lofi_tflops(grid, 1.0),
          .links = links,
          .topology = topology,
          .link_bandwidth = links > 0 ? 12.5e9 : 0};
}

// Blackhole: one GDDR6 channel of 4 GB and 64 GB/s for each bank, Ethernet at 400 Gbit/s. 120 cores, a column
// for dispatch.
constexpr Sku blackhole(std::string_view name, std::string_view description, Mesh mesh, int banks,
                        int links) {
  constexpr CoreCoord grid{11, 10};
  return {.name = name,
          .description = description,
          .arch = Arch::blackhole,
          .mesh = mesh,
          .grid = grid,
          .dram_banks = banks,
          .l1_bytes = 1536 * 1024,
          .dram_bytes = static_cast<std::size_t>(banks) * 4 * GiB,
          .dram_bandwidth = banks * 64e9,
          .tflops_lofi = lofi_tflops(grid, 1.35),
          .links = links,
          .link_bandwidth = links > 0 ? 50e9 : 0};
}

constexpr Sku n150_facts = wormhole("n150", "Wormhole n150: one Wormhole", {1, 1}, 0);
constexpr Sku n300_facts = wormhole("n300", "Wormhole n300: two Wormholes on a card", {1, 2}, 2);
constexpr Sku t3k_facts = wormhole("t3k", "T3000 (LoudBox, QuietBox): four n300", {2, 4}, 2, Topology::ring);
constexpr Sku galaxy_facts = wormhole("galaxy", "Wormhole Galaxy: 32 Wormholes", {8, 4}, 4);
constexpr Sku p100_facts = blackhole("p100", "Blackhole p100: one Blackhole without Ethernet", {1, 1}, 7, 0);
constexpr Sku p150_facts = blackhole("p150", "Blackhole p150: one Blackhole", {1, 1}, 8, 0);
constexpr Sku p150x4_facts = blackhole("p150x4", "four p150 (QuietBox 2)", {2, 2}, 8, 2);
constexpr Sku p150x8_facts = blackhole("p150x8", "eight p150 (LoudBox 2)", {2, 4}, 8, 2);

// The processor's name as Linux tells it, without the padding some have.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with("model name") || colon == std::string::npos) continue;
    std::string text = line.substr(colon + 1);
    text.erase(0, text.find_first_not_of(' '));
    text.erase(text.find_last_not_of(' ') + 1);
    return printable(text);
  }
  return "this processor";
}

}  // namespace

const Sku& n150() { return n150_facts; }
const Sku& n300() { return n300_facts; }
const Sku& t3k() { return t3k_facts; }
const Sku& galaxy() { return galaxy_facts; }
const Sku& p100() { return p100_facts; }
const Sku& p150() { return p150_facts; }
const Sku& p150x4() { return p150x4_facts; }
const Sku& p150x8() { return p150x8_facts; }

const Sku& cpu() {
  static const std::string description = processor();
  static const Sku facts = [] {
    const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
    Sku sku{.name = "cpu", .description = description, .arch = Arch::cpu};
    sku.grid = {static_cast<int>(std::max(1u, std::thread::hardware_concurrency())), 1};
    sku.dram_banks = 1;
    sku.dram_bytes =
        pages > 0 && page > 0 ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page) : 0;
    return sku;
  }();
  return facts;
}

std::span<const Sku* const> all() {
  static const std::array<const Sku*, 9> skus = {&n150(), &n300(),   &t3k(),    &galaxy(), &p100(),
                                                 &p150(), &p150x4(), &p150x8(), &cpu()};
  return skus;
}

const Sku& find(std::string_view name) {
  std::vector<std::string_view> names;
  std::string choices;
  for (const Sku* sku : all()) {
    if (sku->name == name) return *sku;
    names.push_back(sku->name);
    choices += (choices.empty() ? "" : ", ") + std::string(sku->name);
  }
  throw Error("unknown SKU \"" + printable(name) + "\"", {}, "use one of " + choices);
}

}  // namespace hw
}  // namespace ttt::inline v2
