#include "ttt/convert/checkpoint.h"

#include <algorithm>
#include <fstream>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "convert/gguf_config.h"
#include "convert/json.h"
#include "convert/quantised.h"
#include "convert/sources.h"
#include "convert/tiles.h"
#include "tensor/hash.h"
#include "ttt/base/error.h"
#include "ttt/convert/gguf.h"
#include "ttt/convert/safetensors.h"

namespace ttt::inline v2 {

namespace fs = std::filesystem;
using detail::Json;

std::string_view name(CheckpointFormat format) {
  return format == CheckpointFormat::gguf ? "gguf" : "safetensors";
}

namespace {

std::string shown(const fs::path& path) { return printable(path.string(), 400); }

std::string read_text(const fs::path& path, std::size_t limit = detail::json_limit) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error("can not be read", shown(path));
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error || size > limit)
    throw Error("is too large or no file", shown(path),
                "at most " + std::to_string(limit >> 20) + " MB are read");
  std::string text(static_cast<std::size_t>(size), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return text;
}

Json read_json(const fs::path& path) { return detail::parse_json(read_text(path), shown(path)); }

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

[[noreturn]] void refuse_pytorch(const fs::path& file, const fs::path& folder) {
  throw Error("PyTorch weights: such a file runs code when it is opened", shown(file),
              "convert them once with: python -c \"from transformers import AutoModelForCausalLM as M; "
              "M.from_pretrained('" +
                  shown(folder) + "').save_pretrained('" + shown(folder) + "-safetensors')\"");
}

}  // namespace

struct Checkpoint::State {
  CheckpointFormat format = CheckpointFormat::safetensors;
  fs::path path, folder;  // folder: of config.json and the tokenizer
  std::vector<fs::path> files;
  std::vector<std::uint64_t> prints;  // per file
  std::vector<SafetensorsFile> safetensors;
  std::optional<GgufFile> gguf;

  std::vector<CheckpointTensor> tensors;
  std::vector<detail::RawTensor> raw;
  std::unordered_map<std::string_view, std::size_t> raw_index;
  std::unordered_map<std::string, std::size_t> index;
  std::unordered_map<std::string, detail::VirtualTensor> virtuals;
  std::vector<detail::TileHeader> tiles;  // per safetensors file
  std::string precision;

  void open();
  void open_folder();
  void open_gguf(const fs::path&);
  void open_shards(const std::vector<fs::path>&);
  void open_index(const fs::path&);
  void add(const MappedFile* file, std::shared_ptr<const MappedFile> owner, CheckpointTensor info,
           std::span<const std::byte> bytes);
  void finish();
  fs::path beside(const char* name) const { return folder / name; }
  Json json_beside(const char* name) const;
  std::optional<std::string> token_text(const Json& config, const char* key) const;
};

void Checkpoint::State::open() {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw Error("no such file or folder", shown(path));
  if (fs::is_directory(status)) {
    folder = path;
    open_folder();
  } else {
    folder = path.parent_path();
    const std::string file = path.filename().string(), extension = path.extension().string();
    if (extension == ".gguf") {
      open_gguf(path);
    } else if (extension == ".safetensors") {
      open_shards({path});
    } else if (file.ends_with(".index.json")) {
      open_index(path);
    } else if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
      refuse_pytorch(path, folder.empty() ? "." : folder);
    } else {
      std::ifstream in(path, std::ios::binary);
      char magic[4] = {};
      in.read(magic, 4);
      if (std::string_view(magic, 4) != "GGUF")
        throw Error("is no checkpoint", shown(path), "give a Hugging Face folder or a .gguf file");
      open_gguf(path);
    }
  }
  finish();
}

