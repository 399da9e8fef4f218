"""A ragged batch: requests that join and leave between steps, each computed as if it ran alone.

    batch = Batch(engine)
    rows = batch.add(requests)               # reads their prompts (prefill)
    for row, token in batch.step(): ...      # one token per row; repeat until `batch.rows` is empty

A step reads the previous step's tokens in one forward pass, then samples one token per row.
Requests that join together are padded to the same length. Requests that join later have a separate
cache until the next step, which merges caches of similar lengths. An interrupted step leaves the
batch unchanged, so it can be repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.engine.cache import JoinedCaches, KVCache
from oss_lab.engine.engine import Engine
from oss_lab.engine.merging import find_mergers, merge_caches
from oss_lab.engine.next_token import Sample, choose_tokens
from oss_lab.engine.read import Channels, Watch, forward, new_cache, pad_left, prefill
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow, RowError
from oss_lab.engine.sampler import sample
from oss_lab.errors import LabError
from oss_lab.record.token import Token

MOST_GROUPS = 1  # more are merged, a copy that takes less time than reading the new prompt


@dataclass(eq=False)
class RowGroup:
    """Rows that share a cache.

    Attributes:
        logits: for each row's next token; None until the last token has been read.
        is_borrowed: whether the cache belongs to the caller, who expects it to be extended.
    """

    rows: list[BatchRow]
    cache: KVCache
    logits: Float[Tensor, "row vocab"] | None
    is_borrowed: bool = False

    def keep(self, rows: list[BatchRow]) -> None:
        """Drop all rows but these."""
        if len(rows) < len(self.rows):
            places = [self.rows.index(row) for row in rows]
            if rows:
                self.cache.select(places)
                self.logits = None if self.logits is None else self.logits[places]
            self.rows = rows


class Batch:
    """The rows that one engine is working on.

    Args:
        usable: True for each id that may be generated [vocab]; None allows all.
        channels: finds the channel of every token, for interventions on channels.
        watch: wraps the chunks of the prompts, to show progress.
        sample: chooses the next token of each row; arguments as in `sampler.sample`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        usable: Bool[Tensor, "vocab"] | None = None,
        channels: Channels | None = None,
        watch: Watch = iter,
        sample: Sample = sample,
    ) -> None:
        self.sample = sample
        self.engine, self.channels, self.watch = engine, channels, watch
        self._barrier = None if usable is None else build_barrier(usable, engine.device)
        self.groups: list[RowGroup] = []
        self._joined = 0

    @property
    def rows(self) -> list[BatchRow]:
        """The rows that are not done yet."""
        return [row for group in self.groups for row in group.rows]

    @torch.inference_mode()
    def add(self, requests: Sequence[Request], cache: KVCache | None = None) -> list[BatchRow]:
        """Read the prompts of new requests and add them to the batch as rows.

        Args:
            cache: holds the first tokens of the prompt, which are not read again. Allowed only for
                a single request that records nothing. It has one row without padding, and is
                extended in place. Without one, sliding layers keep only their window.

        Raises:
            LabError: a prompt is empty, has an unknown id or leaves no room in the context.
        """
        if not requests:
            raise LabError("expected at least one prompt, got none")
        for n, request in enumerate(requests):
            name = "the prompt" if len(requests) == 1 else f"prompt {n}"
            request.check(self.engine.config, name)
            check_supported(self.engine, request)
        rows = [BatchRow(each, self._joined + n, self.engine) for n, each in enumerate(requests)]
        tokens, padding = pad_left([request.tokens for request in requests], self.engine.device)
        is_borrowed = cache is not None
        if cache is None:
            cache = new_cache(self.engine, len(rows), padding)
        else:
            check_cache(cache, requests)
        first_kept = tokens.shape[1] - any(row.room for row in rows)
        logits = tokens.new_zeros(0)
        for part in prefill(
            self.engine, rows, tokens, cache, first_kept, self.channels, self.watch
        ):
            logits = part
        unfinished = [row for row in rows if not row.is_done]
        if unfinished:
            group = RowGroup(rows, cache, logits[:, -1], is_borrowed)
            group.keep(unfinished)
            self.groups.append(group)
        self._joined += len(rows)
        return rows

    @torch.inference_mode()
    def step(self) -> list[tuple[BatchRow, Token]]:
        """Sample one token for every row; rows that are done then leave.

        Raises:
            RowError: the constraint of a row failed, or its logits are not finite; the others can
                continue if you remove it.
        """
        self._read()
        rows, logits = self.rows, [g.logits for g in self.groups if g.logits is not None]
        if not rows:
            return []
        random_rows = [row for row in rows if row.request.sampling.temperature > 0]
        states = [row.random_stream.state for row in random_rows]
        together = torch.cat(logits) if logits[1:] else logits[0]
        try:
            chosen = choose_tokens(rows, together, self._barrier, self.sample)
        except BaseException as error:
            for row, state in zip(random_rows, states, strict=True):
                row.random_stream.state = state
            if isinstance(error, LabError) and not isinstance(error, RowError):
                raise RowError(self._find_faulty(rows, together), str(error)) from None
            raise
        found = list(zip(rows, chosen, strict=True))
        for row, token in found:
            row.tokens.append(token)
            if token.forced:
                row.forced.popleft()
        for group in self.groups:
            group.keep([row for row in group.rows if not row.is_done])
            group.logits = None
        self.groups = [group for group in self.groups if group.rows]
        return found

    def remove(self, row: BatchRow) -> None:
        """Remove a row before it is done."""
        for group in self.groups:
            group.keep([each for each in group.rows if each is not row])
        self.groups = [group for group in self.groups if group.rows]

    def __iter__(self) -> Iterator[tuple[BatchRow, Token]]:
        """Yield every token of every row, until all rows are done.

        A row that leaves still yields its token of the current step.
        """
        while self.groups:
            yield from self.step()

    def _read(self) -> None:
        """Read the last token of every row that has no logits yet, in one forward pass."""
        waiting = [group for group in self.groups if group.logits is None]
        if not waiting:
            return
        if len(waiting) > MOST_GROUPS:
            self._merge(waiting)
            waiting = [group for group in self.groups if group.logits is None]
        rows = [row for group in waiting for row in group.rows]
        last = [[row.tokens[-1].id] for row in rows]
        caches = [group.cache for group in waiting]
        past = caches[0] if len(caches) == 1 else JoinedCaches(caches)
        ids = torch.tensor(last, device=self.engine.device)
        lengths = [cache.length for cache in caches]
        try:
            logits = forward(self.engine, ids, past, rows, 1, self.channels, is_prefill=False)
        except BaseException:  # the caches may have advanced already
            for cache, length in zip(caches, lengths, strict=True):
                cache.truncate(length)
            raise
        logits = logits[:, -1]
        parts = logits.split([group.cache.batch for group in waiting]) if caches[1:] else [logits]
        for group, part in zip(waiting, parts, strict=True):
            group.logits = part

    def _merge(self, waiting: Sequence[RowGroup]) -> None:
        """Merge those of the waiting groups whose caches have similar lengths."""
        own = [group for group in waiting if not group.is_borrowed]
        merged, gone = [], set[int]()
        for numbers in find_mergers(group.cache.length for group in own):
            parts = [own[number] for number in numbers]
            rows = [row for group in parts for row in group.rows]
            merged.append(RowGroup(rows, merge_caches([each.cache for each in parts]), None))
            gone |= {id(group) for group in parts}
        self.groups = [each for each in self.groups if id(each) not in gone] + merged

    def _find_faulty(
        self, rows: Sequence[BatchRow], logits: Float[Tensor, "row vocab"]
    ) -> BatchRow:
        """The first row for which no token can be chosen."""
        for n, row in enumerate(rows):
            state = row.random_stream.state
            try:
                choose_tokens([row], logits[n : n + 1], self._barrier, self.sample)
            except LabError:
                return row
            finally:
                row.random_stream.state = state
        return rows[-1]


