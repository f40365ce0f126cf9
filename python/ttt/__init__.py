"""TTTv2: transformer building blocks for Tenstorrent hardware, and for the processor you have.

    import ttt

    model = ttt.load("model.gguf")
    print(model.generate("The capital of France is").text)
    for delta in model.chat([{"role": "user", "content": "Hi"}], stream=True):
        print(delta.text, end="", flush=True)

Names and meanings are those of the C++ headers. Errors are ``ttt.Error``. The GIL is released while something computes, and
Ctrl-C ends it between two steps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Literal, overload

from . import debug, perf, tests
from ._core import (
    Batch,
    Capabilities,
    CausalLM,
    ChatTemplate,
    Description,
    GenerationDelta,
    GenerationResult,
    GenerationTimings,
    Generator,
    GeneratorStats,
    GoldenResult,
    GoldenRun,
    KvLayerSpec,
    ModelSpec,
    PerplexityResult,
    PositionLogprobs,
    SamplingParams,
    State,
    Stream,
    StreamDecoder,
    Taps,
    Tensor,
    TokenAccuracyResult,
    Tokenizer,
    TokenLogprob,
    WeightMap,
    backend_names,
    evaluate_golden,
    evaluate_perplexity,
    evaluate_tokens,
    precision_names,
    skus,
    version,
)
from ._core import describe as _describe
from ._core import families as _families
from ._error import Error
from ._libraries import PathLike, all_libraries, model_libraries

__version__: str = version()

__all__ = [
    "Batch", "Capabilities", "CausalLM", "ChatTemplate", "Description", "Error", "GenerationDelta", "GenerationResult",
    "GenerationTimings", "Generator", "GeneratorStats", "GoldenResult", "GoldenRun", "KvLayerSpec", "Model", "ModelSpec",
    "PerplexityResult", "PositionLogprobs", "SamplingParams", "State", "Stream", "StreamDecoder", "Taps", "Tensor",
    "TokenAccuracyResult", "TokenLogprob", "Tokenizer", "WeightMap", "backend_names", "debug", "describe", "evaluate_golden",
    "evaluate_perplexity", "evaluate_tokens", "families", "load", "model_libraries", "perf", "precision_names", "skus",
    "tests", "version",
]

Prompt = str | Sequence[int]


def _sampling(sampling: SamplingParams | None, fields: dict[str, Any]) -> SamplingParams:
    if sampling is None:
        return SamplingParams(**fields)
    if fields:
        raise TypeError("give SamplingParams or their fields, not both")
    return sampling


class Model(CausalLM):
    """A model with a generator of its own. ``load()`` makes one.

    ``spec`` and ``weight_map`` describe the network in place of a model library: an experiment without a compiler.
    """

    def __init__(self, path: PathLike, *, spec: ModelSpec | None = None, weight_map: WeightMap | None = None,
                 backend: str = "cpu", sku: str = "", mesh: str = "", precision: str = "",
                 overrides: PathLike | None = None, threads: int = 0, deterministic: bool = False,
                 cache: PathLike | None = None, model_libraries: Sequence[PathLike] = ()) -> None:
        super().__init__(path, spec=spec, weight_map=weight_map, backend=backend, sku=sku, mesh=mesh, precision=precision,
                         overrides=overrides, threads=threads, deterministic=deterministic, cache=cache,
                         model_libraries=all_libraries(model_libraries))
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        self._generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        """What generate(), stream() and chat() use: a Generator with default options, made on first use."""
        with self._lock:
            if self._generator is None:
                self._generator = Generator(self)
            return self._generator

    @overload
    def generate(self, prompt: Prompt, sampling: SamplingParams | None = None, **fields: Any) -> GenerationResult: ...

    @overload
    def generate(self, prompt: list[str], sampling: SamplingParams | None = None,
                 **fields: Any) -> list[GenerationResult]: ...

    def generate(self, prompt, sampling=None, **fields):
        """Continues a text or token ids. A list of texts or of id lists runs as one batch and gives a list.

        ``fields`` are those of SamplingParams: ``model.generate("Once", max_new_tokens=20, temperature=0.8, seed=1)``.
        """
        sampling = _sampling(sampling, fields)
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            return self.generator.generate_batch(prompt, sampling)
        return self.generator.generate(prompt, sampling)

    def stream(self, prompt: Prompt, sampling: SamplingParams | None = None, **fields: Any) -> Stream:
        """The same as an iterator of GenerationDelta. Dropping the iterator cancels the request."""
        return self.generator.stream(prompt, _sampling(sampling, fields))

    @overload
    def chat(self, messages: list[dict], sampling: SamplingParams | None = None, *, stream: Literal[False] = False,
             tools: list[dict] | None = None, variables: dict | None = None, **fields: Any) -> GenerationResult: ...

    @overload
    def chat(self, messages: list[dict], sampling: SamplingParams | None = None, *, stream: Literal[True],
             tools: list[dict] | None = None, variables: dict | None = None, **fields: Any) -> Stream: ...

    def chat(self, messages, sampling=None, *, stream=False, tools=None, variables=None, **fields):
        """The answer to a conversation: messages as OpenAI clients send them, rendered by the checkpoint's template."""
        template, tokenizer = self.chat_template, self.tokenizer
        if template is None or tokenizer is None:
            raise Error("no chat template or no tokenizer", self.family, "use generate() with a text")
        ids = template.encode(tokenizer, messages, tools=tools, variables=variables)
        run = self.generator.stream if stream else self.generator.generate
        return run(ids, _sampling(sampling, fields))


def load(path: PathLike, **options: Any) -> Model:
    """Loads a Hugging Face folder or a GGUF file; the options are those of ``Model``. Weights convert on first use."""
    return Model(path, **options)


def describe(path: PathLike, *, model_libraries: Sequence[PathLike] = ()) -> Description:
    """Spec and weight map of a checkpoint without touching a weight; a folder with a config.json is enough."""
    return _describe(path, model_libraries=all_libraries(model_libraries))


def families(model_libraries: Sequence[PathLike] = ()) -> list[dict]:
    """The families that the installed and the given libraries provide: name, architectures, gguf, library."""
    return _families(all_libraries(model_libraries))
