#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "cli.h"
#include "ttt/base/error.h"
#include "ttt/convert/binding.h"
#include "ttt/convert/checkpoint.h"
#include "ttt/convert/weight_map.h"
#include "ttt/hw/choose.h"
#include "ttt/runtime/planner.h"
#include "ttt/testing/instances.h"

namespace ttt_cli {

namespace {

struct InspectFlags {
  ModelFlags model;
  ttt::PlanRequest request;
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

// ---------------------------------------------------------------- memory, roofline

// The model for a device that computes nothing, on all devices of the SKU unless a mesh is given.
ttt::LoadedModel planned(const InspectFlags& flags) {
  ModelFlags model = flags.model;
  if (model.options.sku.empty())
    throw ttt::Error("no hardware to plan for", "ttt inspect", "choose a --sku, ttt hw lists them");
  if (model.mesh.empty()) model.mesh = ttt::to_string(ttt::hw::whole_mesh(ttt::hw::find(model.options.sku)));
  return model.load(false);
}

void describe(Report& report, const ttt::LoadedModel& loaded, const InspectFlags& flags) {
  const ttt::Target& target = loaded.model->target();
  report.add("sku", target.sku.name);
  report.add("mesh", ttt::to_string(target.mesh));
  report.add("precision", target.precision);
  report.add("batch", static_cast<std::size_t>(flags.request.batch), "users");
  report.add("context", static_cast<std::size_t>(flags.request.context), "tokens");
}

// "layers.12.attn.q+layers.12.attn.k" as "layers.*.attn.q+layers.*.attn.k".
std::string any_layer(std::string name) {
  constexpr std::string_view prefix = "layers.";
  for (std::size_t at = 0; (at = name.find(prefix, at)) != std::string::npos;) {
    at += prefix.size();
    const std::size_t end = std::min(name.find_first_not_of("0123456789", at), name.size());
    name.replace(at, end - at, "*");
  }
  return name;
}

void memory(const InspectFlags& flags) {
  const ttt::LoadedModel loaded = planned(flags);
  const ttt::MemoryPlan plan = ttt::plan_memory(*loaded.model, flags.request);
  Report report;
  describe(report, loaded, flags);
  report.add("weights", megabytes(plan.weight_bytes), "MB", 1);
  report.add("kv cache", megabytes(plan.kv_bytes), "MB", 1);
  report.add("recurrent state", megabytes(plan.state_bytes), "MB", 1);
  report.add("activations", megabytes(plan.activation_bytes), "MB", 1);
  report.add("needed per device", megabytes(plan.bytes()), "MB", 1);
  report.add("dram per device", megabytes(plan.usable_bytes), "MB", 1);
  report.add("fits", plan.fits());
  report.add("most tokens of all users", static_cast<std::size_t>(plan.most_tokens));
  report.add("most users at this context",
             static_cast<std::size_t>(plan.most_tokens / (flags.request.context + 1)));
  report.add("fullest core", static_cast<double>(plan.l1_bytes) / 1e3, "kB of L1", 1);
  report.add("l1 per core", static_cast<double>(plan.usable_l1_bytes) / 1e3, "kB", 1);
  report.add("fullest core runs", plan.l1_op);
  if (flags.json) {
    Json tensors = Json::array();
    for (const auto* list : {&plan.weights, &plan.caches}) {
      for (const ttt::PlacedTensor& t : *list)
        tensors.push_back({{"name", t.name},
                           {"shape", Json::parse(ttt::to_string(t.spec.shape))},
                           {"dtype", ttt::name(t.spec.dtype)},
                           {"memory", ttt::to_string(t.spec.memory)},
                           {"bytes", t.bytes}});
    }
    report.add_json_only("tensors", std::move(tensors));
    print_json(report.json());
    return;
  }
  report.print();
  std::printf("\nof each device:\n");
  struct Group {
    std::size_t count = 0, bytes = 0;
  };
  std::vector<std::pair<std::vector<std::string>, Group>> groups;
  for (const auto* list : {&plan.weights, &plan.caches}) {
    for (const ttt::PlacedTensor& t : *list) {
      std::vector<std::string> key{any_layer(t.name), ttt::to_string(t.spec.shape),
                                   std::string(ttt::name(t.spec.dtype)), ttt::to_string(t.spec.memory)};
      auto found = std::ranges::find(groups, key, &std::pair<std::vector<std::string>, Group>::first);
      if (found == groups.end()) found = groups.insert(found, {std::move(key), {}});
      ++found->second.count, found->second.bytes += t.bytes;
    }
  }
  Table table({"count", "tensor", "shape", "dtype", "memory", "MB"});
  for (const auto& [key, group] : groups)
    table.add(
        {std::to_string(group.count), key[0], key[1], key[2], key[3], fixed(megabytes(group.bytes), 1)});
  table.print();
}

// Calls of several steps that are alike, the slowest first.
struct TimedCall {
  ttt::RecordedCall call;
  ttt::hw::OpTime one;
  double seconds() const { return static_cast<double>(call.calls) * one.seconds; }
};
std::vector<TimedCall> timed(const ttt::Sku& sku, const std::vector<ttt::RecordedStep>& steps, bool traced) {
  std::vector<TimedCall> all;
  for (const ttt::RecordedStep& step : steps) {
    for (const ttt::RecordedCall& call : step.calls)
      all.push_back({call, ttt::hw::op_time(sku, call.work, ttt::hw::calibration(), traced)});
  }
  std::ranges::stable_sort(all, std::ranges::greater{}, &TimedCall::seconds);
  return all;
}

void print_pass(const char* title, double seconds, const std::vector<TimedCall>& calls) {
  constexpr std::size_t most = 16;
  std::printf("\n%s: %s ms\n", title, fixed(seconds * 1e3, 2).c_str());
  std::map<std::string_view, double> bounds;
  for (const TimedCall& t : calls) bounds[ttt::hw::name(t.one.bound())] += t.seconds();
  for (const auto& [bound, time] : bounds)
    std::printf("  bound by %-8s %5.1f %%\n", std::string(bound).c_str(), 100 * time / seconds);
  Table table({"ms", "calls", "us each", "bound by", "MB", "GFLOP", "op", "operands"});
  for (std::size_t i = 0; i < std::min(most, calls.size()); ++i) {
    const TimedCall& t = calls[i];
    std::string operands = t.call.operands;
    if (operands.size() > 110) operands = operands.substr(0, 107) + "...";
    table.add({fixed(t.seconds() * 1e3, 3), std::to_string(t.call.calls), fixed(t.one.seconds * 1e6, 1),
               std::string(ttt::hw::name(t.one.bound())), fixed(t.call.work.dram_bytes / 1e6, 2),
               fixed(t.call.work.flops / 1e9, 2), t.call.op, operands});
  }
  table.print();
  if (calls.size() > most) std::printf("%zu more kinds of calls: --json lists them\n", calls.size() - most);
}

Json pass_json(const std::vector<TimedCall>& calls) {
  Json rows = Json::array();
  for (const TimedCall& t : calls)
    rows.push_back({{"op", t.call.op},
                    {"operands", t.call.operands},
                    {"calls", t.call.calls},
                    {"microseconds_each", t.one.seconds * 1e6},
                    {"bound", ttt::hw::name(t.one.bound())},
                    {"dram_microseconds", t.one.dram * 1e6},
                    {"compute_microseconds", t.one.compute * 1e6},
                    {"link_microseconds", t.one.link * 1e6},
                    {"latency_microseconds", t.one.latency * 1e6},
                    {"dram_bytes", t.call.work.dram_bytes},
                    {"flops", t.call.work.flops}});
  return rows;
}

void roofline(const InspectFlags& flags) {
  const ttt::LoadedModel loaded = planned(flags);
  const ttt::Sku& sku = loaded.model->target().sku;
  const ttt::MemoryPlan plan = ttt::plan_memory(*loaded.model, flags.request);
  const ttt::Recording recording = ttt::record(*loaded.model, flags.request);
  const ttt::Roofline predicted = ttt::predict(sku, recording);
  const auto prefill = timed(sku, recording.prefill, false), decode = timed(sku, {recording.decode}, true);
  Report report;
  describe(report, loaded, flags);
  report.add("tokens per second per user", predicted.tokens_per_second_per_user, "", 1);
  report.add("time to first token", predicted.time_to_first_token * 1e3, "ms", 1);
  report.add("time per step", predicted.time_per_step * 1e3, "ms", 2);
  report.add("tokens per second",
             predicted.tokens_per_second_per_user * static_cast<double>(flags.request.batch), "", 1);
  report.add("fits", plan.fits());
  if (flags.json) {
    report.add_json_only("prefill", pass_json(prefill));
    report.add_json_only("decode", pass_json(decode));
    print_json(report.json());
    return;
  }
  report.print();
  print_pass("decode, a step for all users", predicted.time_per_step, decode);
  print_pass("prefill of one user's prompt", predicted.time_to_first_token, prefill);
}

}  // namespace

void add_inspect(Program& program) {
  CLI::App* app = program.app.add_subcommand("inspect", "Show what a checkpoint is and how it would run");
  app->require_subcommand(1);
  app->footer("ttt inspect COMMAND --help explains a command and gives examples.");
  struct Row {
    const char *name, *description, *example;
    void (*action)(const InspectFlags&);
    bool request = false;  // takes users and a context
  };
  for (const Row& row :
       {Row{"spec", "The network as data: layers, sizes, activations. Needs no weights",
            "ttt inspect spec --model config_folder/", spec},
        Row{"weights", "Every weight of the network and the checkpoint tensors it is made of",
            "ttt inspect weights --model model.gguf", weights},
        Row{"plan", "Everything that was decided: number formats, memory, program configs, and why",
            "ttt inspect plan --model checkpoint/ --sku n150 --precision performance", plan},
        Row{"memory", "What fits on a SKU: every tensor of a device, its cache, L1. Needs no weights",
            "ttt inspect memory --model config_folder/ --sku n300 --batch 32 --context 2048", memory, true},
        Row{"roofline",
            "How fast a SKU can be: time to first token and tokens per second per user, the resource that "
            "bounds "
            "each operation. Needs no weights",
            "ttt inspect roofline --model config_folder/ --sku t3k --precision performance", roofline, true},
        Row{"instances", "The distinct modules: what has to be tested once. Needs no weights",
            "ttt inspect instances --model config_folder/ --sku t3k --precision performance", instances}}) {
    CLI::App* sub = app->add_subcommand(row.name, row.description);
    auto flags = std::make_shared<InspectFlags>();
    flags->model.options.backend = "null";
    flags->model.add_to(sub);
    if (row.request) {
      sub->add_option("--batch", flags->request.batch, "Users at the same time")
          ->check(positive())
          ->capture_default_str()
          ->type_name("N");
      sub->add_option("--context", flags->request.context,
                      "Tokens of each user's prompt; the next one is decoded")
          ->check(positive())
          ->capture_default_str()
          ->type_name("N");
    }
    add_json_flag(sub, flags->json);
    examples(sub, {row.example, std::string(row.example) + " --json"});
    sub->callback([flags, action = row.action] { action(*flags); });
  }
}

}  // namespace ttt_cli
