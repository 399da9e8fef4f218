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
from dataclasses import replace
from typing import TYPE_CHECKING

from oss_lab.analysis.branch_node import Node
from oss_lab.analysis.branch_trace import ROUNDING, Parting, parting, read_on, retraced
from oss_lab.analysis.forwards import choose_engine
from oss_lab.engine.cache import KVCache
from oss_lab.engine.request import Request, check_tokens
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, End, StreamParser
from oss_lab.harmony.specials import START, specials
from oss_lab.hooks.interventions.in_force import in_force
from oss_lab.hooks.points import ALWAYS
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Reply, Timing
from oss_lab.record.token import Token
from oss_lab.record.token_labels import text_of
from oss_lab.record.trace import Trace

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

SHOWN = 64  # characters of a node in the listing of a tree


class Tree:
    """Branches of one sequence; `nodes` in the order in which they were made, the root first.

    One engine computes all of a tree: `engine`.
    """

    def __init__(self, lab: "Lab", of: "Prompt") -> None:
        """Read a reply with its prompt, a conversation, or token ids, under the interventions in
        force: those under which the reply was written should be.

        Raises:
            LabError: there is nothing to read, or more than fits.
        """
        self.lab = lab
        self._reply = of if isinstance(of, Reply) else None
        ids = lab.tokens_of(of)
        self.engine = choose_engine(lab).engine
        cache = KVCache(lab.config)
        known = (math.nan, *read_on(lab, ids, cache, self.engine))
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
        max_tokens: int = 2048,
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
        given = lab.tokenizer.encode_ordinary(write) if isinstance(write, str) else list(write)
        ids = [*kept, *given]
        check_tokens(ids, lab.config, name="the branch")
        goes_on = max_tokens != 0 and ids[-1] not in lab.stops
        if not given and not goes_on:
            raise LabError(f"nothing would come behind position {at - 1}: give it tokens")
        self._check_engine()
        cache = node.cache.fork(at=at - 1)
        logprobs = read_on(lab, ids[at - 1 :], cache, self.engine)
        tokens = [Token(id, p, forced=True) for id, p in zip(given, logprobs, strict=True)]
        drawn = seeded(sampling or lab.sampling) if goes_on else None
        if drawn is not None:
            written = lab.write_turns(
                [ids], max_tokens=max_tokens, sampling=drawn, alternatives=alternatives,
                cache=cache, engine=self.engine,
            )  # fmt: skip
            tokens += [token for _, token in written]
        number = len(self.nodes)
        self.nodes.append(Node(number, node, at, tuple(tokens), lab.interventions, drawn, cache))
        return self.nodes[-1]

    def _check_engine(self) -> None:
        """Raise LabError where the engine of the tree cannot serve the interventions in force."""
        request = Request((), effects=in_force(self.lab))
        if reason := self.engine.refusal(request.reads, request.writes):
            raise LabError(
                f"the {self.engine.name} kernels computed this tree and cannot serve this branch"
                f' ({reason}): load the model with kernels="reference"'
            )

    def reply(self, node: Node) -> Reply:
        """The assistant's last turn in a node, by channel. It has no timing.

        Raises:
            LabError: the sequence has none.
        """
        prompt, begin = self._prompt(node.ids)
        builder = ReplyBuilder(self.lab.tokenizer, prompt, node.ids[:begin])
        for token in node.sequence[begin:]:
            builder.add(token)
        untimed = Timing(math.nan, math.nan, len(builder.tokens))
        return replace(builder.finish()[1], timing=untimed)

    def trace(self, node: Node, points: Sequence[str] = ALWAYS, first: int | None = None) -> Trace:
        """What was computed in a node; see `branch_trace.retraced`."""
        return retraced(self.lab, node, points, first)

    def compare(
        self, a: Node, b: Node, points: Sequence[str] = ALWAYS, tolerance: float = ROUNDING
    ) -> Parting:
        """Where two nodes part; see `branch_trace.parting`."""
        return parting(self.lab, a, b, points, tolerance)

    def __str__(self) -> str:
        """A line a node, indented under its parent: positions, what was given + what was written,
        and the interventions."""
        return "\n".join(self._lines(self.root, ""))

    def _lines(self, node: Node, indent: str) -> Iterator[str]:
        given = [token.id for token in node.tokens if token.forced]
        written = [token.id for token in node.tokens if not token.forced]
        parts = [repr(short(text_of(self.lab.tokenizer, ids))) for ids in (given, written) if ids]
        made = "".join(f"  under {each}" for each in node.interventions)
        end = node.start + len(node.tokens) - 1
        yield f"{indent}{node.number}  {node.start}-{end}  {' + '.join(parts)}{made}"
        for each in self.nodes:
            if each.parent is node:
                yield from self._lines(each, indent + "  ")

    def _prompt(self, ids: Sequence[int]) -> tuple[Conversation, int]:
        """What the assistant's last turn answers, and where that turn begins."""
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


def short(text: str) -> str:
    """Both ends of a text that is too long to be shown."""
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]} … {text[-half:]}"