void Checkpoint::State::open_folder() {
  if (is_file(folder / "model.safetensors.index.json"))
    return open_index(folder / "model.safetensors.index.json");
  if (is_file(folder / "model.safetensors")) return open_shards({folder / "model.safetensors"});

  std::vector<fs::path> shards, ggufs, pickles;
  std::error_code error;
  std::size_t seen = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (++seen > 100'000)
      throw Error("more than 100,000 files", shown(folder), "give the model's own folder");
    if (!is_file(entry.path())) continue;
    const std::string file = entry.path().filename().string();
    if (file.ends_with(".safetensors") && !file.starts_with("consolidated") && !file.starts_with("adapter"))
      shards.push_back(entry.path());
    if (file.ends_with(".gguf") && !file.starts_with("mmproj")) ggufs.push_back(entry.path());
    if (file.ends_with(".bin") || file.ends_with(".pth")) pickles.push_back(entry.path());
    if (file.ends_with(".safetensors.index.json") && !file.starts_with("consolidated"))
      return open_index(entry.path());
  }
  if (error) throw Error("can not be listed: " + error.message(), shown(folder));
  for (std::vector<fs::path>* list : {&shards, &ggufs, &pickles}) std::ranges::sort(*list);
  if (!shards.empty()) {
    // model-00001-of-00003.safetensors without an index: the names say that they belong together.
    const bool together = std::ranges::all_of(
        shards, [](const fs::path& p) { return p.filename().string().find("-of-") != std::string::npos; });
    if (shards.size() > 1 && !together)
      throw Error("several .safetensors files and no index", shown(folder),
                  "give the file, or add model.safetensors.index.json");
    return open_shards(shards);
  }
  if (!ggufs.empty()) {
    const bool split = ggufs.front().filename().string().find("-00001-of-") != std::string::npos;
    if (ggufs.size() > 1 && !split)
      throw Error("several .gguf files", shown(folder), "give the file that is meant");
    return open_gguf(ggufs.front());
  }
  if (is_file(folder / "adapter_config.json"))
    throw Error("an adapter without its model", shown(folder),
                "merge it into the model with peft's merge_and_unload() and save that");
  if (std::ranges::any_of(
          pickles, [](const fs::path& p) { return p.filename().string().starts_with("pytorch_model"); }) ||
      is_file(folder / "pytorch_model.bin.index.json") ||
      (!pickles.empty() && !is_file(folder / "config.json")))
    refuse_pytorch(pickles.empty() ? folder : pickles.front(), folder);
  if (!is_file(folder / "config.json"))
    throw Error("holds no checkpoint", shown(folder),
                "a folder needs config.json and *.safetensors, or a .gguf file");
}

void Checkpoint::State::add(const MappedFile* file, std::shared_ptr<const MappedFile> owner,
                            CheckpointTensor info, std::span<const std::byte> bytes) {
  detail::StoredValues values;
  values.owner = std::move(owner);
  values.file = file;
  values.bytes = bytes;
  values.offset = info.offset;
  values.type = info.type;
  values.cols = info.shape.empty() ? 1 : info.shape.back();
  values.rows = 1;
  for (std::size_t i = 0; i + 1 < info.shape.size(); ++i) values.rows *= info.shape[i];
  values.fingerprint =
      detail::Hasher().add("stored").add(prints[info.file]).add(info.name).add(info.offset).value();
  values.name = printable(info.name, 200) + " in " + printable(files[info.file].filename().string());
  raw.push_back({std::move(info), std::move(values)});
}

static std::uint64_t file_print(std::uint64_t header, const MappedFile& file) {
  return detail::Hasher()
      .add(header)
      .add(file.bytes().size())
      .add(static_cast<std::uint64_t>(file.modified()))
      .value();
}

void Checkpoint::State::open_gguf(const fs::path& file) {
  format = CheckpointFormat::gguf;
  gguf = GgufFile::open(file);
  files = gguf->files();
  for (std::uint32_t i = 0; i < files.size(); ++i)
    prints.push_back(file_print(gguf->header_hash() + i, *gguf->file(i)));
  raw.reserve(gguf->tensors().size());
  for (const GgufTensor& t : gguf->tensors()) {
    const auto& owner = gguf->file(t.file);
    add(owner.get(), owner,
        {.name = t.name,
         .shape = t.shape,
         .type = t.type,
         .scheme = {},
         .file = t.file,
         .offset = t.offset,
         .bytes = t.bytes},
        gguf->bytes(t));
  }
}

