// ttt hw: the facts about hardware.
#include <cstdio>

#include "cli.h"
#include "ttt/hw/check.h"

namespace ttt_cli {

namespace {

struct HardwareFlags {
  std::string name;
  bool json = false;
};

constexpr ttt::MathFidelity fidelities[] = {ttt::MathFidelity::lofi, ttt::MathFidelity::hifi2,
                                            ttt::MathFidelity::hifi3, ttt::MathFidelity::hifi4};

std::string size_text(std::size_t bytes) { return fixed(static_cast<double>(bytes) / (1 << 20), 0) + " MiB"; }
std::string grid_text(ttt::CoreCoord c) { return std::to_string(c.x) + "x" + std::to_string(c.y); }

Json hardware_json(const ttt::Sku& sku) {
  Json row{{"sku", sku.name},
           {"description", sku.description},
           {"arch", ttt::name(sku.arch)},
           {"devices", sku.mesh.devices()},
           {"mesh", ttt::to_string(sku.mesh)},
           {"topology", ttt::name(sku.topology)},
           {"grid", grid_text(sku.grid)},
           {"dram_banks", sku.dram_banks},
           {"l1_bytes", sku.l1_bytes},
           {"usable_l1_bytes", ttt::hw::usable_l1_bytes(sku)},
           {"dram_bytes", sku.dram_bytes},
           {"usable_dram_bytes", ttt::hw::usable_dram_bytes(sku)},
           {"dram_bandwidth_gb_per_s", sku.dram_bandwidth / 1e9},
           {"links", sku.links},
           {"link_bandwidth_gb_per_s", sku.link_bandwidth / 1e9}};
  for (ttt::MathFidelity f : fidelities)
    row["tflops_" + std::string(ttt::name(f))] = ttt::peak_tflops(sku, f);
  return row;
}

// One SKU with what its numbers mean.
void explain(const ttt::Sku& sku) {
  const auto line = [](const char* label, const std::string& value) {
    std::printf("%-16s %s\n", label, value.c_str());
  };
  line("sku", std::string(sku.name) + ": " + std::string(sku.description));
  line("arch", std::string(ttt::name(sku.arch)));
  if (sku.arch == ttt::Arch::cpu) {
    line("threads", std::to_string(sku.grid.x));
    line("memory", size_text(sku.dram_bytes));
    return;
  }
  line("devices",
       std::to_string(sku.mesh.devices()) + ", mesh " + ttt::to_string(sku.mesh) +
           (sku.links > 0 ? ", " + std::string(ttt::name(sku.topology)) + ", " + std::to_string(sku.links) +
                                " links of " + fixed(sku.link_bandwidth / 1e9, 1) + " GB/s to a neighbour"
                          : ""));
  line("grid", grid_text(sku.grid) + " cores that compute and store, of each device");
  line("l1", size_text(sku.l1_bytes) + " per core, " + size_text(ttt::hw::usable_l1_bytes(sku)) +
                 " of it for kernels and tensors");
  line("dram", size_text(sku.dram_bytes) + " per device in " + std::to_string(sku.dram_banks) + " banks, " +
                   size_text(ttt::hw::usable_dram_bytes(sku)) + " of it for tensors, " +
                   fixed(sku.dram_bandwidth / 1e9, 0) + " GB/s");
  std::string peaks;
  for (ttt::MathFidelity f : fidelities)
    peaks +=
        (peaks.empty() ? "" : ", ") + std::string(ttt::name(f)) + " " + fixed(ttt::peak_tflops(sku, f), 0);
  line("peak TFLOPS", peaks + " per device: bfp4_b weights run at lofi, bfp8_b at hifi2, bf16 at hifi4");
}

void hardware(const HardwareFlags& flags) {
  if (!flags.name.empty()) {
    const ttt::Sku& sku = ttt::hw::find(flags.name);
    if (flags.json) return print_json(hardware_json(sku));
    return explain(sku);
  }
  if (flags.json) {
    Json rows = Json::array();
    for (const ttt::Sku* sku : ttt::hw::all()) rows.push_back(hardware_json(*sku));
    print_json({{"hw", std::move(rows)}});
    return;
  }
  Table table({"sku", "devices", "mesh", "grid", "dram GB", "GB/s", "TFLOPS LoFi", "links", "description"});
  for (const ttt::Sku* sku : ttt::hw::all())
    table.add({std::string(sku->name), std::to_string(sku->mesh.devices()), ttt::to_string(sku->mesh),
               grid_text(sku->grid), fixed(static_cast<double>(sku->dram_bytes) / 1e9, 1),
               fixed(sku->dram_bandwidth / 1e9, 0), fixed(sku->tflops_lofi, 0), std::to_string(sku->links),
               std::string(sku->description)});
  table.print();
  std::printf("Numbers are per device; ttt hw NAME explains one.\n");
}

}  // namespace

void add_hw(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("hw", "The hardware that plans can be resolved for, and its facts");
  auto flags = std::make_shared<HardwareFlags>();
  app->add_option("name", flags->name, "Explain this one")->type_name("NAME");
  add_json_flag(app, flags->json);
  examples(app, {"ttt hw", "ttt hw n150", "ttt hw --json"});
  app->callback([flags] { hardware(*flags); });
}

}  // namespace ttt_cli
