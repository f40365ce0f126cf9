#include <fnmatch.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <vector>

#include "bindings.h"
#include "ttt/base/error.h"
#include "ttt/debug/tap.h"

namespace ttt_python {

namespace {

using Unlocked = nb::call_guard<nb::gil_scoped_release>;

// ---------------------------------------------------------------- the step

using Ints = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::span<const std::int32_t> view(const Ints& a) { return {a.data(), a.size()}; }

// Holds the arrays; nothing is copied.
struct Batch {
  Ints tokens, row_begin, context;
  Table block_tables;
  Ints slots, logit_rows;

  ttt::Batch batch() const {
    return {.tokens = view(tokens),
            .row_begin = view(row_begin),
            .context = view(context),
            .block_tables = {block_tables.data(), block_tables.size()},
            .table_width = static_cast<std::int32_t>(block_tables.shape(1)),
            .slots = view(slots),
            .logit_rows = view(logit_rows)};
  }
};

struct State {
  ModelPtr keep;
  std::unique_ptr<ttt::State> state;
};

nb::ndarray<nb::numpy, float> step(const Model& model, const Batch& batch, State& state) {
  if (state.keep != model.loaded)
    throw ttt::Error("the state belongs to another model", "step",
                     "use the state that allocate() of this model gave");
  struct Logits {
    ModelPtr keep;  // the device outlives its tensors
    ttt::StepOutput output;
  };
  auto logits = std::make_unique<Logits>(Logits{model.loaded, {}});
  {
    const ttt::Batch rows = batch.batch();
    const nb::gil_scoped_release unlocked;
    logits->output = model.network().step(rows, *state.state);
  }
  float* data = logits->output.logits.data();
  const auto n = static_cast<std::size_t>(logits->output.rows),
             vocab = static_cast<std::size_t>(logits->output.vocab);
  return numpy_array(data, {n, vocab}, std::move(logits));
}

// ---------------------------------------------------------------- tensors and taps

struct Tensor {
  ModelPtr keep;  // the device outlives its tensors
  ttt::Tensor tensor;
};

nb::dlpack::dtype dlpack_type(ttt::DataType type) {
  using Code = nb::dlpack::dtype_code;
  const auto make = [](Code code, int bits) {
    return nb::dlpack::dtype{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits), 1};
  };
  switch (type) {
    case ttt::DataType::f32:
      return make(Code::Float, 32);
    case ttt::DataType::bf16:
      return make(Code::Bfloat, 16);
    case ttt::DataType::i32:
      return make(Code::Int, 32);
    case ttt::DataType::u32:
      return make(Code::UInt, 32);
    case ttt::DataType::u16:
      return make(Code::UInt, 16);
    case ttt::DataType::u8:
      return make(Code::UInt, 8);
    default:
      throw ttt::Error("block formats have no elements that others could address", std::string(name(type)),
                       "use numpy(), which converts");
  }
}

std::vector<std::size_t> shape_of(const ttt::Tensor& t) {
  std::vector<std::size_t> shape;
  for (int i = 0; i < t.shape().rank(); ++i) shape.push_back(static_cast<std::size_t>(t.dim(i)));
  return shape;
}

// The tensor's own memory; null where the processor can not address it.
std::byte* memory_of(const ttt::Tensor& t) {
  return ttt::element_size(t.dtype()) == 0 ? nullptr : t.buffer().data();
}

nb::ndarray<> share(const Tensor& self) {
  const ttt::Tensor& t = self.tensor;
  const nb::dlpack::dtype type = dlpack_type(t.dtype());
  std::byte* base = memory_of(t);
  if (base == nullptr)
    throw ttt::Error("the tensor's memory is not addressable", std::string(t.device().name()),
                     "use numpy(), which copies");
  std::vector<std::int64_t> strides;
  for (int i = 0; i < t.shape().rank(); ++i) strides.push_back(t.strides()[i]);
  auto owner = std::make_unique<Tensor>(self);
  nb::capsule keep(owner.get(), [](void* p) noexcept { delete static_cast<Tensor*>(p); });
  (void)owner.release();
  const std::vector<std::size_t> shape = shape_of(t);
  return nb::ndarray<>(base + static_cast<std::size_t>(t.offset()) * ttt::element_size(t.dtype()),
                       shape.size(), shape.data(), keep, strides.data(), type, nb::device::cpu::value);
}

nb::object to_numpy(const Tensor& self) {
  const ttt::Tensor& t = self.tensor;
  if (memory_of(t) != nullptr && t.dtype() != ttt::DataType::bf16)
    return nb::cast(nb::ndarray<nb::numpy>(share(self)), nb::rv_policy::reference);
  auto values = std::make_unique<std::vector<float>>();
  {
    const nb::gil_scoped_release unlocked;
    *values = ttt::to_host(t);
  }
  float* data = values->data();
  const std::vector<std::size_t> shape = shape_of(t);
  nb::capsule keep(values.get(), [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  (void)values.release();
  return nb::cast(nb::ndarray<nb::numpy, float>(data, shape.size(), shape.data(), keep));
}

// Collects what the network's taps show while it listens.
class Taps {
 public:
  Taps(ModelPtr model, std::string pattern) : model_(std::move(model)), pattern_(std::move(pattern)) {}

  void start() {
    scope_.emplace([this](const ttt::Tensor& x, std::string_view name, int layer) {
      std::string key = layer < 0 ? std::string(name) : "layers." + std::to_string(layer);
      if (layer >= 0 && !name.empty()) key += "." + std::string(name);
      if (::fnmatch(pattern_.c_str(), key.c_str(), 0) != 0) return;
      const std::lock_guard lock(mutex_);
      rows_.emplace_back(std::move(key), x);
    });
  }
  void stop() { scope_.reset(); }

  std::vector<std::string> keys() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> keys;
    for (const auto& [key, tensor] : rows_) {
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
    }
    return keys;
  }
  std::vector<Tensor> all(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    std::vector<Tensor> found;
    for (const auto& [name, tensor] : rows_) {
      if (name == key) found.push_back({model_, tensor});
    }
    return found;
  }
  Tensor last(const std::string& key) const {
    std::vector<Tensor> found = all(key);
    if (found.empty()) throw nb::key_error(key.c_str());
    return found.back();
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    rows_.clear();
  }

 private:
  ModelPtr model_;
  std::string pattern_;
  mutable std::mutex mutex_;
  std::vector<std::pair<std::string, ttt::Tensor>> rows_;
  std::optional<ttt::debug::TapScope> scope_;
};

// ---------------------------------------------------------------- loading

ttt::LoadOptions load_options(const std::string& backend, const std::string& sku, const std::string& mesh,
                              const std::string& precision,
                              const std::optional<std::filesystem::path>& overrides, int threads,
                              bool deterministic, const std::optional<std::filesystem::path>& cache,
                              std::vector<std::filesystem::path> model_libraries) {
  ttt::LoadOptions options;
  options.backend = backend, options.sku = sku, options.precision = precision;
  if (!mesh.empty()) options.mesh = ttt::parse_mesh(mesh);
  options.overrides = overrides.value_or("");
  options.threads = threads, options.deterministic = deterministic;
  options.cache = cache;
  options.model_libraries = std::move(model_libraries);
  return options;
}

void load(Model* self, const std::filesystem::path& path, const ttt::ModelSpec* spec,
          const ttt::WeightMap* weight_map, const std::string& backend, const std::string& sku,
          const std::string& mesh, const std::string& precision,
          const std::optional<std::filesystem::path>& overrides, int threads, bool deterministic,
          const std::optional<std::filesystem::path>& cache,
          std::vector<std::filesystem::path> model_libraries) {
  const ttt::LoadOptions options = load_options(backend, sku, mesh, precision, overrides, threads,
                                                deterministic, cache, std::move(model_libraries));
  if ((spec == nullptr) != (weight_map == nullptr))
    throw ttt::Error("spec and weight_map go together", "load", "give both, or neither");
  auto loaded = spec != nullptr ? ttt::load(path, *spec, *weight_map, options) : ttt::load(path, options);
  new (self) Model{std::make_shared<ttt::LoadedModel>(std::move(loaded))};
}

void load_weights(const Model& model, const std::function<void(std::size_t, std::size_t)>& progress) {
  const nb::gil_scoped_release unlocked;
  model.network().load_weights([&](std::size_t done, std::size_t total) {
    const nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (progress) progress(done, total);
  });
}

void bind_descriptions(nb::module_& m) {
  nb::class_<ttt::ModelSpec>(m, "ModelSpec", "What a network computes, as data (docs/add_a_model.md).")
      .def(
          "__init__",
          [](ttt::ModelSpec* self, const nb::object& json) {
            new (self) ttt::ModelSpec(ttt::parse_spec(json_text(json)));
          },
          nb::arg("json"), nb::sig("def __init__(self, json: dict | str) -> None"),
          "From the JSON of `ttt inspect spec`, as text or as the objects it stands for.")
      .def(
          "to_json", [](const ttt::ModelSpec& s, int indent) { return ttt::to_json(s, indent); },
          nb::arg("indent") = 2)
      .def(
          "to_dict", [](const ttt::ModelSpec& s) { return parse_json(ttt::to_json(s, -1)); },
          nb::sig("def to_dict(self) -> dict"),
          "The same as objects, to be changed and given to ModelSpec() again.")
      .def_ro("vocab", &ttt::ModelSpec::vocab)
      .def_ro("dim", &ttt::ModelSpec::dim)
      .def_ro("max_positions", &ttt::ModelSpec::max_positions)
      .def_prop_ro(
          "layers", [](const ttt::ModelSpec& s) { return s.layers.size(); }, "Number of layers.")
      .def(
          "validate", [](const ttt::ModelSpec& s) { ttt::validate(s); },
          "Error names the field that is wrong.")
      .def(
          "weight_slots",
          [](const ttt::ModelSpec& s) {
            nb::dict slots;
            for (const ttt::WeightSlot& slot : ttt::weight_slots(s))
              slots[slot.name.c_str()] = nb::make_tuple(slot.rows, slot.cols);
            return slots;
          },
          nb::sig("def weight_slots(self) -> dict[str, tuple[int, int]]"),
          "Every weight of the network: name and [rows, cols].")
      .def("__eq__", [](const ttt::ModelSpec& a, const nb::object& b) {
        return nb::isinstance<ttt::ModelSpec>(b) && a == nb::cast<const ttt::ModelSpec&>(b);
      });

  using ttt::WeightMap;
  constexpr auto same = nb::rv_policy::reference_internal;
  nb::class_<WeightMap>(
      m, "WeightMap",
      "How tensors of a checkpoint become weights of a network: declared operations on names.")
      .def(nb::init<>())
      .def_static(
          "from_json", [](const nb::object& json) { return WeightMap::from_json(json_text(json)); },
          nb::arg("json"), nb::sig("def from_json(json: dict | str) -> WeightMap"))
      .def_static("hf_decoder_names", &ttt::hf_decoder_names,
                  "The names that most Hugging Face decoders share.")
      .def_static("hf_moe_names", &ttt::hf_moe_names, "What mixtures of experts mostly add.")
      .def_static("gguf_decoder_names", &ttt::gguf_decoder_names, "The names of GGUF decoders.")
      .def("to_json", &WeightMap::to_json, nb::arg("indent") = 2)
      .def("strip", &WeightMap::strip, nb::arg("prefix"), same)
      .def("layers", &WeightMap::layers, nb::arg("prefix"), same)
      .def("transpose", &WeightMap::transpose, nb::arg("pattern"), same)
      .def("rename", nb::overload_cast<std::string_view, std::string_view>(&WeightMap::rename),
           nb::arg("from_"), nb::arg("to"), same)
      .def(
          "split",
          [](WeightMap& map, std::string_view from, std::vector<std::string> to, std::int64_t groups,
             bool interleaved, std::vector<std::int64_t> sizes) -> WeightMap& {
            return map.split(from, std::move(to),
                             {.groups = groups, .interleaved = interleaved, .sizes = std::move(sizes)});
          },
          nb::arg("from_"), nb::arg("to"), nb::kw_only(), nb::arg("groups") = 1,
          nb::arg("interleaved") = false, nb::arg("sizes") = std::vector<std::int64_t>{}, same)
      .def("stack", &WeightMap::stack, nb::arg("from_"), nb::arg("to"), same)
      .def("concat", &WeightMap::concat, nb::arg("from_"), nb::arg("to"), same)
      .def("slice", &WeightMap::slice, nb::arg("from_"), nb::arg("to"), nb::arg("begin"), nb::arg("count"),
           same)
      .def("ignore", &WeightMap::ignore, nb::arg("pattern"), same)
      .def(
          "add",
          [](WeightMap& map, std::string_view slots, float offset) -> WeightMap& {
            return map.apply(slots, ttt::add(offset));
          },
          nb::arg("slot_pattern"), nb::arg("offset"), same, "Adds a number to every value of the slots.")
      .def(
          "multiply",
          [](WeightMap& map, std::string_view slots, float scale) -> WeightMap& {
            return map.apply(slots, ttt::multiply(scale));
          },
          nb::arg("slot_pattern"), nb::arg("scale"), same, "Multiplies every value of the slots.")
      .def("permute", &WeightMap::permute, nb::arg("slot_pattern"), nb::arg("heads"), same)
      .def("alias", &WeightMap::alias, nb::arg("slot"), nb::arg("of"), same)
      .def("optional", &WeightMap::optional, nb::arg("slot_pattern"), same)
      .def("surplus", &WeightMap::surplus, nb::arg("slot_pattern"), same)
      .def("append", &WeightMap::append, nb::arg("other"), same)
      .def("__eq__", [](const WeightMap& a, const nb::object& b) {
        return nb::isinstance<WeightMap>(b) && a == nb::cast<const WeightMap&>(b);
      });

  nb::class_<ttt::Description>(m, "Description", "Spec and weight map of a checkpoint; no weight was read.")
      .def_ro("spec", &ttt::Description::spec)
      .def_prop_ro("weight_map",
                   [](const ttt::Description& d) { return WeightMap::from_json(d.weight_map_json); })
      .def_ro("architecture", &ttt::Description::architecture)
      .def_ro("family", &ttt::Description::family)
      .def_ro("library", &ttt::Description::library)
      .def_ro("unread_keys", &ttt::Description::unread_keys);
  m.def(
      "describe",
      [](const std::filesystem::path& path, std::vector<std::filesystem::path> libraries) {
        ttt::LoadOptions options;
        options.model_libraries = std::move(libraries);
        return ttt::describe(path, options);
      },
      nb::arg("path"), nb::kw_only(), nb::arg("model_libraries") = std::vector<std::filesystem::path>{},
      Unlocked());
  m.def(
      "families",
      [](const std::vector<std::filesystem::path>& libraries) {
        nb::list rows;
        for (const ttt::FamilyInfo& family : ttt::families(libraries)) {
          nb::dict row;
          row["name"] = family.name, row["architectures"] = family.architectures, row["gguf"] = family.gguf;
          row["library"] = family.library;
          rows.append(row);
        }
        return rows;
      },
      nb::arg("model_libraries") = std::vector<std::filesystem::path>{},
      nb::sig(
          "def families(model_libraries: collections.abc.Sequence[str | os.PathLike] = ()) -> list[dict]"));
}

void bind_step(nb::module_& m) {
  nb::class_<Batch>(
      m, "Batch",
      "The rows of one step: int32 numpy arrays that are used where they lie.\n\n"
      "tokens [total], row_begin [sequences + 1], context [sequences], block_tables [sequences, width] (-1 "
      "beyond\n"
      "the last block), slots [sequences], logit_rows [wanted] (indices into tokens, ascending).")
      .def(
          "__init__",
          [](Batch* self, Ints tokens, Ints row_begin, Ints context, Table tables, Ints slots,
             Ints logit_rows) {
            new (self) Batch{std::move(tokens), std::move(row_begin), std::move(context),
                             std::move(tables), std::move(slots),     std::move(logit_rows)};
          },
          nb::kw_only(), nb::arg("tokens"), nb::arg("row_begin"), nb::arg("context"), nb::arg("block_tables"),
          nb::arg("slots"), nb::arg("logit_rows"))
      .def_prop_ro("sequences", [](const Batch& b) { return b.context.size(); });
  nb::class_<State>(m, "State",
                    "KV caches and recurrent state of all sequences; the caller owns block tables and slots.")
      .def_prop_ro("blocks", [](const State& s) { return s.state->blocks; })
      .def_prop_ro("block_size", [](const State& s) { return s.state->block_size; })
      .def_prop_ro("slots", [](const State& s) { return s.state->slots; });

  nb::class_<Tensor>(
      m, "Tensor",
      "A tensor of the model's device. numpy.from_dlpack and torch.from_dlpack share its memory.")
      .def_prop_ro(
          "shape", [](const Tensor& t) { return nb::tuple(nb::cast(shape_of(t.tensor))); },
          nb::sig("def shape(self) -> tuple[int, ...]"))
      .def_prop_ro(
          "dtype", [](const Tensor& t) { return std::string(name(t.tensor.dtype())); },
          "\"f32\", \"bf16\", ...")
      .def(
          "__dlpack__",
          [](const Tensor& t, const nb::kwargs& kwargs) -> nb::object {
            const bool copy =
                kwargs.contains("copy") && nb::cast<nb::object>(kwargs["copy"]).is(nb::handle(Py_True));
            if (copy) return to_numpy(t).attr("copy")().attr("__dlpack__")();
            return nb::cast(share(t), nb::rv_policy::reference);
          },
          nb::sig("def __dlpack__(self, **kwargs) -> object"))
      .def(
          "__dlpack_device__", [](const Tensor&) { return nb::make_tuple(1, 0); },
          nb::sig("def __dlpack_device__(self) -> tuple[int, int]"))
      .def("numpy", &to_numpy, nb::sig("def numpy(self) -> numpy.ndarray"),
           "The values: f32 and integers without a copy; bf16, which numpy lacks, and what is on a device as "
           "a float32 copy.");

  nb::class_<Taps>(m, "Taps",
                   "Intermediates of a model while the `with` block lasts, by name as layers.3.attn.q.")
      .def(
          "__enter__", [](Taps& taps) -> Taps& { return taps.start(), taps; },
          nb::rv_policy::reference_internal)
      .def(
          "__exit__", [](Taps& taps, const nb::args&) { taps.stop(); },
          nb::sig("def __exit__(self, *args: object) -> None"))
      .def("keys", &Taps::keys, "Names in the order of their first appearance.")
      .def(
          "__iter__", [](const Taps& taps) { return nb::iter(nb::cast(taps.keys())); },
          nb::sig("def __iter__(self) -> collections.abc.Iterator[str]"))
      .def("__len__", [](const Taps& taps) { return taps.keys().size(); })
      .def("__contains__", [](const Taps& taps, const std::string& key) { return !taps.all(key).empty(); })
      .def("__getitem__", &Taps::last, nb::arg("key"), "The latest tensor of that name.")
      .def("all", &Taps::all, nb::arg("key"), "All tensors of that name, one per step.")
      .def("clear", &Taps::clear);
}

}  // namespace

void bind_model(nb::module_& m) {
  bind_descriptions(m);
  bind_step(m);

  nb::class_<ttt::Capabilities>(m, "Capabilities", "What a driver may do with a model.")
      .def_ro("prefix_reuse", &ttt::Capabilities::prefix_reuse)
      .def_ro("speculation", &ttt::Capabilities::speculation)
      .def_ro("chunked_prefill", &ttt::Capabilities::chunked_prefill)
      .def_ro("mixed_step", &ttt::Capabilities::mixed_step);
  nb::class_<ttt::KvLayerSpec>(m, "KvLayerSpec", "What one layer's KV cache holds.")
      .def_ro("layer", &ttt::KvLayerSpec::layer)
      .def_ro("kv_heads", &ttt::KvLayerSpec::kv_heads)
      .def_ro("head_dim", &ttt::KvLayerSpec::head_dim)
      .def_ro("v_head_dim", &ttt::KvLayerSpec::v_head_dim)
      .def_ro("window", &ttt::KvLayerSpec::window)
      .def_prop_ro("dtype", [](const ttt::KvLayerSpec& k) { return std::string(name(k.dtype)); })
      .def_prop_ro("bytes_per_position", &ttt::KvLayerSpec::bytes_per_position);

  nb::class_<Model>(m, "CausalLM", "A model on a device: the ragged, paged step, and what stands around it.")
      .def("__init__", &load, nb::arg("path"), nb::kw_only(), nb::arg("spec") = nb::none(),
           nb::arg("weight_map") = nb::none(), nb::arg("backend") = "cpu", nb::arg("sku") = "",
           nb::arg("mesh") = "", nb::arg("precision") = "", nb::arg("overrides") = nb::none(),
           nb::arg("threads") = 0, nb::arg("deterministic") = false, nb::arg("cache") = nb::none(),
           nb::arg("model_libraries") = std::vector<std::filesystem::path>{}, Unlocked())
      .def(
          "allocate",
          [](const Model& model, std::int64_t blocks, std::int64_t block_size, std::int64_t slots) {
            return State{model.loaded, model.network().allocate(
                                           {.blocks = blocks, .block_size = block_size, .slots = slots})};
          },
          nb::kw_only(), nb::arg("blocks"), nb::arg("block_size") = 32, nb::arg("slots") = 1, Unlocked(),
          "Memory for KV blocks of block_size positions and for `slots` sequences.")
      .def("step", &step, nb::arg("batch"), nb::arg("state"),
           nb::sig("def step(self, batch: Batch, state: State) -> numpy.ndarray"),
           "Runs the rows and returns float32 logits [len(logit_rows), vocab]. The GIL is released; one step "
           "per state at a time.")
      .def("load_weights", &load_weights, nb::arg("progress") = nb::none(),
           nb::sig("def load_weights(self, progress: collections.abc.Callable[[int, int], None] | None = "
                   "None) -> None"),
           "Converts every weight now instead of at first use. progress(done, total) in bytes.")
      .def(
          "taps",
          [](const Model& model, std::string pattern) { return new Taps(model.loaded, std::move(pattern)); },
          nb::arg("pattern") = "*", nb::rv_policy::take_ownership,
          "Collects intermediates whose names match: with model.taps(\"layers.0.*\") as taps: ...")
      .def_prop_ro("spec", [](const Model& model) { return model.network().spec(); })
      .def_prop_ro(
          "plan", [](const Model& model) { return parse_json(model.network().plan_json()); },
          nb::sig("def plan(self) -> dict"),
          "Everything that was decided: modules, dtypes, configs, and which row decided what.")
      .def_prop_ro("capabilities", [](const Model& model) { return model.network().capabilities(); })
      .def_prop_ro("kv_layers", [](const Model& model) { return model.network().kv_layers(); })
      .def_prop_ro("weight_bytes", [](const Model& model) { return model.network().weight_bytes(); })
      .def_prop_ro("precision", [](const Model& model) { return model.network().target().precision; })
      .def_prop_ro("device", [](const Model& model) { return model.loaded->device->description(); })
      .def_prop_ro("architecture", [](const Model& model) { return model.loaded->architecture; })
      .def_prop_ro("family", [](const Model& model) { return model.loaded->family; })
      .def_prop_ro("unread_keys", [](const Model& model) { return model.loaded->unread_keys; })
      .def_prop_ro(
          "end_ids", [](const Model& model) { return ttt::end_ids(*model.loaded); },
          "Ids that end an answer.")
      .def_prop_ro("tokenizer", [](const Model& model) { return model.loaded->tokenizer; })
      .def_prop_ro("chat_template", [](const Model& model) { return model.loaded->chat_template; });
}

}  // namespace ttt_python