void Checkpoint::State::open_shards(const std::vector<fs::path>& shards) {
  for (const fs::path& shard : shards) {
    const auto number = static_cast<std::uint32_t>(files.size());
    const SafetensorsFile& file = safetensors.emplace_back(SafetensorsFile::open(shard));
    files.push_back(shard);
    prints.push_back(file_print(file.header_hash(), *file.file()));
    detail::TileHeader& written = tiles.emplace_back();
    if (const auto it = file.metadata().find(std::string(detail::tile_header_key));
        it != file.metadata().end()) {
      written = detail::parse_tile_header(it->second, shown(shard));
      precision = written.precision;
    }
    raw.reserve(raw.size() + file.tensors().size());
    for (const SafetensorsTensor& t : file.tensors()) {
      add(file.file().get(), file.file(),
          {.name = t.name,
           .shape = t.shape,
           .type = t.type,
           .scheme = {},
           .file = number,
           .offset = t.offset,
           .bytes = t.bytes},
          file.bytes(t));
    }
  }
}

void Checkpoint::State::open_index(const fs::path& index_file) {
  const Json json = read_json(index_file);
  const std::string where = shown(index_file);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw Error("has no weight_map", where);
  std::vector<fs::path> shards;
  std::unordered_map<std::string, std::uint32_t> shard_index;
  std::unordered_map<std::string, std::uint32_t> place;
  for (const auto& item : json["weight_map"].items()) {
    if (!item.value().is_string())
      throw Error("is no file name", printable(item.key(), 200) + " in " + where);
    const auto& file = item.value().get_ref<const std::string&>();
    // A plain name in the same folder and nothing else.
    if (file.empty() || file.find('/') != std::string::npos || file.find('\\') != std::string::npos ||
        file.find('\0') != std::string::npos || file == "." || file == ".." ||
        !file.ends_with(".safetensors"))
      throw Error("the file name " + printable(file), where,
                  "an index names .safetensors files of its own folder");
    const auto [it, fresh] = shard_index.try_emplace(file, static_cast<std::uint32_t>(shards.size()));
    if (fresh) {
      const fs::path shard = index_file.parent_path() / file;
      if (!is_file(shard))
        throw Error("a shard is missing", shown(shard), "download all files of the checkpoint");
      shards.push_back(shard);
    }
    place.emplace(item.key(), it->second);
  }
  open_shards(shards);
  // The index decides where a tensor is that several files hold.
  std::erase_if(raw, [&](const detail::RawTensor& t) {
    const auto it = place.find(t.info.name);
    return it != place.end() && it->second != t.info.file;
  });
  std::unordered_set<std::string_view> there;
  for (const detail::RawTensor& t : raw) there.insert(t.info.name);
  for (const auto& [tensor, file] : place) {
    if (!there.contains(tensor))
      throw Error("does not hold " + printable(tensor, 200), shown(shards[file]),
                  "the index and the files belong to different checkpoints");
  }
}

