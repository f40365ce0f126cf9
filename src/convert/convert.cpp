#include "ttt/convert/convert.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <system_error>

#include "convert/described.h"
#include "convert/hf_files.h"
#include "convert/hf_layout.h"
#include "convert/json.h"
#include "convert/tiles.h"
#include "ttt/base/error.h"
#include "ttt/convert/safetensors.h"
#include "ttt/model/build.h"
#include "ttt/tensor/block_float.h"

namespace ttt::inline v2 {

namespace fs = std::filesystem;
using detail::Json;

namespace {

// A folder beside the final one, which it becomes by commit(); gone otherwise.
class NewFolder {
 public:
  explicit NewFolder(const fs::path& path) : path_(fs::absolute(path).lexically_normal()) {
    if (path_.filename().empty()) path_ = path_.parent_path();
    std::error_code error;
    const fs::file_status status = fs::status(path_, error);
    if (fs::exists(status) && (!fs::is_directory(status) || !fs::is_empty(path_, error)))
      throw Error("is there already", shown(), "give a folder that is new or empty");
    if (!fs::is_directory(path_.parent_path(), error))
      throw Error("no such folder", printable(path_.parent_path().string(), 400), "make it first");
    folder_ = path_;
    folder_ += "." + std::to_string(::getpid()) + ".tmp";
    if (!fs::create_directory(folder_, error)) {
      folder_.clear();
      throw Error("can not be written: " + error.message(), shown(), "choose another folder");
    }
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    if (!folder_.empty()) fs::remove_all(folder_, ignored);
  }

  const fs::path& folder() const { return folder_; }
  std::string shown() const { return printable(path_.string(), 400); }

  void need_room(std::uint64_t bytes) const {
    std::error_code error;
    const fs::space_info space = fs::space(folder_, error);
    if (!error && space.available < bytes)
      throw Error("no room: " + std::to_string(bytes / 1'000'000 + 1) + " MB are needed and " +
                      std::to_string(space.available / 1'000'000) + " MB are free",
                  shown(), "make room, choose another disk or a lower precision");
  }

  void write(const std::string& name, std::string_view text) const {
    std::ofstream file(folder_ / name, std::ios::binary);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.close();
    if (!file) throw Error("can not be written", shown() + "/" + printable(name), "is the disk full?");
  }

  void commit() {
    std::error_code error;
    fs::rename(folder_, path_, error);  // over an empty folder, too
    if (error) throw Error("can not be written: " + error.message(), shown(), "choose another folder");
    folder_.clear();
  }