def build_barrier(usable: Bool[Tensor, "vocab"], device: torch.device) -> Float[Tensor, "vocab"]:
    """0 for each id that may be generated, -inf for the others (float32)."""
    barrier = torch.zeros(len(usable), device=device)
    return barrier.masked_fill(~usable.to(device), -torch.inf)


def check_cache(cache: KVCache, requests: Sequence[Request]) -> None:
    """Raise LabError for a cache that these requests cannot start from."""
    if len(requests) > 1 or cache.batch > 1 or cache.length >= len(requests[0].tokens):
        raise LabError(
            f"the cache has {cache.batch} x {cache.length} (rows x tokens); expected one row,"
            " shorter than the single prompt"
        )
    if cache.padding is not None and cache.padding.any():
        raise LabError(f"the cache has {int(cache.padding)} slots of padding; give one without")
    if cache.length and requests[0].selection is not None:
        raise LabError(
            f"the {cache.length} tokens in the cache are not computed again, so they cannot be"
            " recorded; leave the cache out"
        )


def check_supported(engine: Engine, request: Request) -> None:
    """Raise LabError for a request that the engine cannot serve."""
    if reason := engine.explain_refusal(request.reads, request.writes):
        raise LabError(
            f"the {engine.name} kernels cannot serve this request ({reason}); use the reference"
            " engine"
        )
