"""A tree of alternative continuations: edit a token, resample or intervene, then continue.

    tree = Tree(lab, lab.chat("What is 58 * 7?"))
    edited = tree.branch(tree.root, at=69, write="9")
    tree.reply(edited).final, tree.compare(tree.root, edited).texts

Positions count from the start of the sequence. A branch at position n shares its parent's cache of
the tokens before n - 1. The token at n - 1 is read again, since it predicts the token at n. It and
everything after it are computed under the interventions that are active when you branch.

Earlier positions keep their values. An intervention that starts with a branch never changes them.
The keys and values of positions where an earlier intervention was active still contain its effect.
To compute the prefix under other interventions, start another tree.
"""

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from oss_lab.analysis.branch_node import Node
from oss_lab.analysis.branch_trace import (
    ROUNDING,
    NodeComparison,
    compare_nodes,
    read_tokens,
    trace_node,
)
from oss_lab.analysis.forwards import choose_engine
from oss_lab.engine.cache import KVCache
from oss_lab.engine.request import Request, check_tokens
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, End, StreamParser
from oss_lab.harmony.specials import START, find_special_tokens
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.interventions.active import find_active_effects
from oss_lab.hooks.points import ALWAYS
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Reply, Timing
from oss_lab.record.token import Token
from oss_lab.record.token_labels import decode_tokens
from oss_lab.record.trace import Trace
from oss_lab.tokenizer import encode_text

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

SHOWN = 64  # characters of a node's text in the listing of a tree


