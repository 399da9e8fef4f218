"""The two sides of the benchmark: our model and transformers', on the same checkpoint."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from oss_kernels.backends import Backend
from torch import Tensor

from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import generate, prefill
from oss_lab.engine.loading import load_model
from oss_lab.model import Transformer
from oss_lab.proof.transformers_model import transformers_model

NEW = 200
"""Tokens that are decoded."""


class Side(Protocol):
    """What is timed, of us and of them."""

    def first_token(self, tokens: Tensor) -> int:
        """Prefill an empty cache and choose a token."""
        ...

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        """Prefill now; what is returned decodes NEW tokens, each fed back."""
        ...

    def generate(self, tokens: Tensor) -> None:
        """The library's own loop: prefill, and NEW tokens."""
        ...


class Ours:
    """`oss_lab.model` under `oss_lab.engine.generate`."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, kernels: Backend) -> None:
        self.model: Transformer = load_model(checkpoint, dtype=dtype, kernels=kernels)

    def first_token(self, tokens: Tensor) -> int:
        return int(prefill(self.model, tokens, KVCache(self.model.config)).argmax())

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        cache = KVCache(self.model.config)
        following = prefill(self.model, tokens, cache).argmax(-1)

        def decode() -> None:
            token = following
            for _ in range(NEW):
                token = self.model(token[:, None], cache, last=1)[:, -1].argmax(-1)

        return decode

    def generate(self, tokens: Tensor) -> None:
        written = generate(self.model, tokens.tolist(), stop=(), max_tokens=NEW)
        assert sum(1 for _ in written) == NEW


class Theirs:
    """transformers' GptOssForCausalLM from the Hugging Face layout, experts dequantised at load."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self.model: Any = transformers_model(checkpoint, dtype)

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
