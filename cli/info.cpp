// ttt models, ttt hw: what is installed, and the facts about hardware.
#include <cstdio>

#include "cli.h"
#include "ttt/hw/sku.h"

namespace ttt_cli {

namespace {

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

struct ModelsFlags {
  std::vector<std::string> libraries;
  bool json = false;
};

void models(const ModelsFlags& flags) {
  const std::vector<ttt::FamilyInfo> all = ttt::families({flags.libraries.begin(), flags.libraries.end()});
  if (flags.json) {
    Json rows = Json::array();
    for (const ttt::FamilyInfo& family : all)
      rows.push_back({{"family", family.name},
                      {"architectures", family.architectures},
                      {"gguf", family.gguf},
                      {"library", family.library.string()}});
    print_json({{"models", std::move(rows)}});
    return;
  }
  Table table({"family", "architectures", "gguf", "library"});
  for (const ttt::FamilyInfo& family : all)
    table.add(
        {family.name, joined(family.architectures), joined(family.gguf), family.library.filename().string()});
  table.print();
}

void hardware(bool json) {
  if (json) {
    Json rows = Json::array();
    for (const ttt::Sku* sku : ttt::hw::all())
      rows.push_back({{"sku", sku->name},
                      {"description", sku->description},
                      {"devices", sku->mesh.devices()},
                      {"mesh", ttt::to_string(sku->mesh)},
                      {"grid", std::to_string(sku->grid.x) + "x" + std::to_string(sku->grid.y)},
                      {"dram_banks", sku->dram_banks},
                      {"l1_bytes", sku->l1_bytes},
                      {"dram_bytes", sku->dram_bytes},
                      {"dram_bandwidth_gb_per_s", sku->dram_bandwidth / 1e9},
                      {"tflops_lofi", sku->tflops_lofi},
                      {"links", sku->links},
                      {"link_bandwidth_gb_per_s", sku->link_bandwidth / 1e9}});
    print_json({{"hw", std::move(rows)}});
    return;
  }
  Table table({"sku", "devices", "mesh", "grid", "dram GB", "GB/s", "TFLOPS LoFi", "description"});
  for (const ttt::Sku* sku : ttt::hw::all())
    table.add({std::string(sku->name), std::to_string(sku->mesh.devices()), ttt::to_string(sku->mesh),
               std::to_string(sku->grid.x) + "x" + std::to_string(sku->grid.y),
               fixed(static_cast<double>(sku->dram_bytes) / 1e9, 1), fixed(sku->dram_bandwidth / 1e9, 0),
               fixed(sku->tflops_lofi, 0), std::string(sku->description)});
  table.print();
  std::printf("Numbers are per device.\n");
}

}  // namespace

void add_models(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("models", "The model families of the installed and given libraries");
  auto flags = std::make_shared<ModelsFlags>();
  app->add_option("--models", flags->libraries, "Model libraries besides the installed ones and $TTT_MODELS")
      ->type_name("LIB");
  add_json_flag(app, flags->json);
  examples(app, {"ttt models", "ttt models --models build/libmine.so --json"});
  app->callback([flags] { models(*flags); });
}

void add_hw(Program& program) {
  CLI::App* app =
      program.app.add_subcommand("hw", "The hardware that plans can be resolved for, and its facts");
  auto json = std::make_shared<bool>(false);
  add_json_flag(app, *json);
  examples(app, {"ttt hw", "ttt hw --json"});
  app->callback([json] { hardware(*json); });
}

}  // namespace ttt_cli
