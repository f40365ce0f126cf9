// ModelSpec: what a network computes. Mathematics only: no dtype, device, grid, file or tokenizer.
//
// A tree of small orthogonal structs, one LayerSpec per layer; the leaves are in modules/spec.h. What no
// field says is a custom module in the model's own folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ttt/modules/spec.h"
#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

// A weight that a spec calls for. `rows` and `cols` are as stored by Hugging Face (linear: out, in).
struct WeightSlot {
  std::string name;  // "layers.0.attn.q"
  WeightRole role = WeightRole::linear;
  std::int64_t rows = 0, cols = 0;
  std::int64_t experts = 1;
  int shard_axis = -1;    // 0: rows (column-parallel), 1: columns (row-parallel), -1: replicated
  bool optional = false;  // may be absent from a checkpoint
  bool operator==(const WeightSlot&) const = default;
};

// State that a mixer keeps per sequence beside or in place of a KV cache: `elements` numbers, float32, zero
// at context 0.
struct StateSlot {
  std::string name;
  std::int64_t elements = 0;
  bool operator==(const StateSlot&) const = default;
};

// What a layer keeps per position in paged blocks.
struct KvCacheSpec {
  int kv_heads = 0, head_dim = 0;
  int v_head_dim = 0;   // 0: no values beside the keys, which are latents
  int indexer_dim = 0;  // keys of an indexer; 0: none
  std::optional<int> window{};
  bool operator==(const KvCacheSpec&) const = default;
};
// The cache that such an attention has.
KvCacheSpec kv_cache(const AttentionSpec&);
KvCacheSpec kv_cache(const LatentAttentionSpec&);

// The open end: a module of the model's own, by the name under which its library provides it. Its weights'
// names are relative to the module ("in_proj" is layers.3.attn.in_proj).
struct CustomSpec {
  std::string name;
  std::string parameters = "{}";  // JSON object
  std::vector<WeightSlot> weights{};
  std::vector<StateSlot> state{};
  std::vector<KvCacheSpec> caches{};  // KV caches, one per Step::iteration
  bool operator==(const CustomSpec&) const = default;
};

// No such part: the layer only mixes, or only feeds forward. The part's norms go with it.
struct Absent {
  bool operator==(const Absent&) const = default;
};

using MixerSpec = std::variant<AttentionSpec, CustomSpec, ShortConvSpec, SelectiveSsmSpec, SsdSpec,
                               GatedDeltaNetSpec, Absent, LatentAttentionSpec>;
using FfnSpec = std::variant<MlpSpec, MoeSpec, CustomSpec, Absent>;

// f: mixer or feed-forward, n: norm before it, p: norm after it.
enum class Residual : std::uint8_t {
  pre_norm,         // x + f(n(x))
  post_norm,        // x + p(f(x))
  sandwich,         // x + p(f(n(x)))
  norm_after_add,   // p(x + f(x)), as in the original Transformer
  parallel,         // x + mixer(n1(x)) + ffn(n2(x))
  parallel_shared,  // the same with one norm for both
};

struct LayerSpec {
  MixerSpec mixer{};
  FfnSpec ffn{};
  Residual residual = Residual::pre_norm;
  float residual_scale = 1;           // multiplies what is added to the stream
  std::optional<CustomSpec> block{};  // in place of all of the above: a block of the model's own
  bool operator==(const LayerSpec&) const = default;
};

// Sinusoids: sines in the first half, cosines in the second, of position * 10000^(-i / n); n is half the
// width (Vaswani et al. 2017), or one less, so that the last is 1/10000 exactly.
enum class PositionKind : std::uint8_t { learned, sinusoidal, sinusoidal_to_end };
struct PositionSpec {
  PositionKind kind = PositionKind::learned;
  int entries = 0;  // rows of the table
  int offset = 0;   // added to the position before the lookup
  bool operator==(const PositionSpec&) const = default;
};

struct ModelSpec {
  int vocab = 0, dim = 0, max_positions = 0;
  // Width of the embedding and of what the head reads, where matrices embed_in and embed_out lead from it to
  // the layers and back (Baevski and Auli 2019); 0: dim.
  int embed_dim = 0;
  NormSpec norm{};                          // of every layer and at the end
  std::optional<NormSpec> embed_norm{};     // right after the embedding
  std::optional<PositionSpec> positions{};  // added to the embedding
  bool final_norm = true;
  bool tied_embeddings = false;
  bool lm_head_bias = false;
  float embed_scale = 1, logit_scale = 1;  // both multiply
  std::optional<float> logit_softcap{};
  std::vector<LayerSpec> layers{};
  int embed_width() const { return embed_dim > 0 ? embed_dim : dim; }
  bool operator==(const ModelSpec&) const = default;
};

// Every weight of the network, in the order of execution. Pure.
std::vector<WeightSlot> weight_slots(const ModelSpec&);
// Those of one mixer or feed-forward of a network of width `dim`, under `prefix` ("ssm.x"; empty: "x"): for
// modules of a model's own that are made of the core's.
std::vector<WeightSlot> weight_slots(const MixerSpec&, int dim, std::string_view prefix);
std::vector<WeightSlot> weight_slots(const FfnSpec&, int dim, std::string_view prefix);
// The KV caches of a layer, by Step::iteration.
std::vector<KvCacheSpec> kv_caches(const LayerSpec&);
// What a mixer or a layer keeps per sequence beside a KV cache.
std::vector<StateSlot> state_slots(const MixerSpec&, int dim);
std::vector<StateSlot> state_slots(const LayerSpec&, int dim);
// Error that names the field when a value is out of range or two contradict each other.
void validate(const ModelSpec&);

// One JSON object; fields at their default are left out. parse_spec: Error names an unknown or ill-typed
// field.
std::string to_json(const ModelSpec&, int indent = 2);
ModelSpec parse_spec(std::string_view json);
// One part alone, {"ssd": {..}}: what a custom module is made of, in its parameters.
std::string to_json(const MixerSpec&);
std::string to_json(const FfnSpec&);
MixerSpec parse_mixer(std::string_view json);
FfnSpec parse_ffn(std::string_view json);

}  // namespace ttt::inline v2
