"""Log-probabilities of tokens, as both APIs write them."""

import math
from collections.abc import Iterable
from typing import Any

import tiktoken

from oss_lab.harmony.specials import token_bytes
from oss_lab.record.token import Token

IMPOSSIBLE = -9999.0  # what the API writes for a probability of 0, which JSON cannot write as a log


def write_logprobs(encoding: tiktoken.Encoding, tokens: Iterable[Token]) -> list[dict[str, Any]]:
    """Each token with its log-probability in nats and its alternatives, most likely first."""
    return [
        {
            **write_token(encoding, token.id, token.logprob),
            "top_logprobs": [write_token(encoding, *each) for each in token.alternatives],
        }
        for token in tokens
    ]


def write_token(encoding: tiktoken.Encoding, id: int, logprob: float) -> dict[str, Any]:
    data = token_bytes(encoding, id) or b""
    text = data.decode("utf-8", errors="replace")
    shown = logprob if math.isfinite(logprob) else IMPOSSIBLE
    return {"token": text, "logprob": shown, "bytes": list(data)}
