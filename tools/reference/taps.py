"""Taps: the intermediates of a forward under the names that the modules of ttt use (docs/references.md has the list).

Modules are found by the names that transformers gives them; what a network does not have is left out. Every tap is
[rows, features] with the heads of a row side by side, float32.
"""
import contextlib
import importlib

import checkpoints

LAYER_LISTS = ("model.layers", "model.language_model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers")
ATTENTION = ("self_attn", "attention", "attn")
FEED_FORWARD = ("mlp", "block_sparse_moe", "feed_forward")
FINAL_NORM = ("norm", "ln_f", "final_layer_norm")
# module path inside a layer -> tap of its output, or of its input where the tap says so
ATTENTION_OUTPUTS = {"q_proj": "attn.q", "k_proj": "attn.k", "v_proj": "attn.v", "q_norm": "attn.q_norm", "k_norm": "attn.k_norm"}
OUTPUT_PROJECTIONS = ("o_proj", "dense", "c_proj", "out_proj")
FEED_FORWARD_OUTPUTS = {"gate_proj": "ffn.gate", "up_proj": "ffn.up", "c_fc": "ffn.up", "dense_h_to_4h": "ffn.up", "fc1": "ffn.up",
                        "gate": "ffn.router", "router": "ffn.router"}
DOWN_PROJECTIONS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2")


def find(module, paths):
    """The first of the dotted paths that exists below `module`, or None."""
    for path in paths:
        found = module
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None


def norm_taps(layer):
    """{module name: tap} of the norms of a block; what post_attention_layernorm means depends on the others."""
    sandwich = hasattr(layer, "pre_feedforward_layernorm") or not (hasattr(layer, "input_layernorm") or hasattr(layer, "ln_1"))
    return {"input_layernorm": "attn_norm", "ln_1": "attn_norm",
            "post_attention_layernorm": "attn_post_norm" if sandwich else "ffn_norm", "ln_2": "ffn_norm",
            "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "ffn_post_norm"}


class Taps(contextlib.AbstractContextManager):
    """Records the taps of every forward of `model` inside the `with` block into `values`; a later forward overwrites."""

    def __init__(self, model, rows):
        self.model, self.rows, self.values = model, rows, {}
        self.layer, self._undo = None, []
        layers = find(model, LAYER_LISTS)
        if layers is None:
            raise checkpoints.UserError(f"no list of layers found among {', '.join(LAYER_LISTS)}, {type(model).__name__}, "
                                        "add its path to tools/reference/taps.py or leave --taps out")
        self._hook_layers(layers)
        body = find(model, [path.rsplit(".", 1)[0] for path in LAYER_LISTS])
        self._output(find(body, FINAL_NORM), "norm", None)
        self._wrap_functions()

    def __exit__(self, *_):
        for undo in reversed(self._undo):
            undo()

    # -- recording
    def record(self, name, value, layer=None, heads_first=None):
        """Stores a tensor of `rows` rows: features, or [1, heads, rows, features] or [1, rows, heads, features].

        heads_first says which of the last two it is; None: as the number of rows tells.
        """
        value = value[0] if isinstance(value, tuple) else value
        if value.dim() == 4:
            if heads_first is None:
                if value.shape[1] == value.shape[2]:
                    return  # heads and rows cannot be told apart
                heads_first = value.shape[2] == self.rows
            value = value.transpose(1, 2) if heads_first else value
        value = value.reshape(self.rows, -1)
        self.values[name if layer is None else f"layers.{layer}" + (f".{name}" if name else "")] = value.detach().float().clone()

    def _output(self, module, name, layer):
        if module is not None:
            handle = module.register_forward_hook(lambda _, __, output: self.record(name, output, layer))
            self._undo.append(handle.remove)

    def _input(self, module, name, layer):
        if module is not None:
            def hook(_, positional, keywords):
                self.record(name, positional[0] if positional else keywords["hidden_states"], layer)
            self._undo.append(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def _halves(self, module, first, second, layer):
        """Taps of the two halves of a fused projection's output."""
        def hook(_, __, output):
            a, b = output.chunk(2, dim=-1)
            self.record(first, a, layer)
            self.record(second, b, layer)
        self._undo.append(module.register_forward_hook(hook).remove)

    # -- where things are
    def _hook_layers(self, layers):
        self._input(layers[0], "embed", None)
        for k, layer in enumerate(layers):
            def enter(_, __, k=k):
                self.layer = k
            self._undo.append(layer.register_forward_pre_hook(enter).remove)
            self._output(layer, "", k)
            for name, tap in norm_taps(layer).items():
                self._output(getattr(layer, name, None), tap, k)
            attention, feed_forward = find(layer, ATTENTION), find(layer, FEED_FORWARD)
            if attention is not None:
                self._input(attention, "attn.in", k)
                self._output(attention, "attn", k)
                for name, tap in ATTENTION_OUTPUTS.items():
                    self._output(getattr(attention, name, None), tap, k)
                self._input(find(attention, OUTPUT_PROJECTIONS), "attn.context", k)
            if feed_forward is not None:
                self._input(feed_forward, "ffn.in", k)
                self._output(feed_forward, "ffn", k)
                for name, tap in FEED_FORWARD_OUTPUTS.items():
                    self._output(getattr(feed_forward, name, None), tap, k)
                fused = getattr(feed_forward, "gate_up_proj", None)
                if fused is not None:
                    self._halves(fused, "ffn.gate", "ffn.up", k)
                self._input(find(feed_forward, DOWN_PROJECTIONS), "ffn.hidden", k)

    def _wrap_functions(self):
        """Wraps the two functions of the modeling module that see q, k and v of every layer, fused projections or not."""
        module = importlib.import_module(type(self.model).__module__)

        def wrap(name, make):
            original = getattr(module, name, None)
            if original is not None:
                setattr(module, name, make(original))
                self._undo.append(lambda: setattr(module, name, original))

        def once(name, value):
            if f"layers.{self.layer}.{name}" not in self.values:
                self.record(name, value, self.layer, heads_first=True)

        def rotary(original):
            def wrapped(q, k, *arguments, **keywords):
                once("attn.q", q)
                once("attn.k", k)
                rotated = original(q, k, *arguments, **keywords)
                self.record("attn.q_rope", rotated[0], self.layer, heads_first=True)
                self.record("attn.k_rope", rotated[1], self.layer, heads_first=True)
                return rotated
            return wrapped

        def attention(original):
            def wrapped(owner, query, key, value, *arguments, **keywords):
                for name, tensor in (("attn.q", query), ("attn.k", key), ("attn.v", value)):
                    once(name, tensor)
                return original(owner, query, key, value, *arguments, **keywords)
            return wrapped

        wrap("apply_rotary_pos_emb", rotary)
        wrap("eager_attention_forward", attention)
