"""Random replies: whatever a model writes, the run ends with a reason and can be saved."""

import random

import pytest

from oss_lab.agents import Agent, Budget, ScriptedModel, run_from_dict, run_to_dict
from oss_lab.agents.browser import Browser, Corpus, Page, find_citations
from oss_lab.harmony import pair_calls, render
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
)

STOPS = (CALL, RETURN, ENDOFTEXT, "")
PIECES = (
    START, CHANNEL, MESSAGE, END, CONSTRAIN, "assistant", "analysis", "commentary", "final",
    " to=functions.add", " to=add", " to=browser.search", " to=browser.open", " to=user", " json",
    '{"a": 1, "b": 2}', '{"a": "1", "b": 2}', '{"query": "zebra"}', '{"id": 0}', "{'a': 1", "[]",
    "null", "", " ", "路由器", "【0†L0-L2】", "\ufffd", "user", "functions.add", "```json\n{}\n```",
)  # fmt: skip
WELL_FORMED = (
    f'{CHANNEL}commentary to=functions.add {CONSTRAIN}json{MESSAGE}{{"a": 1, "b": 2}}{CALL}',
    f'{CHANNEL}analysis to=browser.search code{MESSAGE}{{"query": "zebra"}}{CALL}',
    f"{CHANNEL}final{MESSAGE}zebra【0†L0-L2】【7†L1】{RETURN}",
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def write_reply(rng):
    """A random reply; one in three is well formed."""
    if rng.random() < 0.33:
        return rng.choice(WELL_FORMED)
    text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 25)))
    return text + rng.choice(STOPS)


@pytest.mark.parametrize("seed", range(150))
def test_random_replies_end_with_a_reason_and_lose_nothing(seed):
    rng = random.Random(seed)
    replies = [write_reply(rng) for _ in range(12)]
    model = ScriptedModel(replies)
    corpus = Corpus([Page("a.md", "A", "A zebra.\n\nline\n" * 50)])
    budget = Budget(calls=rng.choice((0, 2, 6)), tokens=rng.choice((None, 20, 200)))
    agent = Agent(model, [add, Browser(corpus)], budget=budget, drop_reasoning=rng.random() < 0.5)
    stream = agent.stream("?")
    events = list(stream)
    run = stream.run
    assert run.stopped in ("answer", "calls", "tokens", "length", "no answer", "failed")
    assert len(run.replies) <= 12
    assert events[-1].reason == run.stopped  # pyright: ignore[reportAttributeAccessIssue]
    back = run_from_dict(run_to_dict(run))
    assert run_to_dict(back) == run_to_dict(run)
    assert back.conversation == run.conversation
    ids = render(run.conversation, model.tokenizer).tokens
    assert render(back.conversation, model.tokenizer).tokens == ids
    made = [each for each in run.calls if each.status != "not run"]
    assert all(each.output is not None for each in made)
    assert budget.calls is None or len(made) <= budget.calls
    assert budget.tokens is None or run.tokens <= budget.tokens
    answered = [each for each in pair_calls(run.conversation.messages) if each.output is not None]
    assert all(each.call is not None for each in answered)
    assert len(answered) == len(made)
    for each in find_citations(run):
        assert (each.status == "shown") == (len(each.lines) == each.last - each.first + 1)
    run._repr_html_().encode()
