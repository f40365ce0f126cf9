"""Loading what references are made from: models and tokenizers of Hugging Face folders and GGUF files."""
import hashlib
import os
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM

CONTROL, USER_DEFINED, UNUSED, BYTE, UNKNOWN = 3, 4, 5, 6, 2  # tokenizer.ggml.token_type
# Buffers that transformers computes from the configuration (MiniMax's decays, hashes of n-grams): a checkpoint may lack them.
DERIVED = ("slope_rate", "query_decay", "key_decay", "diagonal_decay", "layer_multipliers", "ngram_heads_offsets",
           "ngram_heads_vocab_sizes")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class UserError(Exception):
    """what, where, what to change; printed as one line."""


def is_gguf(path):
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as f:
        return f.read(4) == b"GGUF"


def source_sha256(path):
    """SHA-256 of a GGUF file, or over the weight files of a folder, one after the other in the order of their names; a reference
    that lies beside them is none of them."""
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith((".safetensors", ".bin")) and name != "golden.safetensors"]
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as f:
            for block in iter(lambda: f.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def is_derived(name):
    return name.rsplit(".", 1)[-1] in DERIVED


def load_model(path, dtype="float32"):
    """The model with eager attention and experts, in eval mode; a GGUF is dequantised. Refuses what did not load whole."""
    transformers.utils.logging.disable_progress_bar()
    arguments = {"dtype": DTYPES[dtype], "attn_implementation": "eager"}
    folder = path
    if is_gguf(path):
        folder, arguments["gguf_file"] = os.path.split(os.path.abspath(path))
    elif not os.path.isfile(os.path.join(path, "config.json")):
        raise UserError(f"no checkpoint, {path}, give a folder with config.json or a GGUF file")
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, local_files_only=True, **arguments)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(name for name in map(str, report.get(key) or ()) if not is_derived(name))
        if found:
            raise UserError(f"{key.replace('_', ' ')} {found[:5]}, {path}, the checkpoint is not whole")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.eval()


# ---------------------------------------------------------------------------------------------- tokenizers
class Tokenizer:
    """encode(text) -> ids without special tokens added; bos: the id that the checkpoint wants first, or None."""

    def __init__(self, encode, decode, bos):
        self.encode, self.decode, self.bos = encode, decode, bos


def load_tokenizer(path):
    if is_gguf(path):
        return gguf_tokenizer(path)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError):  # which of the two depends on what is missing
        raise UserError(f"no tokenizer that transformers can load, {path}, give the token ids with --prompt-ids") from None
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token_id if first == [tokenizer.bos_token_id] else None
    return Tokenizer(lambda text: tokenizer.encode(text, add_special_tokens=False), tokenizer.decode, bos)


def gguf_tokenizer(path):
    """The tokenizer inside a GGUF, run by the libraries it came from (tokenizers, sentencepiece).

    transformers' own conversion does not know the pre-tokenizers that tokenizer.ggml.pre names, so it is not used.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def field(name, default=None):
        found = reader.fields.get(f"tokenizer.ggml.{name}")
        return default if found is None else found.contents()

    model, tokens, types = field("model"), field("tokens"), field("token_type")
    if model == "gpt2":
        encode, decode = byte_level_bpe(tokens, field("merges"), types, field("pre", "default"), path)
        add_bos = field("add_bos_token", False)
    elif model == "llama":
        encode, decode = sentencepiece_bpe(tokens, field("scores"), types, field("add_space_prefix", True))
        add_bos = field("add_bos_token", True)
    else:
        raise UserError(f"tokenizer model '{model}' is not supported, {path}, give the token ids with --prompt-ids")
    return Tokenizer(encode, decode, field("bos_token_id") if add_bos else None)


def byte_level_bpe(tokens, merges, types, pre, path):
    from tokenizers import AddedToken, Tokenizer as Fast, decoders, models, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    splits = {"smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level], "gpt-2": [byte_level]}
    if pre not in splits:
        raise UserError(f"pre-tokenizer '{pre}' is not known here, {path}, give the token ids with --prompt-ids")
    fast = Fast(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]))
    fast.pre_tokenizer = pre_tokenizers.Sequence(splits[pre])
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(tokens[i], normalized=False) for i, t in enumerate(types) if t in (CONTROL, USER_DEFINED)])
    return (lambda text: fast.encode(text, add_special_tokens=False).ids,
            lambda ids: fast.decode(ids, skip_special_tokens=False))


def sentencepiece_bpe(tokens, scores, types, add_space_prefix):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    proto.trainer_spec.model_type = pb.TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.vocab_size = len(tokens)
    proto.trainer_spec.unk_id = next(i for i, t in enumerate(types) if t == UNKNOWN) if UNKNOWN in types else 0
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = bool(add_space_prefix)
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = True
    kinds = {CONTROL: pb.ModelProto.SentencePiece.CONTROL, USER_DEFINED: pb.ModelProto.SentencePiece.USER_DEFINED,
             UNUSED: pb.ModelProto.SentencePiece.UNUSED, BYTE: pb.ModelProto.SentencePiece.BYTE,
             UNKNOWN: pb.ModelProto.SentencePiece.UNKNOWN}
    for token, score, kind in zip(tokens, scores, types):
        if kind == USER_DEFINED:  # converters to GGUF store these as plain text; the processor matches escaped text
            token = token.replace(" ", "\u2581")
        proto.pieces.add(piece=token, score=score, type=kinds.get(kind, pb.ModelProto.SentencePiece.NORMAL))
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(proto.SerializeToString())
    return processor.EncodeAsIds, processor.DecodeIds
