"""A tree of what could have been said: change a token, draw again, intervene, and go on from there.

    tree = Tree(lab, lab.chat("What is 58 * 7?"))
    edited = tree.branch(tree.root, at=69, write="9")
    tree.reply(edited).final, tree.compare(tree.root, edited).texts

Positions count from the beginning of the whole sequence. A branch at position n shares what its
parent's cache holds of the tokens before n - 1. The token at n - 1 goes through the model again,
since what comes at n is predicted there, and so does everything behind it, under the interventions
in force when the branch is made. What lies before keeps what was computed for it: an intervention
that begins with a branch never reaches back, and one that ended stays in the keys and values of the
positions where it held. For a prefix under other interventions begin another tree.
"""

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from tiktoken import Encoding
from torch import Tensor

from oss_lab.cache import KVCache
from oss_lab.errors import LabError
from oss_lab.generate import PREFILL_CHUNK, Sampling, Token, check_tokens, generate
from oss_lab.harmony import Conversation, End, StreamParser
from oss_lab.harmony.specials import START, specials, token_bytes
from oss_lab.inside import Prompt
from oss_lab.interventions import Intervention
from oss_lab.interventions.changes import Both, Changes, Effect
from oss_lab.lab import MAX_TOKENS, Lab
from oss_lab.model import Taps, untapped
from oss_lab.points import ALWAYS
from oss_lab.reply import Reply, ReplyBuilder, Timing
from oss_lab.tracing.cost import BUDGET, check_budget
from oss_lab.tracing.diff import differences
from oss_lab.tracing.recording import Recording, Selection
from oss_lab.tracing.run import assembled
from oss_lab.tracing.trace import Trace

ROUNDING = 1e-4  # the same values, computed in pieces of other lengths, differ by less in float32
SHOWN = 64  # characters of a node in the listing of a tree


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A stretch of tokens behind a part of its parent's sequence.

    Attributes:
        number: its place in `Tree.nodes`.
        start: position of its first token; the parent's tokens before it come first.
        tokens: what was given (`forced`), then what the model wrote.
        interventions: in force from position start - 1 on.
        sampling: by which the model wrote, its seed included; None where it wrote nothing.
        cache: keys and values of the whole sequence but its last token, which nothing has followed.
    """

    number: int
    parent: "Node | None"
    start: int
    tokens: tuple[Token, ...]
    interventions: tuple[Intervention, ...]
    sampling: Sampling | None
    cache: KVCache = field(repr=False)

    def __repr__(self) -> str:
        return f"<node {self.number}: positions {self.start}-{self.start + len(self.tokens) - 1}>"

    @property
    def sequence(self) -> tuple[Token, ...]:
        """All tokens from the beginning on. The log-probability of the first is NaN."""
        before = () if self.parent is None else self.parent.sequence[: self.start]
        return (*before, *self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of `sequence`."""
        return tuple(token.id for token in self.sequence)

    @property
    def computed(self) -> tuple[tuple[int, int, tuple[Intervention, ...]], ...]:
        """(begin, end, interventions): under which the positions begin ... end - 1 were computed.

        Neighbouring stretches under the same interventions are one.
        """
        end = self.start + len(self.tokens)
        if self.parent is None:
            return ((0, end, self.interventions),)
        begin = self.start - 1
        before = [
            (first, min(last, begin), made)
            for first, last, made in self.parent.computed
            if first < begin
        ]
        if before and same(before[-1][2], self.interventions):
            begin = before.pop()[0]
        return (*before, (begin, end, self.interventions))


@dataclass(frozen=True)
class Parting:
    """Where two nodes part.

    Attributes:
        common: tokens at the beginning that are the same; the position where they part.
        texts: of each from there on.
        differences: of their traces over the positions that both have; see `tracing/diff.py`.
    """

    common: int
    texts: tuple[str, str]
    differences: tuple[str, ...]