// Tensors that belong together become one; then the list that everybody sees.
void Checkpoint::State::finish() {
  raw_index.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (!raw_index.emplace(raw[i].info.name, i).second)
      throw Error("a tensor in two files", printable(raw[i].info.name, 200) + " in " + shown(path),
                  "remove the file that does not belong to the checkpoint");
  }
  std::unordered_set<std::string> hidden;
  std::unordered_map<std::string, std::string> shown_as;  // part that stands for a virtual tensor -> its name
  for (const detail::RawTensor& t : raw) {
    if (format != CheckpointFormat::safetensors) break;
    const auto& packed = tiles[t.info.file].tensors;
    if (const auto it = packed.find(t.info.name); it != packed.end()) {
      shown_as.emplace(t.info.name, t.info.name);
      virtuals.emplace(t.info.name, detail::read_tiles(t, it->second));
    }
  }
  if (format == CheckpointFormat::safetensors && virtuals.empty()) {
    Json config;
    bool wanted = false;
    const auto looks_packed = [](const detail::RawTensor& t) {
      const std::string& n = t.info.name;
      const bool small = t.info.type == StorageType::u8 || t.info.type == StorageType::i8;
      return n.ends_with(".weight_packed") || (small && n.ends_with(".weight"));
    };
    for (const detail::RawTensor& t : raw) {
      const std::string& n = t.info.name;
      wanted |= t.info.type == StorageType::f8_e4m3 || t.info.type == StorageType::f8_e5m2 ||
                n.ends_with(".qweight") || n.ends_with("_blocks") || looks_packed(t);
    }
    if (wanted && is_file(beside("config.json"))) {
      Json whole = read_json(beside("config.json"));
      for (const char* key : {"quantization_config", "compression_config"}) {
        if (whole.is_object() && whole.contains(key) && whole[key].is_object()) config = whole[key];
      }
      if (config.is_null() && whole.is_object() && whole.contains("text_config") &&
          whole["text_config"].is_object() && whole["text_config"].contains("quantization_config"))
        config = whole["text_config"]["quantization_config"];
    }
    if (wanted) {
      const detail::FindRaw find_raw = [this](std::string_view n) -> const detail::RawTensor* {
        const auto it = raw_index.find(n);
        return it == raw_index.end() ? nullptr : &raw[it->second];
      };
      for (const detail::RawTensor& t : raw) {
        std::optional<detail::VirtualTensor> joined = detail::assemble(t, find_raw, config);
        if (!joined && looks_packed(t) && config.is_object() && config.contains("quant_method")) {
          throw Error(
              "weights packed as " + printable(detail::dump_json(config["quant_method"])),
              printable(t.info.name, 200) + " in " + shown(path),
              "fp8, mxfp4, gptq, awq and compressed-tensors are read; take the checkpoint they were made "
              "of, or save the dequantised model");
        }
        if (!joined) continue;
        hidden.insert(joined->parts.begin(), joined->parts.end());
        shown_as.emplace(t.info.name, joined->info.name);
        virtuals.emplace(joined->info.name, std::move(*joined));
      }
      for (const detail::RawTensor& t : raw) {
        if (!virtuals.empty() && detail::is_runtime_scale(t.info.name)) hidden.insert(t.info.name);
      }
    }
  }
  tensors.reserve(raw.size());
  for (const detail::RawTensor& t : raw) {
    if (const auto it = shown_as.find(t.info.name); it != shown_as.end()) {
      tensors.push_back(virtuals.at(it->second).info);
    } else if (!hidden.contains(t.info.name)) {
      tensors.push_back(t.info);
    }
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
}

Checkpoint Checkpoint::open(const fs::path& path) {
  auto state = std::make_shared<State>();
  state->path = path;
  state->open();
  Checkpoint checkpoint;
  checkpoint.state_ = std::move(state);
  return checkpoint;
}

CheckpointFormat Checkpoint::format() const { return state_->format; }
const fs::path& Checkpoint::path() const { return state_->path; }
const std::vector<fs::path>& Checkpoint::files() const { return state_->files; }
const std::vector<CheckpointTensor>& Checkpoint::tensors() const { return state_->tensors; }

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto it = state_->index.find(std::string(name));
  return it == state_->index.end() ? nullptr : &state_->tensors[it->second];
}

std::vector<NamedShape> Checkpoint::shapes() const {
  std::vector<NamedShape> out;
  out.reserve(state_->tensors.size());
  for (const CheckpointTensor& t : state_->tensors) out.push_back({t.name, t.shape});
  return out;
}

