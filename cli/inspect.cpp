#include <cstdio>
#include <set>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/convert/binding.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/weight_map.h"
#include "ttt/testing/instances.h"

namespace ttt_cli {

namespace {

struct InspectFlags {
  ModelFlags model;
  bool json = false;
};

std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// ---------------------------------------------------------------- spec

void spec(const InspectFlags& flags) {
  const ttt::Description description = ttt::describe(flags.model.model, flags.model.resolved());
  note_unread(description.unread_keys);
  if (flags.json) {
    print_json({{"architecture", description.architecture},
                {"family", description.family},
                {"library", description.library.string()},
                {"unread_keys", description.unread_keys},
                {"spec", Json::parse(ttt::to_json(description.spec))}});
    return;
  }
  std::printf("%s\n", ttt::to_json(description.spec).c_str());
}

// ---------------------------------------------------------------- weights

void weights(const InspectFlags& flags) {
  const ttt::Description description = ttt::describe(flags.model.model, flags.model.resolved());
  const ttt::Checkpoint checkpoint = ttt::Checkpoint::open(flags.model.model);
  const std::vector<ttt::WeightSlot> slots = ttt::weight_slots(description.spec);
  const std::vector<ttt::NamedShape> shapes = checkpoint.shapes();
  Json object;
  if (shapes.empty()) {  // a config.json alone: what the network needs
    object["weights"] = Json::array();
    for (const ttt::WeightSlot& slot : slots)
      object["weights"].push_back({{"slot", slot.name}, {"shape", {slot.rows, slot.cols}}, {"from", ""}});
    object["ignored"] = Json::array();
  } else {
    object = Json::parse(
        ttt::bind_weights(ttt::WeightMap::from_json(description.weight_map_json), shapes, slots).to_json());
  }
  if (flags.json) {
    object["weight_map"] = Json::parse(description.weight_map_json);
    object["tensors"] = Json::parse(checkpoint.to_json());
    print_json(object);
    return;
  }
  Table table({"weight", "shape", "from"});
  for (const Json& row : object.at("weights"))
    table.add({text_of(row.at("slot")), text_of(row.at("shape")), text_of(row.at("from"))});
  table.print();
  for (const Json& name : object.at("ignored")) std::printf("ignored: %s\n", text_of(name).c_str());
}

// ---------------------------------------------------------------- plan

void plan(const InspectFlags& flags) {
  const ttt::LoadedModel loaded = flags.model.load(false);
  Json plan = Json::parse(loaded.model->plan_json());
  std::size_t kv_bytes = 0;
  for (const ttt::KvLayerSpec& layer : loaded.model->kv_layers()) kv_bytes += layer.bytes_per_position();
  Report totals;
  totals.add("weights", megabytes(loaded.model->weight_bytes()), "MB", 1);
  totals.add("kv cache per token", kv_bytes, "bytes");
  plan.update(totals.json());
  if (flags.json) {
    print_json(plan);
    return;
  }
  Report head;
  for (const char* key : {"sku", "mesh", "precision", "device"}) head.add(key, text_of(plan.at(key)));
  head.print();
  totals.print();
  for (const Json& row : plan.at("rows"))
    std::printf("row: %s %s = %s (%s)\n", text_of(row.at("module")).c_str(), text_of(row.at("field")).c_str(),
                text_of(row.at("value")).c_str(), text_of(row.at("origin")).c_str());
  for (const Json& module : plan.at("modules")) {
    std::printf("\n%s\n", text_of(module.at("module")).c_str());
    for (const auto& [field, value] : module.items()) {
      if (field != "module") std::printf("  %-20s %s\n", field.c_str(), text_of(value).c_str());
    }
  }
}

// ---------------------------------------------------------------- instances

void instances(const InspectFlags& flags) {
  const ttt::Description description = ttt::describe(flags.model.model, flags.model.resolved());
  const std::vector<ttt::testing::ModuleInstance> all =
      ttt::testing::module_instances(description.spec, description.target);
  std::size_t modules = 0;
  std::set<std::string> kinds;
  for (const auto& instance : all) {
    kinds.insert(instance.kind.key());
    if (instance.mode == ttt::Mode::prefill) modules += instance.count;
  }
  if (flags.json) {
    Json rows = Json::array();
    for (const auto& instance : all) {
      Json shape = Json::object(), dtypes = Json::object();
      for (const auto& [name, size] : instance.shape) shape[name] = size;
      for (const auto& [name, dtype] : instance.dtypes) dtypes[name] = ttt::name(dtype);
      rows.push_back({{"key", instance.key()},
                      {"kind", instance.kind.key()},
                      {"shape", std::move(shape)},
                      {"dtypes", std::move(dtypes)},
                      {"mode", instance.mode == ttt::Mode::prefill ? "prefill" : "decode"},
                      {"sku", instance.sku},
                      {"path", instance.path},
                      {"count", instance.count}});
    }
    print_json({{"sku", description.target.sku.name},
                {"precision", description.target.precision},
                {"modules", modules},
                {"kinds", kinds.size()},
                {"instances", std::move(rows)}});
    return;
  }
  Table table({"count", "kind", "first", "shape", "formats"});
  for (const auto& instance : all) {
    if (instance.mode != ttt::Mode::prefill) continue;  // each is run in both modes
    std::string shape, dtypes;
    for (const auto& [name, size] : instance.shape)
      shape += (shape.empty() ? "" : " ") + name + "=" + std::to_string(size);
    for (const auto& [name, dtype] : instance.dtypes)
      dtypes += (dtypes.empty() ? "" : " ") + name + "=" + std::string(ttt::name(dtype));
    table.add({std::to_string(instance.count), instance.kind.key(), instance.path, shape, dtypes});
  }
  table.print();
  std::printf("%zu modules: %zu kinds, %zu instances (each in prefill and decode) on %s\n", modules,
              kinds.size(), all.size(), std::string(description.target.sku.name).c_str());
}

}  // namespace

void add_inspect(Program& program) {
  CLI::App* app = program.app.add_subcommand("inspect", "Show what a checkpoint is and how it would run");
  app->require_subcommand(1);
  app->footer("ttt inspect COMMAND --help explains a command and gives examples.");
  struct Row {
    const char *name, *description, *example;
    void (*action)(const InspectFlags&);
  };
  for (const Row& row :
       {Row{"spec", "The network as data: layers, sizes, activations. Needs no weights",
            "ttt inspect spec --model config_folder/", spec},
        Row{"weights", "Every weight of the network and the checkpoint tensors it is made of",
            "ttt inspect weights --model model.gguf", weights},
        Row{"plan", "Everything that was decided: number formats, memory, program configs, and why",
            "ttt inspect plan --model checkpoint/ --backend null --sku n150 --precision performance", plan},
        Row{"instances", "The distinct modules: what has to be tested once. Needs no weights",
            "ttt inspect instances --model config_folder/ --sku t3k --precision performance", instances}}) {
    CLI::App* sub = app->add_subcommand(row.name, row.description);
    auto flags = std::make_shared<InspectFlags>();
    flags->model.add_to(sub);
    add_json_flag(sub, flags->json);
    examples(sub, {row.example, std::string(row.example) + " --json"});
    sub->callback([flags, action = row.action] { action(*flags); });
  }
}

}  // namespace ttt_cli