 private:
  fs::path path_, folder_;
};

// The dtypes in which the modules of the network bind each slot; several where a module binds values of its
// own that it makes of the slot's.
using BoundDtypes = std::map<std::string, std::set<DataType>, std::less<>>;

BoundDtypes bound_dtypes(const detail::Described& d, const Target& target, std::span<const WeightSlot> slots,
                         const WeightProvider& provide) {
  const Home home{
      .device = open_device("null", {}), .cache = {}, .bound = std::make_shared<std::vector<LazyWeight>>()};
  const auto model = build(d.spec, provide, target, home, d.found.modules());
  std::map<std::string_view, const WeightSlot*> by_name;
  for (const WeightSlot& slot : slots) by_name[slot.name] = &slot;
  if (d.spec.tied_embeddings) by_name["lm_head"] = by_name.at("embed");

  BoundDtypes dtypes;
  for (const LazyWeight& weight : *home.bound) {
    // Fused weights have the names of their parts, joined by '+'.
    std::vector<const WeightSlot*> parts;
    std::vector<LazyWeight> sources;
    for (std::string_view names = weight.name(); !names.empty();) {
      const std::size_t end = std::min(names.find('+'), names.size());
      if (const auto it = by_name.find(names.substr(0, end)); it != by_name.end()) {
        parts.push_back(it->second);
        const LazyWeight part = provide(*it->second);
        sources.push_back(weight.role() == WeightRole::experts ? part.experts(it->second->experts) : part);
      }
      names.remove_prefix(std::min(end + 1, names.size()));
    }
    if (parts.empty()) continue;
    const bool own = LazyWeight::concat(sources).source()->fingerprint() == weight.source()->fingerprint();
    const std::int64_t matrices = weight.role() == WeightRole::experts ? weight.spec().experts : 1;
    std::int64_t begin = 0;  // of a part's outputs among those of the whole
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::int64_t end = begin + sources[i].rows() / matrices;
      // Blocks run along the outputs; one that parts share is of neither.
      const bool cut = begin % face_size != 0 || (i + 1 < parts.size() && end % face_size != 0);
      std::set<DataType>& bound = dtypes[parts[i]->name];
      bound.insert(weight.spec().dtype);
      if (!own || cut) bound.insert({DataType::f32, DataType::bf16});
      begin = end;
    }
  }
  return dtypes;
}

DataType stored_dtype(const TensorUse& use, const BoundDtypes& dtypes, const WeightSource& source,
                      DataType activations, bool vector) {
  std::set<DataType> wanted;
  for (const std::string& slot : use.slots) {
    if (const auto it = dtypes.find(slot); it != dtypes.end())
      wanted.insert(it->second.begin(), it->second.end());
  }
  const bool one = wanted.size() == 1;
  if (one && is_block_float(*wanted.begin()) && use.output_axis != 0) return *wanted.begin();
  if (one && *wanted.begin() == DataType::bf16 && !use.changed) return DataType::bf16;
  // Vectors are computed with in float32 but most are bfloat16 values.
  if (one && *wanted.begin() == DataType::f32 && !(vector && activations == DataType::bf16))
    return DataType::f32;
  return source.exact_in(DataType::bf16) ? DataType::bf16 : DataType::f32;
}

SafetensorsEntry entry_of(const detail::HfTensor& tensor, DataType dtype, int output_axis,
                          const std::function<void(std::uint64_t)>& wrote) {
  SafetensorsEntry entry{.name = tensor.name, .shape = tensor.shape};
  const WeightSourcePtr source = tensor.source;
  if (is_block_float(dtype)) {
    const detail::TileInfo info{.dtype = dtype, .shape = tensor.shape, .output_axis = output_axis};
    entry.type = StorageType::u8;
    entry.shape = detail::stored_shape(info);
    entry.write = [=](const auto& sink) {
      detail::write_tiles(*source, info, [&](std::span<const std::byte> bytes) {
        sink(bytes);
        wrote(bytes.size());
      });
      source->release();
    };
    return entry;
  }
  entry.type = dtype == DataType::f32 ? StorageType::f32 : StorageType::bf16;
  entry.write = [source, dtype, wrote](const auto& sink) {
    const std::int64_t rows = source->rows(), cols = source->cols();
    const std::int64_t step = std::max<std::int64_t>(1, (1 << 18) / std::max<std::int64_t>(cols, 1));
    std::vector<float> values;
    std::vector<BFloat16> halves;
    for (std::int64_t r = 0; r < rows; r += step) {
      const std::int64_t n = std::min(step, rows - r);
      values.resize(static_cast<std::size_t>(n * cols));
      source->read(r, n, values.data());
      if (dtype == DataType::f32) {
        sink(std::as_bytes(std::span(values)));
      } else {
        halves.resize(values.size());
        std::ranges::transform(values, halves.begin(), [](float x) { return BFloat16(x); });
        sink(std::as_bytes(std::span(halves)));
      }
      wrote(values.size() * element_size(dtype));
    }
    source->release();
  };
  return entry;
}

// model.safetensors, or several files and their index.
std::vector<std::string> write_weights(const NewFolder& out, const std::vector<SafetensorsEntry>& entries,
                                       const detail::TileHeader& header, std::uint64_t shard_bytes) {
  const auto bytes = [](const SafetensorsEntry& entry) {
    std::uint64_t n = static_cast<std::uint64_t>(block_size(entry.type).bytes);
    for (const std::int64_t extent : entry.shape) n *= static_cast<std::uint64_t>(extent);
    return n;
  };
  std::vector<std::pair<std::size_t, std::size_t>> shards;  // of entries [first, second)
  std::uint64_t total = 0, filled = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::uint64_t n = bytes(entries[i]);
    if (shards.empty() || filled + n > shard_bytes) {
      shards.emplace_back(i, i);
      filled = 0;
    }
    shards.back().second = i + 1;
    filled += n;
    total += n;
  }
  std::vector<std::string> files;
  Json index = Json::object();
  for (std::size_t s = 0; s < shards.size(); ++s) {
    char name[64] = "model.safetensors";
    if (shards.size() > 1)
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards.size());
    const std::span part = std::span(entries).subspan(shards[s].first, shards[s].second - shards[s].first);
    detail::TileHeader own{.precision = header.precision};
    for (const SafetensorsEntry& entry : part) {
      index[entry.name] = name;
      if (const auto it = header.tensors.find(entry.name); it != header.tensors.end())
        own.tensors.insert(*it);
    }
    write_safetensors(out.folder() / name, part,
                      {{"format", "pt"}, {std::string(detail::tile_header_key), dump_tile_header(own)}});
    files.emplace_back(name);
  }
  if (shards.size() > 1) {
    out.write("model.safetensors.index.json",
              detail::dump_json({{"metadata", {{"total_size", total}}}, {"weight_map", index}}, 2));
    files.emplace_back("model.safetensors.index.json");
  }
  return files;
}

}  // namespace

