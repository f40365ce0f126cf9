"""Checkpoints of the comparison, as GGUF files of one quantised type throughout, so that every side moves the same bytes per weight."""

import os
from pathlib import Path

import gguf
import numpy as np

TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
FILE_TYPES = {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}
WRITTEN_BY_THE_WRITER = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type", "general.quantization_version")

# The shape of Llama 3.2 1B.
LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 16, 2048, 32, 8, 64, 8192, 128256


def copy_fields(reader, writer, wanted=lambda name: True):
    for field in reader.fields.values():
        if field.name in WRITTEN_BY_THE_WRITER or not wanted(field.name):
            continue
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)


def start(path, quantised):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(FILE_TYPES[quantised])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def requantised(source, path, quantised):
    """`source` with all matrices in one quantised type."""
    reader = gguf.GGUFReader(source)
    writer = start(path, quantised)
    copy_fields(reader, writer)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values.astype(np.float32))
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, TYPES[quantised]), raw_dtype=TYPES[quantised])
    finish(writer)


def random_1b(source, path, quantised):
    """A Llama of the 3.2-1B shape with random weights and the vocabulary of `source`, padded to its size."""
    reader = gguf.GGUFReader(source)
    writer = start(path, quantised)
    writer.add_name("random-1b")
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(VOCAB)
    copy_fields(reader, writer, lambda name: name.startswith("tokenizer.") and name not in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"))
    tokens, kinds = (reader.fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    padding = VOCAB - len(tokens)
    writer.add_token_list(tokens + [f"<|unused_{i}|>" for i in range(padding)])
    writer.add_token_types(kinds + [int(gguf.TokenType.UNUSED)] * padding)
    random = np.random.default_rng(0)
    blocks = gguf.quants.quantize(random.standard_normal((1 << 17, 32), np.float32) * 0.02, TYPES[quantised])

    def matrix(name, rows, columns):
        """Blocks of one pool, from another place each time: what a value is changes no speed."""
        count = rows * columns // 32
        data = np.resize(np.roll(blocks, int(random.integers(len(blocks))), axis=0), (count, blocks.shape[1])).reshape(rows, -1)
        writer.add_tensor(name, data, raw_dtype=TYPES[quantised])

    def ones(name):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    matrix("token_embd.weight", VOCAB, WIDTH)
    ones("output_norm.weight")
    for i in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", HEADS * HEAD_DIM, WIDTH), ("attn_k", KV_HEADS * HEAD_DIM, WIDTH), ("attn_v", KV_HEADS * HEAD_DIM, WIDTH),
            ("attn_output", WIDTH, HEADS * HEAD_DIM), ("ffn_gate", FFN, WIDTH), ("ffn_up", FFN, WIDTH), ("ffn_down", WIDTH, FFN)):
            matrix(f"blk.{i}.{name}.weight", rows, columns)
        ones(f"blk.{i}.attn_norm.weight")
        ones(f"blk.{i}.ffn_norm.weight")
    finish(writer)


def make(name, quantised, source, folder):
    """Path of the model `name` (smollm2, 1b) in `quantised` under `folder`, made on first use."""
    path = Path(folder) / f"{name}.{quantised}.gguf"
    if not path.exists():
        part = path.with_suffix(f".part{os.getpid()}")
        (requantised if name == "smollm2" else random_1b)(source, part, quantised)
        part.replace(path)
    return path
