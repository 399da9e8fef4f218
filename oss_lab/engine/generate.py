"""From prompts to new tokens: prefill in chunks, then one token at a time for a whole batch.

The sampler knows tokens only; channels, messages and tools are Harmony's business. A row's random
numbers come from its own seed, so what it says does not depend on the rows beside it. Logits, not
text, are what two implementations can be compared by: near-ties turn on rounding.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import tiktoken
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.engine.cache import KVCache
from oss_lab.errors import LabError
from oss_lab.model import Taps, Transformer, untapped
from oss_lab.progress import progress

PREFILL_CHUNK = 512
LARGEST_SEED = 2**63 - 1  # row numbers are added to it, and torch takes 64 bits


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; filters apply in the order of the fields, each to what the
    one before it left.

    Attributes:
        temperature: 0 takes the likeliest token; 1 samples from the model's own distribution.
        top_k: keep the k likeliest.
        top_p: keep the likeliest tokens that together reach this probability.
        min_p: keep tokens of at least this share of the likeliest one's probability.
        seed: row n of a batch draws from seed + n; None takes a fresh seed.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = {
            "temperature": (self.temperature, 0 <= self.temperature < float("inf"), "0 or more"),
            "top_k": (self.top_k, self.top_k is None or self.top_k >= 1, "1 or more"),
            "top_p": (self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p, 0 <= self.min_p <= 1, "from 0 to 1"),
            "seed": (self.seed, self.seed is None or 0 <= self.seed <= LARGEST_SEED, "0 to 2^63-1"),
        }
        for name, (value, fits, bounds) in checks.items():
            if not fits:
                raise LabError(f"{name} is {value}; it must be {bounds}")


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        logprob: natural log of its probability under the model (temperature 1, nothing filtered).
        alternatives: the likeliest (id, logprob) pairs at this place, best first.
        forced: written by a budget, not chosen by the model.
    """

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()
    forced: bool = False


Force = Callable[[int], int | None]
"""row -> an id to write next, or None to let the model choose; asked once per row and token."""


def no_force(row: int) -> None:
    """Let the model choose every token."""


@torch.inference_mode()
def prefill(
    model: Transformer, tokens: Int[Tensor, "batch seq"], cache: KVCache, *, taps: Taps = untapped
) -> Float[Tensor, "batch vocab"]:
    """Fill the cache chunk by chunk; logits of the last token. Shows progress after two seconds."""
    chunks = tokens.split(PREFILL_CHUNK, dim=1)
    for chunk in progress(chunks[:-1], "prefill", "chunk"):
        model(chunk, cache, last=0, taps=taps)
    return model(chunks[-1], cache, last=1, taps=taps)[:, -1]


@torch.inference_mode()
def sequence_logits(
    model: Transformer, tokens: Sequence[int], last: int | None = None, taps: Taps = untapped
) -> Float[Tensor, "kept vocab"]:
    """float32 logits of the last `last` positions of one sequence (None: all), chunk by chunk."""
    check_tokens(tokens, model.config)
    first_kept = 0 if last is None else max(0, len(tokens) - last)
    return torch.cat([logits[0].float() for logits in read(model, tokens, first_kept, taps)])


@torch.inference_mode()
def read(
    model: Transformer, tokens: Sequence[int], first_kept: int = 0, taps: Taps = untapped
) -> Iterator[Float[Tensor, "1 kept vocab"]]:
    """Run through one sequence chunk by chunk; yields the logits from position `first_kept` on.

    Shows progress after two seconds, on a terminal.
    """
    cache = KVCache(model.config)
    row = torch.tensor([list(tokens)], device=model.device)
    chunks = row.split(PREFILL_CHUNK, dim=1)
    for chunk in progress(chunks, "read", "chunk"):
        end = cache.length + chunk.shape[1]
        yield model(chunk, cache, last=max(0, end - first_kept), taps=taps)


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Collection[int],
    max_tokens: int,
    sampling: Sampling = GREEDY,
    usable: Bool[Tensor, "vocab"] | None = None,
    alternatives: int = 0,
    force: Force = no_force,
    cache: KVCache | None = None,
    taps: Taps = untapped,
) -> Iterator[tuple[int, Token]]:
    """Yield (row, token) as they come; each row until a stop token (yielded too), max_tokens or
    the end of the context.

    Args:
        usable: ids that may be chosen; the rest of the vocabulary has no text.
        cache: of one row, holding some of the first tokens of the single prompt; the rest are
            prefilled into it.

    Raises:
        LabError: at once, for an empty prompt, an id outside the vocabulary, no room in the
            context, or a count that is out of bounds.
    """
    if not prompts:
        raise LabError("there is no prompt to continue")
    for row, prompt in enumerate(prompts):
        name = "the prompt" if len(prompts) == 1 else f"prompt {row}"
        check_tokens(prompt, model.config, name=name, spare=1)
    if max_tokens < 1:
        raise LabError(f"max_tokens is {max_tokens}; it must be 1 or more")
    if not 0 <= alternatives <= model.config.vocab_size:
        bound = model.config.vocab_size
        raise LabError(f"alternatives is {alternatives}; it must be from 0 to {bound}")
    if cache is None:
        tokens, padding = pad_left(prompts, model.device)
        cache = KVCache(model.config, len(prompts), padding=padding)
    else:
        if cache.batch != len(prompts) or cache.batch > 1 or cache.length >= len(prompts[0]):
            raise LabError(
                f"the cache holds {cache.batch} x {cache.length} tokens; it must be one row, and"
                " shorter than the single prompt"
            )
        tokens = torch.tensor([list(prompts[0][cache.length :])], device=model.device)
    context = model.config.max_context_length
    room = [min(max_tokens, context - len(prompt)) for prompt in prompts]
    choose_all = _Chooser(len(prompts), sampling, usable, alternatives, force)
    return _steps(model, tokens, cache, room, frozenset(stop), choose_all, taps)


