"""The constraint of a reply to a prompt: its tools and channels, and the format of the answer."""

from collections.abc import Iterable

import tiktoken
from llguidance import LLMatcher

from oss_lab.grammar.constraint import ReplyConstraint
from oss_lab.grammar.harmony_grammar import write_harmony_grammar
from oss_lab.grammar.matcher import compile_grammar
from oss_lab.grammar.response_format import write_answer_grammar
from oss_lab.harmony.demands import find_declared_tools, find_demanded_channels
from oss_lab.harmony.messages import Message


def build_constraint(
    encoding: tiktoken.Encoding,
    prompt: Iterable[Message],
    response_format: object = None,
    *,
    size: int | None = None,
) -> ReplyConstraint:
    """The constraint of a reply to this prompt, before its first token.

    Args:
        response_format: what the answer must look like; None allows any text.
        size: the number of ids in the model's vocabulary, if it has more than the encoding.

    Raises:
        LabError: the format cannot be used, or the prompt has no channel for the answer.
    """
    messages = list(prompt)
    lark = write_harmony_grammar(find_declared_tools(messages), find_demanded_channels(messages))
    harmony = compile_grammar(encoding, LLMatcher.grammar_from_lark(lark), "Harmony's format")
    answer = compile_grammar(encoding, *write_answer_grammar(response_format))
    return ReplyConstraint(encoding, harmony, answer, size or encoding.n_vocab)
