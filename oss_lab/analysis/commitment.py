"""What would the answer be if the thinking ended here? The commitment curve.

At each step of the chain of thought the cache is forked, the header of `final` is inserted, and the
model answers. Each step also has the log-probability of the answer that the whole chain of thought
led to.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from oss_lab.analysis.forwards import build_cache, choose_engine, run_forward
from oss_lab.engine.cache import KVCache
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.progress import track_progress
from oss_lab.record.builder import final_header
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import find_content_tokens, label_token_ids

if TYPE_CHECKING:
    from oss_lab.lab import Lab

ANSWER_TOKENS = 64


@dataclass(frozen=True)
class CommitmentStep:
    """The answer after a part of the analysis.

    Attributes:
        kept: how many of the reply's tokens precede the inserted header.
        thought: the analysis in them.
        answer: what the model then generates greedily, at most ANSWER_TOKENS tokens.
        logprob: of the reply's final answer and its end token at this step, in nats.
    """

    kept: int
    thought: str
    answer: str
    logprob: float


@check_arguments
@torch.no_grad()
def commitment(lab: "Lab", reply: Reply) -> list[CommitmentStep]:
    """One step before the analysis, one after each of its lines, and one after all of it.

    Raises:
        LabError: the reply has no analysis or no final answer.
    """
    if not isinstance(reply, Reply):
        raise LabError(
            f"expected a Reply such as `lab.chat(text)` returns, got {type(reply).__name__}"
        )
    if not reply.analysis or not reply.final:
        raise LabError("this reply has no analysis or no final answer: ask at a higher effort")
    labels = label_token_ids(lab.tokenizer, reply.ids, "assistant")
    thinking = find_content_tokens(labels, "analysis")
    ends = [n + 1 for n in thinking if "\n" in labels[n].text]
    places = sorted({0, *ends, thinking[-1] + 1})
    answer = answer_ids(lab, reply)
    tokens = [*reply.prompt_tokens, *reply.ids]
    engine = choose_engine(lab).engine
    whole = build_cache(lab, tokens, engine)
    steps = []
    for kept in track_progress(places, "commitment"):
        header = final_header(lab.tokenizer, inside_message=kept > 0)
        before = [*tokens[: len(reply.prompt_tokens) + kept], *header]
        cache = whole.fork(at=len(reply.prompt_tokens) + kept)
        thought = "".join(labels[n].text for n in thinking if n < kept)
        logprob = answer_logprob(lab, [*header, *answer[:-1]], answer, cache.fork())
        steps.append(CommitmentStep(kept, thought, generate_answer(lab, before, cache), logprob))
    return steps


def generate_answer(lab: "Lab", before: list[int], cache: KVCache) -> str:
    """The text that the model generates greedily after `before`."""
    written = lab.write_turns([before], max_tokens=ANSWER_TOKENS, cache=cache)
    return lab.tokenizer.decode([token.id for _, token in written if token.id not in lab.stops])


def answer_logprob(lab: "Lab", tokens: list[int], answer: list[int], cache: KVCache) -> float:
    """Log-probability of an answer. `tokens` ends with its ids except the last."""
    ids = torch.tensor([tokens], device=lab.model.device)
    logits = run_forward(lab, ids, cache, last=len(answer))[0]
    logprobs = logits.double().log_softmax(-1).cpu()
    return float(sum(row[token] for row, token in zip(logprobs, answer, strict=True)))


def answer_ids(lab: "Lab", reply: Reply) -> list[int]:
    """The ids of the final message's content, and of the token that ends the reply."""
    labels = label_token_ids(lab.tokenizer, reply.ids, "assistant")
    final = find_content_tokens(labels, "final")
    return list(reply.ids[final[0] : final[-1] + 2])