WeightSourcePtr Checkpoint::source(std::string_view name) const {
  if (const auto it = state_->virtuals.find(std::string(name)); it != state_->virtuals.end())
    return it->second.source();
  const auto it = find(name) == nullptr ? state_->raw_index.end() : state_->raw_index.find(name);
  if (it != state_->raw_index.end()) return detail::stored_source(state_->raw[it->second].values);
  std::vector<std::string_view> names;
  for (const CheckpointTensor& t : tensors()) names.push_back(t.name);
  const std::string near = nearest(name, names);
  throw Error("no tensor " + printable(name, 200), shown(path()),
              near.empty() ? "" : "the nearest is " + printable(near, 200));
}

WeightSourcePtr Checkpoint::transposed_source(std::string_view name) const {
  if (const auto it = state_->virtuals.find(std::string(name));
      it != state_->virtuals.end() && it->second.transposed)
    return it->second.transposed();
  const WeightSourcePtr whole = source(name);
  const CheckpointTensor& tensor = *find(name);
  if (tensor.shape.size() < 2) return whole;
  const std::int64_t out = tensor.shape[tensor.shape.size() - 2];
  const std::int64_t experts = out == 0 ? 0 : whole->rows() / out;
  std::vector<WeightSourcePtr> parts;
  for (std::int64_t e = 0; e < experts; ++e)
    parts.push_back(transpose(detail::strided_rows(whole, {e * out, {{out, 1}}})));
  return parts.size() == 1 ? parts[0] : concat_rows(std::move(parts));
}

bool Checkpoint::quantised() const {
  double few = 0, all = 0;
  for (const CheckpointTensor& t : state_->tensors) {
    if (t.shape.size() < 2) continue;
    double values = 1;
    for (std::int64_t extent : t.shape) values *= static_cast<double>(extent);
    const BlockSize block = block_size(t.type);
    const bool narrow = is_quantised(t.type) || !t.scheme.empty() || (block.values == 1 && block.bytes == 1);
    all += values;
    few += narrow ? values : 0;
  }
  return few > all / 2;
}

const std::string& Checkpoint::precision() const { return state_->precision; }

std::uint64_t Checkpoint::fingerprint() const {
  detail::Hasher hash;
  for (std::uint64_t print : state_->prints) hash.add(print);
  return hash.value();
}

// --- config ---

std::string Checkpoint::config_json(std::span<const GgufKey> keys) const {
  if (state_->gguf) return detail::dump_json(detail::gguf_config(*state_->gguf, keys));
  const fs::path file = state_->beside("config.json");
  if (!is_file(file))
    throw Error("no config.json", shown(state_->folder.empty() ? fs::path(".") : state_->folder),
                "put the checkpoint's config.json beside its weights");
  // As strict JSON: files may say NaN and Infinity.
  return detail::dump_json(read_json(file));
}

HfConfig Checkpoint::config(std::span<const GgufKey> keys) const {
  const std::string source =
      state_->gguf ? "the metadata of " + shown(state_->files.front()) : shown(state_->beside("config.json"));
  return HfConfig::parse(config_json(keys), source);
}

std::string Checkpoint::architecture() const {
  return state_->gguf ? state_->gguf->architecture() : config().architecture();
}

std::string Checkpoint::metadata_json() const {
  if (state_->gguf) return detail::dump_json(detail::gguf_metadata(*state_->gguf), 2);
  Json out = Json::object();
  for (const SafetensorsFile& file : state_->safetensors) {
    for (const auto& [key, value] : file.metadata()) out[detail::clean(key)] = detail::clean(value);
  }
  return detail::dump_json(out, 2);
}

// --- text ---

Json Checkpoint::State::json_beside(const char* name) const {
  const fs::path file = beside(name);
  if (!is_file(file)) return Json::object();
  Json json = read_json(file);
  if (!json.is_object()) throw Error("is no JSON object", shown(file));
  return json;
}

bool Checkpoint::has_tokenizer() const {
  if (state_->gguf) {
    const auto model = state_->gguf->text("tokenizer.ggml.model");
    return model && *model != "none" && *model != "no_vocab";
  }
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tekken.json", "spiece.model", "sentencepiece.bpe.model"}) {
    if (is_file(state_->beside(name))) return true;
  }
  std::error_code error;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(state_->folder.empty() ? "." : state_->folder, error)) {
    if (entry.path().extension() == ".tiktoken") return true;
  }
  return false;
}

