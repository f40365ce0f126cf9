"""What a reference file holds, computed from a model of transformers. docs/references.md has the schema."""
import inspect
import math

import torch
import transformers
from safetensors.torch import save_file
from transformers import GenerationConfig

import checkpoints
import taps

LOGIT_ROWS = 1 << 26  # logits in flight at a time, so that a vocabulary of 262,144 over 1,024 tokens fits into memory


def forward(model, ids, **keywords):
    """One forward over ids [1, T] without a cache."""
    parameters = inspect.signature(model.forward).parameters
    if "attention_mask" in parameters:
        keywords.setdefault("attention_mask", torch.ones_like(ids))
    if "use_cache" in parameters:
        keywords.setdefault("use_cache", False)
    return model(input_ids=ids, **keywords)


def logit_chunks(model, ids):
    """Logits [rows, V] of the positions of ids [1, T], in order, in float32; chunked only when all would be too large."""
    length, vocab = ids.shape[1], model.config.get_text_config().vocab_size
    rows = max(1, LOGIT_ROWS // vocab)
    if rows >= length or "logits_to_keep" not in inspect.signature(model.forward).parameters:
        yield forward(model, ids).logits[0].float()
        return
    for start in range(0, length, rows):
        yield forward(model, ids, logits_to_keep=torch.arange(start, min(start + rows, length))).logits[0].float()


def greedy(model, ids, steps):
    """(tokens [steps], logits [steps, V]): tokens[i] continues the prompt, row i is what feeding tokens[i] gave (KV cache)."""
    model.generation_config = GenerationConfig(do_sample=False, use_cache=True, pad_token_id=0)
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=steps + 1, min_new_tokens=steps + 1,
                         do_sample=False, output_logits=True, return_dict_in_generate=True, use_cache=True)
    rows = torch.stack([row[0].float() for row in out.logits])
    return out.sequences[0, ids.shape[1]:][:steps], rows[1:], rows


def pcc(a, b):
    """Pearson's correlation of all elements."""
    a, b = a.double().flatten() - a.double().mean(), b.double().flatten() - b.double().mean()
    return float((a @ b) / (a.norm() * b.norm()))


def greedy_margin(rows):
    """The smallest distance between the best and the second best logit of rows [N, V]."""
    top = rows.topk(2, dim=-1).values
    return float((top[:, 0] - top[:, 1]).min())


@torch.no_grad()
def compute(model, ids, new_tokens=8, logits=True, hidden_states=True, tap_rows=0):
    """({key: tensor}, {metadata: string}) for the prompt ids, a list of token ids.

    tap_rows: of how many of the last rows taps are recorded; 0 records none, a negative number all.
    """
    prompt = torch.tensor([ids], dtype=torch.int64)
    values, facts = {"input_ids": prompt}, {}
    kept, top_ids, top_logits, loss, losses = [], [], [], 0.0, 0
    for chunk in logit_chunks(model, prompt):
        start = sum(len(row) for row in top_ids)
        best = chunk.topk(5, dim=-1)
        top_ids.append(best.indices)
        top_logits.append(best.values)
        targets = prompt[0, start + 1 : start + 1 + len(chunk)]
        if len(targets):
            loss += float(torch.nn.functional.cross_entropy(chunk[: len(targets)].double(), targets, reduction="sum"))
            losses += len(targets)
        if logits:
            kept.append(chunk)
    values["top5_ids"], values["top5_logits"] = torch.cat(top_ids), torch.cat(top_logits)
    if losses:
        facts["perplexity"] = repr(math.exp(loss / losses))
    if logits:
        values["logits"] = torch.cat(kept)
        facts["logits_std"] = repr(float(values["logits"].std()))
    if hidden_states:
        for k, state in enumerate(forward(model, prompt, output_hidden_states=True).hidden_states or ()):
            values[f"hidden_states.{k}"] = state.float()
    if tap_rows:
        with taps.Taps(model, len(ids)) as recorder:
            forward(model, prompt)
        rows = len(ids) if tap_rows < 0 else min(tap_rows, len(ids))
        values.update({name: value[-rows:] for name, value in recorder.values.items()})
        facts["tap_rows"] = str(rows)
    if new_tokens:
        tokens, step_logits, rows = greedy(model, prompt, new_tokens)
        values["continuation"] = tokens
        facts["greedy_margin"] = repr(greedy_margin(rows[:new_tokens]))
        if logits:
            values["decode_logits"] = step_logits
    return values, facts


@torch.no_grad()
def bf16_pcc(path, ids, logits):
    """PCC of the reference's own bfloat16 logits over the prompt against its float32 ones."""
    model = checkpoints.load_model(path, "bfloat16")
    return pcc(torch.cat(list(logit_chunks(model, torch.tensor([ids], dtype=torch.int64)))), logits)


def save(path, values, facts, model, dtype, source, name):
    """Writes the reference file; the metadata says what it is a reference of and what made it."""
    metadata = {"format": "pt", "schema": "ttt-reference-1", "model": name, "architecture": type(model).__name__, "dtype": dtype,
                "attention": "eager", "source_sha256": source, "transformers": transformers.__version__,
                "torch": torch.__version__.split("+")[0], **facts}
    save_file({key: value.detach().contiguous() for key, value in values.items()}, path, metadata=metadata)
