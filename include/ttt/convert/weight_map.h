// WeightMap: how the tensors of a checkpoint become the weights of a network. Declared operations on names,
// nothing else: it needs no file and no device, prints as JSON, and bind_weights() (binding.h) checks it
// against a checkpoint before any byte is read.
//
//   return hf_decoder_names()
//       .rename("{layer}.mlp.gate", "{layer}.ffn.router")
//       .stack("{layer}.mlp.experts.{e}.gate_proj", "{layer}.ffn.experts.gate")
//       .split("{layer}.mlp.gate_up_proj", {"{layer}.ffn.gate", "{layer}.ffn.up"})
//       .apply("*norm", add(1));
//
// Names. On the right stand the network's slots (weight_slots(spec)): embed, layers.{i}.attn.q,
// layers.{i}.attn.q.bias, norm. On the left stand checkpoint names without ".weight": "a.b" takes a.b.weight
// (or a.b) to its slot and a.b.bias to the slot's ".bias". {layer} is the prefix of a layer on either side:
// layers.{i} for slots, what layers() says for the checkpoint. {i}, {e} or any other {name} is a number, the
// same one wherever it occurs; '*' (only where a "pattern" is asked for) any text.
//
// One rule takes a tensor: the latest one declared that matches, so a model's own rules go over those it
// starts from. Rules (rename, split, stack, concat, slice, ignore) take checkpoint tensors to slots; then
// apply() and permute() act on slots.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/ops/op_call.h"

namespace ttt::inline v2 {

// What happens to every value of a slot: x -> op(scale x + offset).
struct Transform {
  float scale = 1, offset = 0;
  UnaryOp op = UnaryOp::identity;  // identity, exp, log, neg, reciprocal, sqrt, rsqrt, square, abs, tanh,
                                   // sigmoid, softplus
  bool operator==(const Transform&) const = default;
};
inline Transform add(float offset) { return {.offset = offset}; }
inline Transform multiply(float scale) { return {.scale = scale}; }
inline Transform unary(UnaryOp op) { return {.op = op}; }

// How split() cuts the output axis (rows of a weight, elements of a bias; of each expert where the tensor has
// three axes).
struct SplitLayout {
  // The axis is so many equal groups, each of which holds a part of every target: [heads, (q, k, v),
  // head_dim] has `heads` groups.
  std::int64_t groups = 1;
  bool interleaved = false;           // as many groups as the targets have rows: g0 u0 g1 u1 ...
  std::vector<std::int64_t> sizes{};  // rows of each target; empty: those of the slots
  bool operator==(const SplitLayout&) const = default;
};

class WeightMap {
 public:
  WeightMap();
  WeightMap(const WeightMap&);
  WeightMap(WeightMap&&) noexcept;
  WeightMap& operator=(WeightMap);
  ~WeightMap();

  // --- the checkpoint's names ---
  // A prefix that names may have or not ("model.", "language_model."): taken off names and rules alike, in
  // any order, each once.
  WeightMap& strip(std::string_view prefix);
  // {layer} on the checkpoint's side: "h.{i}", "blk.{i}". Default "layers.{i}".
  WeightMap& layers(std::string_view prefix);
  // The last two axes of the tensors that match change places: transformers' Conv1D keeps [in, out]. Tensors
  // with one axis stay.
  WeightMap& transpose(std::string_view pattern);

  // --- rules ---
  WeightMap& rename(std::string_view from, std::string_view to);
  // Several that stand under a name on either side: from + a to to + b.
  WeightMap& rename(std::string_view from, std::string_view to,
                    std::initializer_list<std::pair<std::string_view, std::string_view>> parts);
  // One tensor that several weights were fused into.
  WeightMap& split(std::string_view from, std::vector<std::string> to, SplitLayout layout = {});
  // q, k and v in one tensor, in as many groups (heads, kv heads), to {layer}.attn; gate and up, to `to`.
  WeightMap& split_qkv(std::string_view from, std::int64_t groups = 1);
  WeightMap& split_gate_up(std::string_view from, std::string_view to = "{layer}.ffn");
  // One tensor per number into one weight, in the order of the numbers: a number of `from` that `to` lacks is
  // what is stacked. rename() and split() do the same where `to` lacks a number; this spelling says so.
  WeightMap& stack(std::string_view from, std::string_view to);
  // The tensors one above the other.
  WeightMap& concat(std::vector<std::string> from, std::string_view to);
  // Rows [begin, begin + count) of a tensor; the others are dropped.
  WeightMap& slice(std::string_view from, std::string_view to, std::int64_t begin, std::int64_t count);
  // Tensors that the network does not have: buffers, towers, layers for other tasks.
  WeightMap& ignore(std::string_view pattern);

