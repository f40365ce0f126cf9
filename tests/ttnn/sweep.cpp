// ttnn_sweep: every distinct layer of full-size models, through our planner and real TTNN on a mock cluster.
//
//   tools/ttnn/mock SKU ttnn_sweep --sku SKU --out FILE [--precision P] [--models FILE] [--only TEXT]
//   [--shard I/N] ttnn_sweep --table FILE...
//
// A network of one layer, with its embedding, final norm and head, is built on all devices of the SKU with
// weights that are allocated and never read, and runs a prefill of 128 and of 2,048 tokens and a decode step
// of 1 and of 32 users: first by the planner, then, unless that refuses, by TTNN. Each run adds one line to
// FILE; what a line is there for already is skipped, so a sweep that was stopped goes on where it was.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/uniform_step.h"
#include "ttt/base/error.h"
#include "ttt/convert/load.h"
#include "ttt/hw/check.h"
#include "ttt/hw/roofline.h"
#include "ttt/model/build.h"
#include "ttt/ops/backend.h"
#include "ttt/tensor/shape_source.h"

namespace {

using namespace ttt;
using Json = nlohmann::json;
namespace fs = std::filesystem;

struct Options {
  std::string sku, precision = "performance", only, models = TTT_SWEEP_MODELS;
  fs::path out;
  std::size_t shard = 0, shards = 1;
  std::vector<std::string> tables;
};

struct ModeRun {
  const char* name;
  std::int32_t sequences, tokens, context;
};
constexpr ModeRun modes[] = {{"prefill 128", 1, 128, 0},
                             {"prefill 2048", 1, 2048, 0},
                             {"decode 1", 1, 1, 1023},
                             {"decode 32", 32, 1, 1023}};
constexpr std::int32_t block_size = 32;

void run(const CausalLM& lm, const ModeRun& mode) {
  const std::int32_t length = mode.context + mode.tokens, width = (length + block_size - 1) / block_size;
  const auto state = lm.allocate(
      {.blocks = std::int64_t{width} * mode.sequences, .block_size = block_size, .slots = mode.sequences});
  ttt::runtime::uniform_step(lm, *state, mode.sequences, mode.tokens, mode.context, width);
}

// The modules of a network as texts that are equal for equal modules: what the plan decided, without the
// module's place.
std::set<std::string> modules(const CausalLM& lm) {
  std::set<std::string> keys;
  const Json plan = Json::parse(lm.plan_json());
  for (Json module : plan.at("modules")) {
    std::string name = module.at("module").get<std::string>();
    if (name.starts_with("layers.0.")) name.erase(0, 9);
    module.erase("module");
    keys.insert(name + ": " + module.dump());
  }
  return keys;
}

std::set<std::string> done(const fs::path& file) {
  std::set<std::string> keys;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const Json row = Json::parse(line, nullptr, false);
    if (row.is_object() && row.contains("key")) keys.insert(row.at("key").get<std::string>());
  }
  return keys;
}

std::unique_ptr<CausalLM> build_on(const std::shared_ptr<Backend>& device, const ModelSpec& spec,
                                   const Target& target) {
  const auto weights = [](const WeightSlot& slot) {
    return LazyWeight(make_shape(slot.rows, slot.cols), slot.role, slot.name);
  };
  return build(spec, weights, target, {.device = device, .cache = {}, .bound = {}});
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const Error& error) { return error.what(); }
}

// The planner's word on a run: a device that computes nothing and knows the SKU's limits; unset: it fits.
std::string planner_refuses(const ModelSpec& spec, const Target& target, const ModeRun& mode) {
  return error_of([&] {
    const auto device = open_device("null", {.mesh = target.mesh, .sku = std::string(target.sku.name)});
    const auto lm = build_on(device, spec, target);
    lm->load_weights();
    run(*lm, mode);
    hw::check_device_memory(target.sku, device->peak_bytes());
  });
}