class Tree:
    """Branches of one sequence. `nodes` are in order of creation, the root first.

    One engine, `engine`, computes the whole tree.
    """

    @check_arguments
    def __init__(self, lab: "Lab", of: "Prompt") -> None:
        """Read a reply with its prompt, a conversation or token ids, under the active
        interventions. For a reply, activate those that it was generated under.

        Raises:
            LabError: the sequence is empty, or longer than the context.
        """
        self.lab = lab
        self._reply = of if isinstance(of, Reply) else None
        ids = lab.tokens_of(of)
        self.engine = choose_engine(lab).engine
        cache = KVCache(lab.config)
        known = (math.nan, *read_tokens(lab, ids, cache, self.engine))
        tokens = [Token(id, p, forced=True) for id, p in zip(ids, known, strict=True)]
        if self._reply is not None:
            tokens[len(self._reply.prompt_tokens) :] = self._reply.tokens
        self.nodes = [Node(0, None, 0, tuple(tokens), lab.interventions, None, cache)]

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @check_arguments
    def branch(
        self,
        node: Node,
        at: int,
        write: str | Sequence[int] = (),
        *,
        sampling: Sampling | None = None,
        max_tokens: int = 2048,
        alternatives: int = 0,
    ) -> Node:
        """Keep a node's first `at` tokens, add `write`, and let the model continue.

        Active interventions apply from position at - 1.

        Args:
            write: token ids, or text without special tokens, that replaces the node's tokens from
                position `at`.
            sampling: by default the lab's.
            max_tokens: limit on the tokens that the model generates; 0 generates none.

        Raises:
            LabError: the position does not exist, the branch adds nothing, or it is longer than
                the context.
        """
        kept, lab = node.ids[:at], self.lab
        if node not in self.nodes:
            raise LabError(f"node {node.number} belongs to another tree; branch it there")
        if not 1 <= at <= len(node.ids):
            raise LabError(f"at is {at}; node {node.number} can branch at 1 to {len(node.ids)}")
        given = encode_text(lab.tokenizer, write) if isinstance(write, str) else list(write)
        ids = [*kept, *given]
        check_tokens(ids, lab.config, name="the branch")
        continues = max_tokens != 0 and ids[-1] not in lab.stops
        if not given and not continues:
            raise LabError(
                f"the branch adds nothing after position {at - 1}: pass tokens in `write`"
            )
        self._check_engine()
        cache = node.cache.fork(at=at - 1)
        logprobs = read_tokens(lab, ids[at - 1 :], cache, self.engine)
        tokens = [Token(id, p, forced=True) for id, p in zip(given, logprobs, strict=True)]
        repeatable = add_seed(lab.sampling if sampling is None else sampling) if continues else None
        if repeatable is not None:
            written = lab.write_turns(
                [ids], max_tokens=max_tokens, sampling=repeatable, alternatives=alternatives,
                cache=cache, engine=self.engine,
            )  # fmt: skip
            tokens += [token for _, token in written]
        number = len(self.nodes)
        self.nodes.append(
            Node(number, node, at, tuple(tokens), lab.interventions, repeatable, cache)
        )
        return self.nodes[-1]

    def _check_engine(self) -> None:
        """Raise LabError if the tree's engine cannot serve the active interventions."""
        request = Request((), effects=find_active_effects(self.lab))
        if reason := self.engine.explain_refusal(request.reads, request.writes):
            raise LabError(
                f"the {self.engine.name} kernels computed this tree and cannot serve this branch"
                f' ({reason}): load the model with kernels="reference"'
            )

    @check_arguments
    def reply(self, node: Node) -> Reply:
        """The assistant's last turn in a node, by channel. Its times are NaN.

        Raises:
            LabError: the sequence has no assistant turn.
        """
        prompt, begin = self._prompt(node.ids)
        parse = self.lab.parts.get("parse")
        builder = ReplyBuilder(self.lab.tokenizer, prompt, node.ids[:begin], parse=parse)
        for token in node.sequence[begin:]:
            builder.add(token)
        untimed = Timing(math.nan, math.nan, len(builder.tokens))
        return replace(builder.finish()[1], timing=untimed, parts=self.engine.parts)

    @check_arguments
    def trace(self, node: Node, points: Sequence[str] = ALWAYS, first: int | None = None) -> Trace:
        """The trace of a node; see `branch_trace.trace_node`."""
        return trace_node(self.lab, node, points, first)

    @check_arguments
    def compare(
        self, a: Node, b: Node, points: Sequence[str] = ALWAYS, tolerance: float = ROUNDING
    ) -> NodeComparison:
        """How two nodes differ; see `branch_trace.compare_nodes`."""
        return compare_nodes(self.lab, a, b, points, tolerance)

    def __str__(self) -> str:
        """One line per node, indented under its parent: positions, given text + generated text,
        and interventions."""
        return "\n".join(self._lines(self.root, ""))

    def _lines(self, node: Node, indent: str) -> Iterator[str]:
        given = [token.id for token in node.tokens if token.forced]
        written = [token.id for token in node.tokens if not token.forced]
        parts = [
            repr(shorten(decode_tokens(self.lab.tokenizer, ids))) for ids in (given, written) if ids
        ]
        made = "".join(f"  under {each}" for each in node.interventions)
        end = node.start + len(node.tokens) - 1
        yield f"{indent}{node.number}  {node.start}-{end}  {' + '.join(parts)}{made}"
        for each in self.nodes:
            if each.parent is node:
                yield from self._lines(each, indent + "  ")

    def _prompt(self, ids: Sequence[int]) -> tuple[Conversation, int]:
        """The conversation that the assistant's last turn answers, and where that turn begins."""
        if self._reply is not None and self._reply.prompt is not None:
            begin = len(self._reply.prompt_tokens)
            if tuple(ids[:begin]) == self._reply.prompt_tokens:
                return self._reply.prompt, begin
        encoding = self.lab.tokenizer
        parser = StreamParser(encoding, None)
        ends = [event for event in parser.feed(ids) if isinstance(event, End)]
        asked = [n for n, end in enumerate(ends) if end.message.role != "assistant"]
        before = asked[-1] + 1 if asked else 0
        end = ends[before - 1].tokens[1] if before else 0
        header = [find_special_tokens(encoding).ids[START], *encoding.encode_ordinary("assistant")]
        begin = end + len(header)
        if list(ids[end:begin]) != header:
            raise LabError(f"no assistant turn begins at position {end} of this sequence")
        return Conversation(tuple(each.message for each in ends[:before])), begin


def add_seed(sampling: Sampling) -> Sampling:
    """The same sampling with a seed, so you can repeat it."""
    if sampling.temperature == 0 or sampling.seed is not None:
        return sampling
    return replace(sampling, seed=secrets.randbits(32))


def shorten(text: str) -> str:
    """The start and end of a text that is too long to show."""
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]} … {text[-half:]}"