@torch.inference_mode()
def _steps(
    model: Transformer,
    tokens: Int[Tensor, "batch seq"],
    cache: KVCache,
    room: list[int],
    stop: frozenset[int],
    choose_all: "_Chooser",
    taps: Taps,
) -> Iterator[tuple[int, Token]]:
    rows = list(range(len(room)))
    logits = prefill(model, tokens, cache, taps=taps)
    for count in range(1, max(room) + 1):
        following = choose_all(logits, rows)
        yield from zip(rows, following, strict=True)
        going = [
            n
            for n, (row, token) in enumerate(zip(rows, following, strict=True))
            if token.id not in stop and count < room[row]
        ]
        if not going:
            return
        if len(going) < len(rows):
            cache.select(torch.tensor(going, device=model.device))
            rows = [rows[n] for n in going]
        ids = torch.tensor([[following[n].id] for n in going], device=model.device)
        logits = model(ids, cache, last=1, taps=taps)[:, -1]


class _Chooser:
    """The next token of every row, with its log-probability; keeps each row's random numbers."""

    def __init__(
        self,
        rows: int,
        sampling: Sampling,
        usable: Bool[Tensor, "vocab"] | None,
        alternatives: int,
        force: Force,
    ) -> None:
        self.sampling, self.usable = sampling, usable
        self.alternatives, self.force = alternatives, force
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        self.draws = [torch.Generator().manual_seed(seed + row) for row in range(rows)]

    def __call__(self, logits: Float[Tensor, "batch vocab"], rows: list[int]) -> list[Token]:
        logprobs = logits.float().log_softmax(-1).cpu()
        allowed = logprobs
        if self.usable is not None:
            allowed = logprobs.masked_fill(~self.usable, -torch.inf)
        best = logprobs.topk(self.alternatives)
        tokens = []
        for n, row in enumerate(rows):
            forced = self.force(row)
            id = choose(allowed[n], self.sampling, self.draws[row]) if forced is None else forced
            alternatives = zip(best.indices[n].tolist(), best.values[n].tolist(), strict=True)
            logprob = logprobs[n, id].item()
            tokens.append(Token(id, logprob, tuple(alternatives), forced is not None))
        return tokens


def choose(logprobs: Float[Tensor, "vocab"], sampling: Sampling, draw: torch.Generator) -> int:
    """One token id from log-probabilities, by `sampling`."""
    if sampling.temperature == 0:
        return int(logprobs.argmax())
    ids, probabilities = filtered(logprobs, sampling)
    return int(ids[torch.multinomial(probabilities, 1, generator=draw)])


def filtered(
    logprobs: Float[Tensor, "vocab"], sampling: Sampling
) -> tuple[Int[Tensor, "kept"], Float[Tensor, "kept"]]:
    """The ids that the filters leave, likeliest first, and their probabilities (float64, sum 1)."""
    # Relative to the likeliest, so that no temperature above 0 can overflow all of them.
    relative = (logprobs.double() - logprobs.max()) / sampling.temperature
    ordered, ids = relative.softmax(-1).sort(descending=True, stable=True)
    kept = ordered[: sampling.top_k]
    kept = kept / kept.sum()
    if sampling.top_p < 1:
        # The token that crosses top_p is kept, so there always is one.
        kept = kept[: int((kept.cumsum(-1) - kept < sampling.top_p).sum())]
    kept = kept[kept >= sampling.min_p * kept[0]]
    kept = kept[kept > 0]
    return ids[: len(kept)], kept / kept.sum()


def usable_ids(encoding: tiktoken.Encoding, vocab_size: int) -> Bool[Tensor, "vocab"]:
    """Which rows of the unembedding may be generated: all but the reserved tokens'."""
    usable = torch.arange(vocab_size) < encoding.n_vocab
    for name in encoding.special_tokens_set:
        if name.startswith("<|reserved_"):
            usable[encoding.encode_single_token(name)] = False
    return usable


def check_tokens(
    tokens: Sequence[int], config: ModelConfig, *, name: str = "the sequence", spare: int = 0
) -> None:
    """Raise LabError for tokens the model cannot read, `spare` places for new ones included."""
    if not tokens:
        raise LabError(f"{name} is empty; give it at least one token")
    if len(tokens) + spare > config.max_context_length:
        room = " and has no room for an answer" if spare else ""
        raise LabError(
            f"{name} has {len(tokens)} tokens; the context is {config.max_context_length}{room}"
        )
    for place, token in enumerate(tokens):
        if isinstance(token, str):
            raise LabError(
                f"{name} is text, where token ids are wanted: `lab.chat(text)` gives a reply, and"
                " `lab.encoding.encode_ordinary(text)` ids"
            )
        if not 0 <= token < config.vocab_size:
            raise LabError(
                f"{name} has id {token} at position {place}; the vocabulary has ids"
                f" 0 to {config.vocab_size - 1}"
            )


def pad_left(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch"] | None]:
    """One tensor for prompts of any lengths, and how much of each row is padding (None: none)."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    padded = [[0] * short + list(prompt) for short, prompt in zip(padding, prompts, strict=True)]
    tokens = torch.tensor(padded, device=device)
    return tokens, torch.tensor(padding, device=device) if any(padding) else None