void sweep(const Options& o) {
  const Sku& sku = hw::find(o.sku);
  const Target target = make_target(sku, o.precision, hw::whole_mesh(sku));
  const std::shared_ptr<Backend> device = open_device("ttnn", {.mesh = target.mesh, .sku = o.sku});
  std::printf("%s\n", device->description().c_str());
  std::set<std::string> known = done(o.out);
  std::ofstream out(o.out, std::ios::app);
  std::ifstream file(o.models);
  if (!file) throw Error("the models cannot be read", o.models);
  std::size_t number = 0;
  for (const Json& model : Json::parse(file)) {
    const std::string name = model.at("name").get<std::string>();
    if (name.find(o.only) == std::string::npos) continue;
    const ModelSpec spec = describe_config(model.at("config").dump()).spec;
    std::vector<LayerSpec> distinct;
    for (const LayerSpec& layer : spec.layers) {
      if (std::find(distinct.begin(), distinct.end(), layer) == distinct.end()) distinct.push_back(layer);
    }
    for (std::size_t i = 0; i < distinct.size(); ++i) {
      ModelSpec one = spec;
      one.layers = {distinct[i]};
      const std::string text = to_json(one, -1);
      if (number++ % o.shards != o.shard) continue;
      std::unique_ptr<CausalLM> lm;
      for (const ModeRun& mode : modes) {
        const std::string key = o.sku + "|" + o.precision + "|" + mode.name + "|" +
                                std::to_string(std::hash<std::string>{}(text));
        if (!known.insert(key).second) continue;
        const auto start = std::chrono::steady_clock::now();
        std::string status = "planner", problem = planner_refuses(one, target, mode);
        if (problem.empty()) {
          problem = error_of([&] {
            if (!lm) lm = build_on(device, one, target);
            run(*lm, mode);
          });
          status = problem.empty() ? "accepted" : "ttnn";
        }
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
        Json row{{"key", key},        {"model", name},   {"layer", i},
                 {"mode", mode.name}, {"sku", o.sku},    {"mesh", to_string(target.mesh)},
                 {"status", status},  {"text", problem}, {"ms", took.count()}};
        row["modules"] = status == "accepted" ? modules(*lm) : std::set<std::string>{};
        out << row.dump() << std::endl;
        std::printf("%-14s layer %zu  %-12s %-9s %6.0f ms  %s\n", name.c_str(), i, mode.name, status.c_str(),
                    took.count(), problem.substr(0, 300).c_str());
        std::fflush(stdout);
      }
    }
  }
}

int table(const std::vector<std::string>& files) {
  struct Count {
    std::size_t accepted = 0, planner = 0, ttnn = 0;
  };
  std::map<std::string, std::map<std::string, Count>> counts;  // by model and SKU
  std::set<std::string> skus, instances;
  Count all;
  for (const std::string& file : files) {
    std::ifstream lines(file);
    if (!lines) throw Error("a table's file cannot be read", file);
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line, nullptr, false);
      if (!row.is_object()) continue;
      const std::string sku = row.at("sku"), status = row.at("status"), mode = row.at("mode");
      skus.insert(sku);
      for (Count* c : {&counts[row.at("model")][sku], &all})
        ++(status == "accepted" ? c->accepted : status == "planner" ? c->planner : c->ttnn);
      if (status == "accepted") {
        for (const Json& module : row.at("modules"))
          instances.insert(sku + "|" + mode + "|" + module.get<std::string>());
      }
    }
  }
  std::printf("%-16s", "model");
  for (const std::string& sku : skus) std::printf(" %14s", sku.c_str());
  std::printf("\n");
  for (const auto& [model, row] : counts) {
    std::printf("%-16s", model.c_str());
    for (const std::string& sku : skus) {
      const auto found = row.find(sku);
      const Count c = found == row.end() ? Count{} : found->second;
      const std::string cell =
          std::to_string(c.accepted) + "/" + std::to_string(c.planner) + "/" + std::to_string(c.ttnn);
      std::printf(" %14s", cell.c_str());
    }
    std::printf("\n");
  }
  std::printf("runs of a layer in a mode: accepted / refused by the planner / refused by TTNN only\n");
  std::printf(
      "%zu accepted, %zu refused by the planner, %zu refused by TTNN only; %zu distinct module instances "
      "accepted\n",
      all.accepted, all.planner, all.ttnn, instances.size());
  return all.ttnn == 0 ? 0 : 1;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] {
      if (i + 1 >= argc) throw Error(flag + " without a value");
      return std::string(argv[++i]);
    };
    if (flag == "--table") {
      o.tables.assign(argv + i + 1, argv + argc);
      break;
    }
    if (flag == "--sku")
      o.sku = value();
    else if (flag == "--out")
      o.out = value();
    else if (flag == "--precision")
      o.precision = value();
    else if (flag == "--models")
      o.models = value();
    else if (flag == "--only")
      o.only = value();
    else if (flag == "--shard") {
      const std::string text = value();
      if (std::sscanf(text.c_str(), "%zu/%zu", &o.shard, &o.shards) != 2 || o.shards == 0 ||
          o.shard >= o.shards)
        throw Error("the shard \"" + printable(text) + "\" cannot be read", {},
                    "write I/N with I from 0 to N - 1");
    } else
      throw Error("no option " + printable(flag), {}, "see the head of tests/ttnn/sweep.cpp");
  }
  if (o.tables.empty() && (o.sku.empty() || o.out.empty()))
    throw Error("no --sku or no --out", {}, "or --table FILE");
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse(argc, argv);
    if (!options.tables.empty()) return table(options.tables);
    sweep(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
