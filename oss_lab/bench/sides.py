"""The two sides of the benchmark: our model and transformers, on the same checkpoint."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from oss_kernels.backends import Backend
from torch import Tensor

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import Engines
from oss_lab.engine.request import Request
from oss_lab.proof.transformers_model import load_transformers_model

NEW = 200
"""Number of tokens to decode."""


class Side(Protocol):
    """The operations that are timed on both sides."""

    def first_token(self, tokens: Tensor) -> int:
        """Prefill an empty cache and choose a token."""
        ...

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        """Prefill now, and return a function that decodes NEW tokens."""
        ...

    def generate(self, tokens: Tensor) -> None:
        """Run the library's generation loop: prefill, then NEW tokens."""
        ...


class Ours:
    """Our model, run by an engine of `oss_lab.engine`."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, kernels: Backend) -> None:
        self.engine = Engines(load_model(checkpoint, dtype=dtype), kernels).main

    @torch.inference_mode()
    def first_token(self, tokens: Tensor) -> int:
        cache = KVCache(self.engine.config)
        return int(self.engine.forward(tokens, cache, last=1)[:, -1].argmax())

    @torch.inference_mode()
    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        cache = KVCache(self.engine.config)
        following = self.engine.forward(tokens, cache, last=1)[:, -1].argmax(-1)

        @torch.inference_mode()
        def decode() -> None:
            token = following
            for _ in range(NEW):
                logits = self.engine.forward(token[:, None], cache, last=1)
                token = logits[:, -1].argmax(-1)

        return decode

    def generate(self, tokens: Tensor) -> None:
        batch = Batch(self.engine)
        batch.add([Request(tuple(tokens[0].tolist()), max_tokens=NEW)])
        assert sum(1 for _ in batch) == NEW


class Theirs:
    """transformers' GptOssForCausalLM, which dequantizes the experts when it loads."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self.model: Any = load_transformers_model(checkpoint, dtype)

    def first_token(self, tokens: Tensor) -> int:
        return int(self.model(tokens, use_cache=True, logits_to_keep=1).logits.argmax())

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        out = self.model(tokens, use_cache=True, logits_to_keep=1)
        cache, following = out.past_key_values, out.logits[:, -1].argmax(-1)

        def decode() -> None:
            token = following
            for _ in range(NEW):
                out = self.model(token[:, None], past_key_values=cache, use_cache=True)
                token = out.logits[:, -1].argmax(-1)

        return decode

    def generate(self, tokens: Tensor) -> None:
        written = self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
        assert written.shape[1] == tokens.shape[1] + NEW