Tokenizer Checkpoint::tokenizer() const {
  if (!has_tokenizer())
    throw Error("no tokenizer", shown(path()), "put the checkpoint's tokenizer.json beside its config");
  if (state_->gguf) return Tokenizer::from_vocabulary(state_->gguf->vocabulary());
  return Tokenizer::from_file(state_->folder.empty() ? "." : state_->folder);
}

Vocabulary Checkpoint::vocabulary() const {
  if (!state_->gguf) throw Error("no GGUF file", shown(path()), "its tokenizer is in files of its own");
  return state_->gguf->vocabulary();
}

namespace {

// A text, or the one named "default" of a list of {"name", "template"}.
std::optional<std::string> template_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const Json& entry : value) {
    if (entry.is_object() && entry.contains("template") && entry["template"].is_string() &&
        entry.value("name", Json()) == Json("default"))
      return entry["template"].get<std::string>();
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> Checkpoint::chat_template() const {
  if (state_->gguf) return state_->gguf->text("tokenizer.chat_template");
  if (const fs::path file = state_->beside("chat_template.jinja"); is_file(file))
    return read_text(file, std::size_t{4} << 20);
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    const Json json = state_->json_beside(name);
    if (json.contains("chat_template")) {
      if (auto text = template_text(json["chat_template"])) return text;
    }
  }
  return std::nullopt;
}

std::optional<std::string> Checkpoint::State::token_text(const Json& config, const char* key) const {
  if (!config.contains(key)) return std::nullopt;
  const Json& value = config[key];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string())
    return value["content"].get<std::string>();
  return std::nullopt;
}

SpecialTokens Checkpoint::special_tokens() const {
  SpecialTokens tokens;
  if (state_->gguf) {
    if (!has_tokenizer()) return tokens;
    const Vocabulary v = state_->gguf->vocabulary();
    const auto spell = [&](std::optional<std::int32_t> id) -> std::optional<std::string> {
      if (!id || *id < 0 || static_cast<std::size_t>(*id) >= v.tokens.size()) return std::nullopt;
      return v.tokens[static_cast<std::size_t>(*id)];
    };
    tokens.bos = spell(v.bos_id);
    tokens.eos = spell(v.eos_id);
    tokens.unk = spell(v.unknown_id);
    tokens.sep = spell(v.separator_id);
    tokens.pad = spell(v.padding_id);
    tokens.cls = spell(v.cls_id);
    tokens.mask = spell(v.mask_id);
    return tokens;
  }
  for (const char* file : {"special_tokens_map.json", "tokenizer_config.json"}) {  // the latter counts
    const Json json = state_->json_beside(file);
    for (const auto& [key, field] : {std::pair{"bos_token", &tokens.bos},
                                     {"eos_token", &tokens.eos},
                                     {"unk_token", &tokens.unk},
                                     {"sep_token", &tokens.sep},
                                     {"pad_token", &tokens.pad},
                                     {"cls_token", &tokens.cls},
                                     {"mask_token", &tokens.mask}}) {
      if (auto text = state_->token_text(json, key)) *field = std::move(text);
    }
    for (const auto& item : json.items()) {
      static constexpr std::string_view plain[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                   "pad_token", "cls_token", "mask_token"};
      if (!item.key().ends_with("_token") || item.key().starts_with("add_") ||
          std::ranges::find(plain, item.key()) != std::end(plain))
        continue;
      if (auto text = state_->token_text(json, item.key().c_str()))
        tokens.others[item.key()] = *std::move(text);
    }
  }
  return tokens;
}