  // --- slots ---
  // Transforms add up in the order of declaration. A pattern without ".bias" leaves biases alone.
  WeightMap& apply(std::string_view slot_pattern, Transform transform);
  // Undoes the reordering of q and k rows that converters to GGUF do for interleaved rotation: per head (of
  // `heads`), row 2 j + p becomes row p head_dim / 2 + j. Biases that match are reordered too.
  WeightMap& permute(std::string_view slot_pattern, std::int64_t heads);
  // A slot without a tensor of its own takes another slot's: tied or shared weights.
  WeightMap& alias(std::string_view slot, std::string_view of);
  // The slot may stay empty.
  WeightMap& optional(std::string_view slot_pattern);
  // Tensors that belong to a slot which this network does not have are dropped without a word (an lm_head
  // beside tied embeddings).
  WeightMap& surplus(std::string_view slot_pattern);

  // All operations of `other` after the present ones.
  WeightMap& append(const WeightMap& other);

  // {"operations": [{"op": "rename", "from": ..., "to": ...}, ...]}. from_json: Error names the operation and
  // the field.
  std::string to_json(int indent = 2) const;
  static WeightMap from_json(std::string_view json);
  bool operator==(const WeightMap&) const;

  struct Operation;
  const std::vector<Operation>& operations() const;  // for bind_weights()

 private:
  WeightMap& push(Operation);
  std::unique_ptr<std::vector<Operation>> operations_;
};

// The names that most Hugging Face decoders share, after transformers' usual layout: [model.]embed_tokens,
// layers.{i}.self_attn.q_proj, ..., norm, lm_head; query/key norms, dense MLPs. Rotary tables are ignored, an
// lm_head beside tied embeddings is surplus.
WeightMap hf_decoder_names();
// Norms behind attention and MLP as most call them, where post_attention_layernorm is no norm before the MLP:
// post_attention_layernorm, pre_feedforward_layernorm, post_feedforward_layernorm. For append().
WeightMap hf_post_norm_names();
// What mixtures of experts mostly add: mlp.gate as router, mlp.experts.{e}.gate_proj stacked,
// shared_expert(s), to the slots under `to`. For append().
WeightMap hf_moe_names(std::string_view to = "{layer}.ffn");
// Decoders from before rotary embeddings, as they were first written: transformer.{wte, wpe, ln_f},
// h.{i}.{ln_1, ln_2}, h.{i}.mlp.{c_fc, c_proj}; tables of masks are ignored. Attention is not among them.
WeightMap hf_wte_names();
// Decoders that come from fairseq: [model.][decoder.]embed_positions, layers.{i}.self_attn.{q, k, v,
// out}_proj, self_attn_layer_norm, final_layer_norm, fc1, fc2, layer_norm. Norms go to {layer}.attn`norms`.
WeightMap hf_fairseq_names(std::string_view norms = "_norm");
// Decoders that come from Megatron: q, k and v in one query_key_value under `attention`, in so many groups,
// dense, mlp.dense_h_to_4h, mlp.dense_4h_to_h.
WeightMap hf_megatron_names(std::int64_t groups, std::string_view attention = "{layer}.self_attention");
// The tensors of multi-head latent attention with `heads` heads under `from` (q_a_proj, q_b_proj,
// kv_a_proj_with_mqa, kv_b_proj, their norms, an indexer), to the slots under `to`. For append().
WeightMap hf_latent_attention_names(int heads, std::string_view from = "{layer}.self_attn",
                                    std::string_view to = "{layer}.attn");
// The tensors of a state-space mixer with a step per head (SsdSpec) under any of `from` ("{layer}.mixer"), to
// the slots under `to`: a fused in_proj, conv1d, dt_bias, A_log, D, norm, out_proj. For append().
WeightMap hf_ssd_names(std::initializer_list<std::string_view> from, std::string_view to = "{layer}.attn");
// Those of a state-space mixer with a step per channel (SelectiveSsmSpec) under `from`, to {layer}.attn.
WeightMap hf_selective_ssm_names(std::string_view from);
// Those of a gated delta net under `from` with a projection and a convolution for each of q, k and v, to
// {layer}.attn.
WeightMap hf_delta_net_names(std::string_view from = "{layer}.linear_attn");
// Those with one projection (in_proj_qkv) and one convolution (conv1d) for all three.
WeightMap hf_fused_delta_net_names(std::string_view from = "{layer}.linear_attn");
// The names of GGUF decoders: token_embd, blk.{i}.attn_q, ..., output_norm, output; fused attn_qkv is not
// among them (it needs its layout), stacked experts are. A missing output means tied embeddings. rope_freqs
// is ignored: it repeats the config's scaling.
WeightMap gguf_decoder_names();

}  // namespace ttt::inline v2
