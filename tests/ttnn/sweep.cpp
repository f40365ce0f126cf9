// ttnn_sweep: every distinct layer of full-size models, through our planner and real TTNN on a mock cluster.
//
//   tools/ttnn/mock SKU ttnn_sweep --sku SKU --out FILE [--precision P] [--models FILE] [--only TEXT]
//   [--shard I/N] ttnn_sweep --table FILE...
//
// A network of one layer, with its embedding, final norm and head, is built on all devices of the SKU with
// weights that are allocated and never read, and runs a prefill of 128 and of 2,048 tokens and a decode step
// of 1 and of 32 users: first by the planner, then, unless that refuses, by TTNN. Then a decoder of three
// layers, among them each of the model's kinds, answers prompts of several lengths through the generator.
// Each run adds one line to FILE; what a line is there for already is skipped, so a sweep that was stopped
// goes on where it was. Only what TTNN refused is run again.
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
#include "ttt/runtime/generator.h"
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

struct Mode {
  std::string name;
  std::function<void(const CausalLM&)> run;
};

Mode step(const char* name, std::int64_t sequences, std::int64_t tokens, std::int64_t context) {
  return {name, [=](const CausalLM& lm) {
            constexpr std::int64_t block_size = 32;
            const std::int64_t width = (context + tokens + block_size - 1) / block_size;
            const auto state =
                lm.allocate({.blocks = width * sequences, .block_size = block_size, .slots = sequences});
            ttt::runtime::uniform_step(lm, *state, sequences, tokens, context, width);
          }};
}
const Mode steps[] = {step("prefill 128", 1, 128, 0), step("prefill 2048", 1, 2048, 0),
                      step("decode 1", 1, 1, 1023), step("decode 32", 32, 1, 1023)};

// Prompts of several lengths at once: chunks from the middle of a block, steps of prefill and decode rows
// together, answers of several tokens.
const Mode generation{"generate", [](const CausalLM& lm) {
                        Generator generator(lm, nullptr,
                                            {.max_batch = 4, .max_step_tokens = 64, .max_context = 256});
                        std::vector<GenerationRequest> requests;
                        for (const std::int32_t length : {1, 100, 37}) {
                          GenerationRequest request;
                          for (std::int32_t i = 0; i < length; ++i) request.prompt_ids.push_back(i);
                          request.sampling.max_new_tokens = 4;
                          request.sampling.ignore_eos = true;
                          requests.push_back(std::move(request));
                        }
                        for (const GenerationResult& result : generator.generate(requests))
                          if (!result.error.empty()) throw Error(result.error);
                      }};

// One network of the sweep and how it is run.
struct Network {
  std::string layer;  // its place among the model's distinct layers; "decoder"
  ModelSpec spec;
  std::span<const Mode> modes;
};

std::vector<Network> networks(const ModelSpec& spec) {
  constexpr std::size_t decoder_layers = 3;
  std::vector<LayerSpec> distinct;
  for (const LayerSpec& layer : spec.layers) {
    if (std::find(distinct.begin(), distinct.end(), layer) == distinct.end()) distinct.push_back(layer);
  }
  std::vector<Network> all;
  for (const LayerSpec& layer : distinct) {
    all.push_back({std::to_string(all.size()), spec, steps});
    all.back().spec.layers = {layer};
  }
  all.push_back({"decoder", spec, {&generation, 1}});
  for (std::size_t i = distinct.size(); i < decoder_layers; ++i) distinct.push_back(distinct.front());
  all.back().spec.layers = distinct;
  return all;
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
    // What TTNN refused is tried again: memory that it keeps of earlier networks may have been in the way.
    if (row.is_object() && row.contains("key") && row.value("status", "") != "ttnn")
      keys.insert(row.at("key").get<std::string>());
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
std::string planner_refuses(const ModelSpec& spec, const Target& target, const Mode& mode) {
  return error_of([&] {
    const auto device = open_device("null", {.mesh = target.mesh, .sku = std::string(target.sku.name)});
    const auto lm = build_on(device, spec, target);
    lm->load_weights();
    mode.run(*lm);
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
    for (const Network& network : networks(spec)) {
      const std::string text = to_json(network.spec, -1);
      if (number++ % o.shards != o.shard) continue;
      std::unique_ptr<CausalLM> lm;
      for (const Mode& mode : network.modes) {
        const std::string key = o.sku + "|" + o.precision + "|" + mode.name + "|" +
                                std::to_string(std::hash<std::string>{}(text));
        if (!known.insert(key).second) continue;
        const auto start = std::chrono::steady_clock::now();
        std::string status = "planner", problem = planner_refuses(network.spec, target, mode);
        if (problem.empty()) {
          problem = error_of([&] {
            if (!lm) {
              lm = build_on(device, network.spec, target);
              lm->load_weights();
            }
            mode.run(*lm);
          });
          status = problem.empty() ? "accepted" : "ttnn";
        }
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
        Json row{{"key", key},        {"model", name},   {"layer", network.layer},
                 {"mode", mode.name}, {"sku", o.sku},    {"mesh", to_string(target.mesh)},
                 {"status", status},  {"text", problem}, {"ms", took.count()}};
        // A decoder's modules are those of its layers.
        const bool counts = status == "accepted" && network.modes.size() > 1;
        row["modules"] = counts ? modules(*lm) : std::set<std::string>{};
        out << row.dump() << std::endl;
        std::printf("%-16s %-8s %-12s %-9s %6.0f ms  %s\n", name.c_str(), network.layer.c_str(),
                    mode.name.c_str(), status.c_str(), took.count(), problem.substr(0, 300).c_str());
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
  std::map<std::string, Json> rows;  // the last of each key
  for (const std::string& file : files) {
    std::ifstream lines(file);
    if (!lines) throw Error("a table's file cannot be read", file);
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line, nullptr, false);
      if (row.is_object()) rows.insert_or_assign(row.at("key").get<std::string>(), row);
    }
  }
  for (const auto& [key, row] : rows) {
    const std::string sku = row.at("sku"), status = row.at("status"), mode = row.at("mode");
    skus.insert(sku);
    for (Count* c : {&counts[row.at("model")][sku], &all})
      ++(status == "accepted" ? c->accepted : status == "planner" ? c->planner : c->ttnn);
    if (status == "accepted") {
      for (const Json& module : row.at("modules"))
        instances.insert(sku + "|" + mode + "|" + module.get<std::string>());
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