GenerationDefaults Checkpoint::generation() const {
  GenerationDefaults g;
  const auto add = [&](std::optional<std::int32_t> id) {
    if (id && std::ranges::find(g.eos_ids, *id) == g.eos_ids.end()) g.eos_ids.push_back(*id);
  };
  if (state_->gguf) {
    const GgufFile& file = *state_->gguf;
    if (has_tokenizer()) {
      for (const char* key : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
        const auto id = file.integer(std::string("tokenizer.ggml.") + key);
        if (id && *id >= 0 && *id < INT32_MAX) add(static_cast<std::int32_t>(*id));
      }
    }
    const auto number = [&](const char* key) -> std::optional<float> {
      const auto value = file.number(key);
      return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
    };
    g.temperature = number("general.sampling.temp");
    g.top_p = number("general.sampling.top_p");
    g.min_p = number("general.sampling.min_p");
    g.repetition_penalty = number("general.sampling.penalty_repeat");
    if (const auto k = file.integer("general.sampling.top_k"); k && *k >= 0 && *k < INT32_MAX)
      g.top_k = static_cast<int>(*k);
    return g;
  }
  const auto ids = [&](const HfConfig& config) {
    const std::string json = config.json("eos_token_id");
    const Json value = Json::parse(json);
    if (value.is_null()) return;
    if (value.is_array()) {
      const auto list = config.find<std::vector<int>>("eos_token_id");
      for (int id : *list) add(id);
    } else {
      add(config.find<int>("eos_token_id"));
    }
  };
  if (const fs::path file = state_->beside("generation_config.json"); is_file(file)) {
    const HfConfig config = HfConfig::parse(read_text(file), shown(file));
    ids(config);
    g.temperature = config.find<float>("temperature");
    g.top_p = config.find<float>("top_p");
    g.min_p = config.find<float>("min_p");
    g.repetition_penalty = config.find<float>("repetition_penalty");
    g.top_k = config.find<int>("top_k");
  }
  if (g.eos_ids.empty() && is_file(state_->beside("config.json"))) {
    const HfConfig outer = config();
    ids(outer);
    if (g.eos_ids.empty()) ids(outer.text());
  }
  return g;
}

// --- listings ---

static std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string Checkpoint::table() const {
  std::size_t name_width = 4, shape_width = 5, type_width = 4;
  const auto type = [](const CheckpointTensor& t) {
    return t.scheme.empty() ? std::string(ttt::name(t.type)) : t.scheme;
  };
  for (const CheckpointTensor& t : tensors()) {
    name_width = std::max(name_width, printable(t.name, 200).size());
    shape_width = std::max(shape_width, shape_text(t.shape).size());
    type_width = std::max(type_width, type(t).size());
  }
  std::string out;
  const auto line = [&](std::string name, std::string shape, std::string kind, std::string bytes,
                        const std::string& file) {
    name.resize(std::max(name_width, name.size()), ' ');
    shape.resize(std::max(shape_width, shape.size()), ' ');
    kind.resize(std::max(type_width, kind.size()), ' ');
    bytes.insert(0, bytes.size() < 14 ? 14 - bytes.size() : 0, ' ');
    out += name + "  " + shape + "  " + kind + "  " + bytes + "  " + file + "\n";
  };
  line("name", "shape", "type", "bytes", "file");
  for (const CheckpointTensor& t : tensors())
    line(printable(t.name, 200), shape_text(t.shape), type(t), std::to_string(t.bytes),
         printable(files()[t.file].filename().string()));
  return out;
}

std::string Checkpoint::to_json(int indent) const {
  Json list = Json::array();
  for (const CheckpointTensor& t : tensors()) {
    Json row{{"name", t.name}, {"shape", t.shape}, {"type", ttt::name(t.type)}};
    if (!t.scheme.empty()) row["scheme"] = t.scheme;
    row["file"] = t.file;
    row["offset"] = t.offset;
    row["bytes"] = t.bytes;
    list.push_back(std::move(row));
  }
  Json names = Json::array();
  for (const fs::path& file : files()) names.push_back(file.filename().string());
  return detail::dump_json(
      {{"format", ttt::name(format())}, {"files", std::move(names)}, {"tensors", std::move(list)}}, indent);
}

}  // namespace ttt::inline v2
