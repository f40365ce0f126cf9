#!/usr/bin/env python3
"""Writes tests/runtime/data/sampling.json: logits through transformers' own processors, in the order of docs/generation.md.

Usage: tools/sampling_goldens.py > tests/runtime/data/sampling.json      (needs torch and transformers)

Presence and frequency penalties, which transformers does not have, follow OpenAI's published formula.
"""
import json
import math
import random

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCAB = 48


def numbers(tensor):
    return [None if math.isinf(v) else v for v in tensor.tolist()]


def case(rng, index):
    torch.manual_seed(index)
    logits = torch.randn(1, VOCAB) * rng.choice([0.5, 2.0, 6.0])
    if index % 5 == 0:  # ties
        logits = torch.round(logits)
    prompt = [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 12))]
    output = [rng.randrange(VOCAB) for _ in range(rng.randrange(0, 12))]
    params = {
        "repetition_penalty": rng.choice([1.0, 1.0, 1.3, 0.8, 2.5]),
        "presence_penalty": rng.choice([0.0, 0.0, 0.7, -0.5]),
        "frequency_penalty": rng.choice([0.0, 0.0, 0.4, -0.25]),
        "temperature": rng.choice([1.0, 0.7, 0.25, 1.8]),
        "top_k": rng.choice([0, 0, 1, 5, 20, 100]),
        "top_p": rng.choice([1.0, 1.0, 0.9, 0.5, 0.1]),
        "min_p": rng.choice([0.0, 0.0, 0.05, 0.3, 1.0]),
    }
    ids = torch.tensor([prompt + output])
    scores = logits.clone()
    if params["repetition_penalty"] != 1.0:
        scores = RepetitionPenaltyLogitsProcessor(params["repetition_penalty"])(ids, scores)
    counts = torch.bincount(torch.tensor(output, dtype=torch.long), minlength=VOCAB).float()[None]
    scores = scores - params["frequency_penalty"] * counts - params["presence_penalty"] * (counts > 0)
    penalised = scores.clone()
    scores = TemperatureLogitsWarper(params["temperature"])(ids, scores)
    if params["top_k"] > 0:
        scores = TopKLogitsWarper(params["top_k"])(ids, scores)
    if params["top_p"] < 1:
        # With a stable order of equal logits, so that which of them stay is defined: the smaller ids.
        shifted = scores.double() - torch.arange(VOCAB) * 1e-9
        keep = TopPLogitsWarper(params["top_p"])(ids, shifted)
        scores = scores.masked_fill(torch.isinf(keep), -math.inf)
    if params["min_p"] > 0:
        scores = MinPLogitsWarper(params["min_p"])(ids, scores)
    logprobs = torch.log_softmax(logits[0].double(), -1)
    top = sorted(range(VOCAB), key=lambda i: (-logits[0][i].item(), i))[:5]
    return {
        "prompt": prompt,
        "output": output,
        "params": params,
        "logits": numbers(logits[0]),
        "penalised": numbers(penalised[0]),
        "probabilities": torch.softmax(scores[0].double(), -1).tolist(),
        "logprobs": logprobs.tolist(),
        "top": top,
    }


def main():
    rng = random.Random(20)
    cases = [case(rng, index) for index in range(60)]
    print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")


main()