class Tree:
    """Branches of one sequence; `nodes` in the order in which they were made, the root first."""

    def __init__(self, lab: Lab, of: Prompt) -> None:
        """Read a reply with its prompt, a conversation, or token ids, under the interventions in
        force: those under which the reply was written should be.

        Raises:
            LabError: there is nothing to read, or more than fits.
        """
        self.lab = lab
        self._reply = of if isinstance(of, Reply) else None
        ids = lab.tokens_of(of)
        cache = KVCache(lab.config)
        known = (math.nan, *read_on(lab, ids, cache, lab.taps()))
        tokens = [Token(id, p, forced=True) for id, p in zip(ids, known, strict=True)]
        if self._reply is not None:
            tokens[len(self._reply.prompt_tokens) :] = self._reply.tokens
        self.nodes = [Node(0, None, 0, tuple(tokens), lab.interventions, None, cache)]

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def branch(
        self,
        node: Node,
        at: int,
        write: str | Sequence[int] = (),
        *,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        alternatives: int = 0,
    ) -> Node:
        """Keep a node's first `at` tokens, write there what is given, and let the model go on.

        Interventions in force hold from position at - 1 on.

        Args:
            write: ids, or text without special tokens, in the place of what the node has there.
            sampling: by default the workbench's.
            max_tokens: that the model may write; 0 to add nothing to what is given.

        Raises:
            LabError: there is no such position, nothing would be added, or it does not fit.
        """
        kept, lab = node.ids[:at], self.lab
        if node not in self.nodes:
            raise LabError(f"node {node.number} is of another tree; branch it there")
        if not 1 <= at <= len(node.ids):
            raise LabError(f"at is {at}; node {node.number} can part from 1 to {len(node.ids)} on")
        given = lab.encoding.encode_ordinary(write) if isinstance(write, str) else list(write)
        ids = [*kept, *given]
        check_tokens(ids, lab.config, name="the branch")
        goes_on = max_tokens != 0 and ids[-1] not in lab.stops
        if not given and not goes_on:
            raise LabError(f"nothing would come behind position {at - 1}: give it tokens")
        cache, taps = node.cache.fork(at=at - 1), lab.taps(at - 1)
        logprobs = read_on(lab, ids[at - 1 :], cache, taps)
        tokens = [Token(id, p, forced=True) for id, p in zip(given, logprobs, strict=True)]
        drawn = seeded(sampling or lab.sampling) if goes_on else None
        if drawn is not None:
            written = generate(
                lab.model,
                [ids],
                stop=lab.stops,
                max_tokens=max_tokens,
                sampling=drawn,
                usable=lab.usable,
                alternatives=alternatives,
                cache=cache,
                taps=taps,
            )
            tokens += [token for _, token in written]
        number = len(self.nodes)
        self.nodes.append(Node(number, node, at, tuple(tokens), lab.interventions, drawn, cache))
        return self.nodes[-1]

    def reply(self, node: Node) -> Reply:
        """The assistant's last turn in a node, by channel. It has no timing.

        Raises:
            LabError: the sequence has none.
        """
        prompt, begin = self._prompt(node.ids)
        builder = ReplyBuilder(self.lab.encoding, prompt, node.ids[:begin])
        for token in node.sequence[begin:]:
            builder.add(token)
        untimed = Timing(math.nan, math.nan, len(builder.tokens))
        return replace(builder.finish()[1], timing=untimed)

    def trace(self, node: Node, points: Sequence[str] = ALWAYS, first: int | None = None) -> Trace:
        """What was computed at these points over a node's first `first` tokens (None: all), each
        stretch again under its own interventions, and not under those in force now."""
        lab, end = self.lab, len(node.ids) if first is None else first
        selection = Selection(tuple(points))
        selection.check(lab.config, end)
        check_budget(lab.model, selection, end, BUDGET)
        recording, cache = Recording(lab.model, selection), KVCache(lab.config)
        last = None if any(name.startswith("out.") for name in recording.points) else 0
        kernels: set[str] = set()
        told = []
        for begin, until, made in node.computed:
            until = min(until, end)
            if begin >= until:
                break
            changes = Changes([Effect(each) for each in made], begin) if made else untapped
            taps = Both(changes, recording)
            for piece in pieces(node.ids[begin:until]):
                forward(lab, piece, cache, taps, last)
            kernels.add(lab.model.computed_by(taps))
            told += [f"from position {begin} to {until - 1}: {each}" for each in made]
        trace = assembled(
            lab.model, lab.encoding, node.ids[:end], recording, lab.digest, untapped,
            kernels=" and ".join(sorted(kernels)),
        )  # fmt: skip
        return replace(trace, origin=replace(trace.origin, interventions=tuple(told)))

    def compare(
        self, a: Node, b: Node, points: Sequence[str] = ALWAYS, tolerance: float = ROUNDING
    ) -> Parting:
        """Where two nodes part, in tokens and in what was computed; they may be of two trees.

        Args:
            tolerance: differences up to it are not told; see `tracing/diff.py`.
        """
        pairs = list(zip(a.ids, b.ids, strict=False))
        common = next((n for n, (x, y) in enumerate(pairs) if x != y), len(pairs))
        x, y = (self.trace(node, points, first=len(pairs)) for node in (a, b))
        return Parting(
            common,
            (
                text_of(self.lab.encoding, a.ids[common:]),
                text_of(self.lab.encoding, b.ids[common:]),
            ),
            tuple(differences(x, y, tolerance)),
        )

    def __str__(self) -> str:
        """A line a node, indented under its parent: positions, what was given + what was written,
        and the interventions."""
        return "\n".join(self._lines(self.root, ""))

    def _lines(self, node: Node, indent: str) -> Iterator[str]:
        given = [token.id for token in node.tokens if token.forced]
        written = [token.id for token in node.tokens if not token.forced]
        parts = [repr(short(text_of(self.lab.encoding, ids))) for ids in (given, written) if ids]
        made = "".join(f"  under {each}" for each in node.interventions)
        end = node.start + len(node.tokens) - 1
        yield f"{indent}{node.number}  {node.start}-{end}  {' + '.join(parts)}{made}"
        for each in self.nodes:
            if each.parent is node:
                yield from self._lines(each, indent + "  ")

    def _prompt(self, ids: Sequence[int]) -> tuple[Conversation, int]:
        """What the assistant's last turn answers, and where that turn begins."""
        if self._reply is not None:
            begin = len(self._reply.prompt_tokens)
            if tuple(ids[:begin]) == self._reply.prompt_tokens:
                return self._reply.prompt, begin
        encoding = self.lab.encoding
        parser = StreamParser(encoding, None)
        ends = [event for event in parser.feed(ids) if isinstance(event, End)]
        asked = [n for n, end in enumerate(ends) if end.message.role != "assistant"]
        before = asked[-1] + 1 if asked else 0
        end = ends[before - 1].tokens[1] if before else 0
        header = [specials(encoding).ids[START], *encoding.encode_ordinary("assistant")]
        begin = end + len(header)
        if list(ids[end:begin]) != header:
            raise LabError(f"no assistant's turn begins at position {end} of this sequence")
        return Conversation(tuple(each.message for each in ends[:before])), begin