ConvertResult convert_checkpoint(const fs::path& path, const fs::path& out_path,
                                 const ConvertOptions& options) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  const std::vector<NamedShape> shapes = checkpoint.shapes();
  if (shapes.empty()) throw Error("no weights", printable(path.string(), 400), "give a whole checkpoint");
  const detail::Described d = detail::describe(checkpoint, {.model_libraries = options.model_libraries});
  LoadOptions load_options;
  load_options.precision = options.precision;
  const Target target = detail::make_target(checkpoint, d, load_options);
  const std::vector<WeightSlot> slots = weight_slots(d.spec);
  const Binding binding = bind_weights(d.weights, shapes, slots);
  const auto source_of = [&](const WeightSlot& slot) { return binding.source(slot.name, checkpoint); };

  // The tensors of the folder, and what the network makes of them.
  Json config = d.config;
  std::vector<detail::HfTensor> tensors;
  Binding written = binding;
  if (d.found.gguf != nullptr) {
    config = detail::hf_config_of_gguf(checkpoint, d, target);
    const detail::Described again = detail::describe(d.found, config, "the converted config", "");
    if (again.spec != d.spec)
      throw Error("its Hugging Face config would describe another network", printable(path.string(), 400),
                  "convert the model's Hugging Face checkpoint");
    tensors = detail::hf_tensors(again.weights, slots, source_of);
    std::vector<NamedShape> names;
    for (const detail::HfTensor& t : tensors) names.push_back({t.name, t.shape});
    written = bind_weights(again.weights, names, slots);
  } else {
    for (const NamedShape& t : shapes) tensors.push_back({t.name, t.shape, checkpoint.source(t.name)});
    detail::set_run_dtype(config, target);
  }
  const std::vector<TensorUse> uses = written.uses();
  const auto dtypes = bound_dtypes(d, target, slots, [&](const WeightSlot& slot) -> LazyWeight {
    WeightSourcePtr source = source_of(slot);
    return source ? LazyWeight(std::move(source), slot.role, slot.name) : LazyWeight{};
  });

  NewFolder out(out_path);
  ConvertResult result{.architecture = config.at("architectures").at(0).get<std::string>(),
                       .family = d.found.family->name,
                       .precision = target.precision};
  detail::TileHeader header{.precision = target.precision};
  std::vector<SafetensorsEntry> entries;
  std::uint64_t done = 0;
  const auto wrote = [&](std::uint64_t bytes) {
    done += bytes;
    if (options.progress && !options.progress(done, result.bytes))
      throw Error("interrupted", out.shown(), "nothing was written");
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (uses[i].slots.empty()) continue;  // buffers, other towers: no part of the network
    const detail::HfTensor& tensor = tensors[i];
    const bool vector = tensor.shape.size() < 2;
    const DataType dtype = stored_dtype(uses[i], dtypes, *tensor.source, target.activation_dtype(), vector);
    if (is_block_float(dtype))
      header.tensors[tensor.name] = {
          .dtype = dtype, .shape = tensor.shape, .output_axis = uses[i].output_axis};
    entries.push_back(entry_of(tensor, dtype, uses[i].output_axis, wrote));
    std::uint64_t bytes = static_cast<std::uint64_t>(block_size(entries.back().type).bytes);
    for (const std::int64_t extent : entries.back().shape) bytes *= static_cast<std::uint64_t>(extent);
    result.bytes += bytes;
  }
  result.tensors = entries.size();
  out.need_room(result.bytes);
  out.write("config.json", detail::dump_json(config, 2) + "\n");
  result.files = detail::write_text_files(
      checkpoint, out.folder(),
      [&](const std::string& name, std::string_view text) { out.write(name, text); });
  result.files.insert(result.files.begin(), "config.json");
  for (std::string& name : write_weights(out, entries, header, options.shard_bytes))
    result.files.push_back(std::move(name));
  out.commit();
  return result;
}

}  // namespace ttt::inline v2
