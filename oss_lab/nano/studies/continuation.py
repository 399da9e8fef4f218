"""Let the model continue from a given beginning of its analysis."""

from collections.abc import Sequence

from oss_lab.harmony import Conversation, render
from oss_lab.harmony.specials import CHANNEL, MESSAGE, find_special_tokens
from oss_lab.lab import Lab
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token


def continue_analysis(
    lab: Lab, prompts: Sequence[Conversation], thoughts: Sequence[str], max_tokens: int
) -> list[Reply]:
    """Greedy replies, in one batch, that start with the given thoughts.

    Args:
        thoughts: the start of each reply's analysis; its tokens are marked `forced`.
        max_tokens: maximum tokens to generate after the thoughts.
    """
    encoding, ids = lab.tokenizer, find_special_tokens(lab.tokenizer).ids
    header = [ids[CHANNEL], *encoding.encode_ordinary("analysis"), ids[MESSAGE]]
    builders, prefixes = list[ReplyBuilder](), list[tuple[int, ...]]()
    for prompt, thought in zip(prompts, thoughts, strict=True):
        rendered = tuple(render(prompt, encoding).tokens)
        forced = (*header, *encoding.encode_ordinary(thought))
        builders.append(ReplyBuilder(encoding, prompt, rendered))
        prefixes.append((*rendered, *forced))
        for id in forced:
            builders[-1].add(Token(id, float("nan"), forced=True))
    tokens = lab.write_turns(prefixes, max_tokens=max_tokens)
    for row, token in tokens:
        builders[row].add(token)
    return [builder.finish()[1] for builder in builders]
