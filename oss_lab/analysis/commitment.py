"""What would the answer be, had the thinking ended here? The commitment curve.

At each step of the chain of thought the cache is forked, the header of `final` is written in the
model's stead, and the model answers. Beside that answer stands how likely the one is that the whole
chain of thought led to.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from oss_lab.analysis.forwards import build_cache, choose_engine, run_forward
from oss_lab.engine.cache import KVCache
from oss_lab.errors import LabError
from oss_lab.progress import progress
from oss_lab.record.builder import final_header
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import content_on, token_labels

if TYPE_CHECKING:
    from oss_lab.lab import Lab

ANSWER_TOKENS = 64


@dataclass(frozen=True)
class Step:
    """The answer after a part of the analysis.

    Attributes:
        kept: tokens of the reply that stand before the forced header.
        thought: their analysis.
        answer: what the model then writes, greedily; at most ANSWER_TOKENS.
        logprob: of the reply's own answer at this place, in nats, its end included.
    """

    kept: int
    thought: str
    answer: str
    logprob: float


@torch.no_grad()
def commitment(lab: "Lab", reply: Reply) -> list[Step]:
    """A step before the analysis, one behind each of its lines, and one behind all of it.

    Raises:
        LabError: the reply has no analysis or no final answer.
    """
    if not isinstance(reply, Reply):
        raise LabError("commitment is of a reply; `lab.chat(text)` gives one")
    if not reply.analysis or not reply.final:
        raise LabError("this reply has no analysis and answer; ask at a higher effort")
    labels = token_labels(lab.tokenizer, reply.ids, "assistant")
    thinking = content_on(labels, "analysis")
    ends = [n + 1 for n in thinking if "\n" in labels[n].text]
    places = sorted({0, *ends, thinking[-1] + 1})
    answer = answer_ids(lab, reply)
    tokens = [*reply.prompt_tokens, *reply.ids]
    engine = choose_engine(lab).engine
    whole = build_cache(lab, tokens, engine)
    steps = []
    for kept in progress(places, "commitment"):
        header = final_header(lab.tokenizer, inside_message=kept > 0)
        before = [*tokens[: len(reply.prompt_tokens) + kept], *header]
        cache = whole.fork(at=len(reply.prompt_tokens) + kept)
        thought = "".join(labels[n].text for n in thinking if n < kept)
        logprob = likely(lab, [*header, *answer[:-1]], answer, cache.fork())
        steps.append(Step(kept, thought, answered(lab, before, cache), logprob))
    return steps


def answered(lab: "Lab", before: list[int], cache: KVCache) -> str:
    """The text that follows greedily."""
    written = lab.write_turns([before], max_tokens=ANSWER_TOKENS, cache=cache)
    return lab.tokenizer.decode([token.id for _, token in written if token.id not in lab.stops])


def likely(lab: "Lab", tokens: list[int], answer: list[int], cache: KVCache) -> float:
    """Log-probability of the ids of an answer, read as the end of `tokens` behind a cache."""
    ids = torch.tensor([tokens], device=lab.model.device)
    logits = run_forward(lab, ids, cache, last=len(answer))[0]
    logprobs = logits.double().log_softmax(-1).cpu()
    return float(sum(row[token] for row, token in zip(logprobs, answer, strict=True)))


def answer_ids(lab: "Lab", reply: Reply) -> list[int]:
    """The ids of the final message's content and of the token that ends the reply."""
    labels = token_labels(lab.tokenizer, reply.ids, "assistant")
    final = content_on(labels, "final")
    return list(reply.ids[final[0] : final[-1] + 2])
