#!/usr/bin/env python3
"""Write the reference outputs of a checkpoint, computed by transformers, as one safetensors file.

  python tools/reference --model DIR|FILE.gguf --out FILE.safetensors [options]

The prompt is given as token ids or as a text file that the checkpoint's own tokenizer encodes. Attention is eager, a
quantised GGUF is dequantised. The file holds the prompt, the logits and five best tokens of each position, a greedy
continuation with its logits, hidden states and, with --taps, what is inside the layers. docs/references.md has the
schema; `ttt eval golden`, `ttt eval tokens` and `ttt debug compare` read it.

examples
  python tools/reference --model ./checkpoint --prompt-ids 5,17,99 --taps --out reference.safetensors
  python tools/reference --model model.gguf --text LICENSE --tokens 1024 --no-logits --no-hidden-states --new-tokens 0 \\
      --out tokens.safetensors
"""
import argparse
import os
import sys

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="python tools/reference", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="PATH", help="a Hugging Face folder or a GGUF file")
    parser.add_argument("--out", required=True, metavar="FILE", help="the safetensors file to write")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt-ids", metavar="IDS", help="token ids of the prompt, separated by commas")
    prompt.add_argument("--text", metavar="FILE", help="UTF-8 text whose tokens are the prompt (see --tokens)")
    prompt.add_argument("--prompt", metavar="TEXT", help="the prompt as text")
    parser.add_argument("--bos", choices=("auto", "yes", "no"), default="auto",
                        help="whether text starts with the beginning-of-sequence token (auto: as the checkpoint asks)")
    parser.add_argument("--tokens", type=int, metavar="N", help="keep the first N tokens of the prompt")
    parser.add_argument("--new-tokens", type=int, default=8, metavar="N", help="greedy tokens to generate (default 8, 0 for none)")
    parser.add_argument("--no-logits", action="store_true", help="leave logits and decode_logits out, for big vocabularies")
    parser.add_argument("--no-hidden-states", action="store_true", help="leave hidden_states.K out")
    parser.add_argument("--taps", action="store_true", help="add the intermediates inside the layers")
    parser.add_argument("--tap-rows", type=int, default=-1, metavar="N", help="record taps of the last N rows only")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="what the model computes in")
    parser.add_argument("--bf16-pcc", action="store_true",
                        help="also run in bfloat16 and store the correlation of its logits with float32's as bf16_pcc")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch")
    return parser.parse_args(arguments)


def prompt_ids(options, checkpoints):
    """(ids, tokenizer or None)"""
    if options.prompt_ids is not None:
        try:
            return [int(part) for part in options.prompt_ids.replace(",", " ").split()], None
        except ValueError:
            raise checkpoints.UserError(f"'{options.prompt_ids[:60]}' is no list of token ids, --prompt-ids, "
                                        "write numbers separated by commas") from None
    text = options.prompt
    if text is None:
        with open(options.text, encoding="utf-8") as f:
            text = f.read()
    tokenizer = checkpoints.load_tokenizer(options.model)
    if options.bos == "yes" and tokenizer.bos is None:
        raise checkpoints.UserError("the tokenizer adds no beginning-of-sequence token, --bos yes, use --bos auto or no")
    ids = tokenizer.encode(text)
    return ([tokenizer.bos] if options.bos != "no" and tokenizer.bos is not None else []) + ids, tokenizer


def run(options):
    import torch

    import checkpoints
    import reference

    try:
        folder = os.path.dirname(os.path.abspath(options.out))
        if not os.access(folder, os.W_OK):
            raise checkpoints.UserError(f"cannot write to the folder, {folder}, change --out")
        if options.threads:
            torch.set_num_threads(options.threads)
        ids, tokenizer = prompt_ids(options, checkpoints)
        ids = ids[: options.tokens] if options.tokens else ids
        model = checkpoints.load_model(options.model, options.dtype)
        vocab = model.config.get_text_config().vocab_size
        if not ids or min(ids) < 0 or max(ids) >= vocab:
            raise checkpoints.UserError(f"the prompt must hold token ids from 0 to {vocab - 1}, {options.model}, change the prompt")
        if options.bf16_pcc and (options.no_logits or options.dtype != "float32"):
            raise checkpoints.UserError("nothing to correlate with, --bf16-pcc, it needs float32 logits")
        values, facts = reference.compute(model, ids, options.new_tokens, not options.no_logits, not options.no_hidden_states,
                                          options.tap_rows if options.taps else 0)
        if options.bf16_pcc:
            facts["bf16_pcc"] = repr(reference.bf16_pcc(options.model, ids, values["logits"]))
        source = checkpoints.source_sha256(options.model)
        name = os.path.basename(os.path.normpath(options.model))
        reference.save(options.out, values, facts, model, options.dtype, source, name)
    except checkpoints.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror or error}, {error.filename or options.model}, check the path", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(values)} tensors, {os.path.getsize(options.out)} bytes, {len(ids)} prompt tokens", file=sys.stderr)
    for key, value in facts.items():
        print(f"{key} {value}", file=sys.stderr)
    if tokenizer is not None and "continuation" in values:
        print(f"continuation {tokenizer.decode(values['continuation'].tolist())!r}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run(parse_arguments(None)))