def seeded(sampling: Sampling) -> Sampling:
    """The same with a seed, so that what is drawn can be drawn again."""
    if sampling.temperature == 0 or sampling.seed is not None:
        return sampling
    return replace(sampling, seed=secrets.randbits(32))


def same(some: Sequence[Intervention], others: Sequence[Intervention]) -> bool:
    """Whether these are the very same interventions: equal ones may put in different values."""
    return list(map(id, some)) == list(map(id, others))


def pieces(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in chunks that are read at once."""
    return (ids[n : n + PREFILL_CHUNK] for n in range(0, len(ids), PREFILL_CHUNK))


@torch.inference_mode()
def forward(
    lab: Lab, ids: Sequence[int], cache: KVCache, taps: Taps, last: int | None
) -> Float[Tensor, "kept vocab"]:
    """Read ids into a cache; the logits of the last ones."""
    row = torch.tensor([list(ids)], device=lab.model.device)
    return lab.model(row, cache, last=last, taps=taps)[0]


def read_on(lab: Lab, ids: Sequence[int], cache: KVCache, taps: Taps) -> list[float]:
    """Read all ids but the last into a cache; log-probability of each id behind the first."""
    found: list[float] = []
    for piece in pieces(ids[:-1]):
        logprobs = forward(lab, piece, cache, taps, None).float().log_softmax(-1).cpu()
        begin = len(found) + 1
        following = torch.tensor(ids[begin : begin + len(piece)])
        found += logprobs.gather(-1, following[:, None])[:, 0].tolist()
    return found


def text_of(encoding: Encoding, ids: Sequence[int]) -> str:
    """The text of ids, special tokens by name; bytes that are no UTF-8 in hexadecimal."""
    raw = [token_bytes(encoding, id) or f"<no token {id}>".encode() for id in ids]
    return b"".join(raw).decode("utf-8", "backslashreplace")


def short(text: str) -> str:
    """Both ends of a text that is too long to be shown."""
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]} … {text[-half:]}"
