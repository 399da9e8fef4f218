"""Replies that go on from an analysis begun for them."""

from collections.abc import Sequence

from oss_lab.harmony import Conversation, render
from oss_lab.harmony.specials import CHANNEL, MESSAGE, specials
from oss_lab.lab import Lab
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token


def go_on(
    lab: Lab, prompts: Sequence[Conversation], thoughts: Sequence[str], max_tokens: int
) -> list[Reply]:
    """Greedy replies, as one batch, that begin with these thoughts; their tokens are `forced`.

    Args:
        max_tokens: written behind the thoughts.
    """
    encoding, ids = lab.tokenizer, specials(lab.tokenizer).ids
    header = [ids[CHANNEL], *encoding.encode_ordinary("analysis"), ids[MESSAGE]]
    builders, begun = list[ReplyBuilder](), list[tuple[int, ...]]()
    for prompt, thought in zip(prompts, thoughts, strict=True):
        rendered = tuple(render(prompt, encoding).tokens)
        forced = (*header, *encoding.encode_ordinary(thought))
        builders.append(ReplyBuilder(encoding, prompt, rendered))
        begun.append((*rendered, *forced))
        for id in forced:
            builders[-1].add(Token(id, float("nan"), forced=True))
    tokens = lab.write_turns(begun, max_tokens=max_tokens)
    for row, token in tokens:
        builders[row].add(token)
    return [builder.finish()[1] for builder in builders]
