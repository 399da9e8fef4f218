"""The sides of the benchmark that run in this process: our engine and transformers."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from oss_lab.bench.measure import OURS
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import Engines
from oss_lab.engine.read import new_cache
from oss_lab.engine.request import Request

Timed = Callable[[], float]
"""Does the work once; returns the seconds that it took, without what prepares it."""


class Side(Protocol):
    """A program that runs the model. A method returns None if the program cannot do it."""

    name: str

    def prefill(self, prompt: Int[Tensor, "batch seq"]) -> Timed | None:
        """Read a prompt and compute the logits of the next token."""
        ...

    def decode(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed | None:
        """Read a prompt, then decode `count` tokens; only the second part is timed."""
        ...

    def generate(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed | None:
        """The program's own loop: read a prompt and generate `count` tokens; all of it is timed."""
        ...


class Ours:
    """Our model, run by an engine of `oss_lab.engine`."""

    name = OURS

    def __init__(self, engines: Engines) -> None:
        self.engine = engines.main

    def prefill(self, prompt: Int[Tensor, "batch seq"]) -> Timed:
        def read() -> None:
            cache = new_cache(self.engine, len(prompt), None)
            self.engine.forward(prompt, cache, last=1)[:, -1].argmax(-1)

        return partial(time_inference, read)

    def decode(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed:
        @torch.inference_mode()
        def run() -> float:
            cache = new_cache(self.engine, len(prompt), None)
            token = self.engine.forward(prompt, cache, last=1)[:, -1].argmax(-1)

            def decode_tokens(token: Tensor = token) -> None:
                for _ in range(count):
                    logits = self.engine.forward(token[:, None], cache, last=1)
                    token = logits[:, -1].argmax(-1)

            return time_inference(decode_tokens)

        return run

    def generate(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed:
        requests = [Request(tuple(row), max_tokens=count) for row in prompt.tolist()]

        def run() -> None:
            batch = Batch(self.engine)
            batch.add(requests)
            assert sum(1 for _ in batch) == count * len(requests)

        return partial(time_inference, run)


class Theirs:
    """transformers' GptOssForCausalLM with its defaults.

    It dequantizes the experts when it loads. Attention is eager, the only kind that it has for
    gpt-oss on a CPU.
    """

    name = "transformers"

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, prompt: Int[Tensor, "batch seq"]) -> Timed:
        return partial(time_inference, lambda: self._read(prompt))

    def decode(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed:
        @torch.inference_mode()
        def run() -> float:
            cache, token = self._read(prompt)

            def decode_tokens(token: Tensor = token) -> None:
                for _ in range(count):
                    out = self.model(token[:, None], past_key_values=cache, use_cache=True)
                    token = out.logits[:, -1].argmax(-1)

            return time_inference(decode_tokens)

        return run

    def generate(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed:
        def run() -> None:
            written = self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
            assert written.shape[1] == prompt.shape[1] + count

        return partial(time_inference, run)

    def _read(self, prompt: Int[Tensor, "batch seq"]) -> tuple[Any, Int[Tensor, "batch"]]:
        """The cache and the next token."""
        out = self.model(prompt, use_cache=True, logits_to_keep=1)
        return out.past_key_values, out.logits[:, -1].argmax(-1)


@torch.inference_mode()
def time_inference(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
