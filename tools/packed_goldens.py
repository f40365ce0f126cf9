#!/usr/bin/env python3
"""Writes tests/convert/data/{fp8,mxfp4,gptq,gptq3,awq,compressed}/: small checkpoints of packed weights, each with expected.safetensors, the numbers that
they stand for. FP8 and MXFP4 by transformers' own code, compressed-tensors by its package; GPTQ and AWQ packed here from known integers, as
their formats define it. Needs: pip install torch transformers safetensors compressed-tensors
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

DATA = pathlib.Path(__file__).parents[1] / "tests/convert/data"


def write(name, tensors, expected, quantization):
    folder = DATA / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    config = {"architectures": ["X"], "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def fp8(rng):
    def values(*shape):
        return torch.randn(*shape, generator=rng).to(torch.float8_e4m3fn)

    def scale(*shape):
        return torch.rand(*shape, generator=rng) + 0.5

    blocks, channel, single = values(40, 24), values(6, 8), values(4, 8)
    block_scale, channel_scale, single_scale = scale(3, 2), scale(6, 1), scale(1)
    wide = block_scale.repeat_interleave(16, 0)[:40].repeat_interleave(16, 1)[:, :24]
    write(
        "fp8",
        {"block.weight": blocks, "block.weight_scale_inv": block_scale, "channel.weight": channel, "channel.weight_scale": channel_scale,
         "single.weight": single, "single.weight_scale": single_scale, "single.input_scale": scale(1), "norm.weight": torch.ones(4)},
        {"block.weight": blocks.float() * wide, "channel.weight": channel.float() * channel_scale, "single.weight": single.float() * single_scale,
         "norm.weight": torch.ones(4)},
        {"quant_method": "fp8", "weight_block_size": [16, 16]},
    )  # fmt: skip


def mxfp4(rng):
    blocks = torch.randint(0, 256, (2, 3, 2, 16), generator=rng, dtype=torch.uint8)
    scales = torch.randint(110, 140, (2, 3, 2), generator=rng, dtype=torch.uint8)
    write(
        "mxfp4",
        {"experts.gate_up_proj_blocks": blocks, "experts.gate_up_proj_scales": scales, "experts.gate_up_proj_bias": torch.ones(2, 3)},
        {"experts.gate_up_proj": convert_moe_packed_tensors(blocks, scales, dtype=torch.float32), "experts.gate_up_proj_bias": torch.ones(2, 3)},
        {"quant_method": "mxfp4"},
    )  # fmt: skip


def pack_bits(numbers, bits):
    """numbers [n, m] -> int32 [n * bits / 32, m], the n numbers of a column one after the other from the lowest bit."""
    n, m = numbers.shape
    words = [[0] * m for _ in range(n * bits // 32)]
    for i in range(n):
        for j in range(m):
            value, at = int(numbers[i, j]), i * bits
            words[at // 32][j] |= value << at % 32 & 0xFFFFFFFF
            if at % 32 + bits > 32:
                words[at // 32 + 1][j] |= value >> 32 - at % 32
    return torch.tensor([[w - (1 << 32) if w >> 31 else w for w in row] for row in words], dtype=torch.int32)


def gptq(rng, name, bits, act_order):
    inputs, outputs, groups = 64, 32, 4
    numbers = torch.randint(0, 1 << bits, (inputs, outputs), generator=rng)
    zeros = torch.randint(1, 1 << bits, (groups, outputs), generator=rng)
    scales = (torch.rand(groups, outputs, generator=rng) + 0.1).half()
    g_idx = torch.arange(inputs) // (inputs // groups)
    if act_order:
        g_idx = g_idx[torch.randperm(inputs, generator=rng)]
    tensors = {"q.qweight": pack_bits(numbers, bits), "q.qzeros": pack_bits((zeros - 1).T, bits).T, "q.scales": scales, "q.bias": torch.ones(outputs)}
    if act_order:
        tensors["q.g_idx"] = g_idx.int()
    expected = (scales.float()[g_idx] * (numbers - zeros[g_idx])).T
    write(name, tensors, {"q.weight": expected, "q.bias": torch.ones(outputs)}, {"quant_method": "gptq", "bits": bits, "group_size": inputs // groups})


def awq(rng):
    inputs, outputs, groups = 32, 16, 2
    numbers = torch.randint(0, 16, (inputs, outputs), generator=rng)
    zeros = torch.randint(0, 16, (groups, outputs), generator=rng)
    scales = (torch.rand(groups, outputs, generator=rng) + 0.1).half()

    def pack(n):
        order = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word holds column order[i]
        words = n.reshape(n.shape[0], -1, 8)[:, :, order]
        packed = sum(words[:, :, i].long() << 4 * i for i in range(8))
        return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).int()

    g = torch.arange(inputs) // (inputs // groups)
    expected = (scales.float()[g] * (numbers - zeros[g])).T
    write("awq", {"q.qweight": pack(numbers), "q.qzeros": pack(zeros), "q.scales": scales}, {"q.weight": expected},
          {"quant_method": "awq", "bits": 4, "group_size": inputs // groups})  # fmt: skip


def compressed(rng):
    """Each format of compressed-tensors, packed and unpacked by the package itself."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    tensors, expected = {}, {}

    def add(name, kind, shape, arguments, scale, **more):
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
        compressor = BaseCompressor.get_value_from_registry(kind)
        state = {"weight": torch.randn(*shape, generator=rng), "weight_scale": scale, **more}
        packed = compressor.compress(state, scheme)
        if packed.get("weight_packed", torch.empty(0)).dtype == torch.uint8:  # the package rounds these to bfloat16
            numbers = unpack_fp4_from_uint8(packed["weight_packed"], *shape).float()
            numbers = dequantize(numbers, scale, args=scheme.weights, global_scale=more.get("weight_global_scale"), dtype=torch.float32)
        else:
            numbers = compressor.decompress(packed, scheme)["weight"]
        tensors.update({f"{name}.{key}": value.detach() for key, value in packed.items()})
        expected[f"{name}.weight"] = numbers.float()

    def scale(*shape):
        return torch.rand(*shape, generator=rng) * 0.2 + 0.1

    def zeros(low, high, *shape):
        return torch.randint(low, high, shape, generator=rng, dtype=torch.int8)

    integers = {"type": "int", "symmetric": True}
    add("w4", "pack-quantized", (6, 64), {**integers, "num_bits": 4, "strategy": "group", "group_size": 32}, scale(6, 2))
    add("w4_zero", "pack-quantized", (10, 64), {**integers, "num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": False}, scale(10, 4),
        weight_zero_point=zeros(-8, 8, 10, 4))
    add("w8", "pack-quantized", (5, 30), {**integers, "num_bits": 8, "strategy": "channel"}, scale(5, 1) / 20)
    add("int8", "int-quantized", (6, 32), {**integers, "num_bits": 8, "strategy": "channel"}, scale(6, 1) / 20)
    add("int8_zero", "int-quantized", (6, 32), {**integers, "num_bits": 8, "strategy": "channel", "symmetric": False}, scale(6, 1) / 20,
        weight_zero_point=zeros(-100, 100, 6, 1))
    add("float8", "float-quantized", (6, 32), {"type": "float", "num_bits": 8, "strategy": "channel", "symmetric": True}, scale(6, 1) / 20)
    add("nvfp4", "nvfp4-pack-quantized", (6, 64), {"type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 16, "symmetric": True},
        (scale(6, 4) * 40).to(torch.float8_e4m3fn).float(), weight_global_scale=torch.tensor([37.0]))
    add("mxfp4", "mxfp4-pack-quantized", (6, 64), {"type": "float", "num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": True},
        torch.exp2(torch.randint(-6, 2, (6, 2), generator=rng).float()))
    write("compressed", tensors, expected, {"quant_method": "compressed-tensors", "format": "mixed-precision"})


def main():
    rng = torch.Generator().manual_seed(1)
    fp8(rng)
    mxfp4(rng)
    gptq(rng, "gptq", 4, True)
    gptq(rng, "gptq3", 3, False)
    awq(rng)
    compressed(rng)


if __name__ == "__main__":
    main()
