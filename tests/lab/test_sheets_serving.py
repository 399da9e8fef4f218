"""The solutions of the sheets on structured output and serving are what the library does."""

from dataclasses import asdict
from typing import get_args

import pytest
import torch
from llguidance import LLMatcher

from oss_lab.course.sheets import s15_structured_output, s16_serving
from oss_lab.grammar.matcher import compile_grammar
from oss_lab.harmony.specials import ENDOFTEXT, find_special_tokens
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL
from oss_lab.server.errors import ApiError
from oss_lab.server.request import AskedEffort, read_effort

PRODUCT = "What is 482915 * 7306?"
CALCULATOR = {"type": "function", **asdict(CALCULATOR_TOOL)}


@pytest.fixture(scope="module")
def client(serve):
    openai = pytest.importorskip("openai", reason="openai is not installed (extra `connect`)")
    with serve() as url, openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as found:
        yield found


@pytest.mark.parametrize("written", ["", "n", "no", "f", "fo", "fi", "fiv", "seven"])
def test_the_mask_of_a_list_is_that_of_its_grammar(nano, written):
    """Where the text branches or may end; elsewhere the library allows only the usual tokens."""
    answers = ["no", "not sure", "five", "fifty", "four", "forty", "seven", "seventy"]
    encoding, specials = nano.tokenizer, find_special_tokens(nano.tokenizer)
    grammar = LLMatcher.grammar_from_regex("|".join(answers))
    matcher = compile_grammar(encoding, grammar, "the Regex").copy()
    for letter in written:
        matcher.accept(encoding.encode_single_token(letter))
    theirs = torch.from_numpy(matcher.allowed().copy())
    ids = {encoding.encode_single_token(each): each for each in encoding.token_byte_values()}
    tokens = [each.decode(errors="replace") for each in ids.values()]
    mine = s15_structured_output.my_allowed(answers, written, [*tokens, "<|return|>"])
    end = specials.ids[ENDOFTEXT]
    assert mine == [bool(theirs[id]) for id in (*ids, end)]


def test_a_stream_of_the_server_is_read_as_the_reply(client, nano):
    with client.responses.with_streaming_response.create(
        model="nano", input="What is 3 * 4?", stream=True
    ) as answer:
        chunks = list(answer.iter_bytes(100))
    reply = nano.chat("What is 3 * 4?")
    assert s16_serving.my_channels(chunks) == {
        "analysis": reply.analysis,
        "commentary": "",
        "final": reply.final,
    }


def test_the_next_input_makes_the_prompt_of_a_stored_response(client):
    asking = {"model": "nano", "tools": [CALCULATOR]}
    first = client.responses.create(input=PRODUCT, **asking)
    items = [each.model_dump(exclude_none=True) for each in first.output]
    added = s16_serving.my_next_input(items, {first.output[-1].call_id: 482915 * 7306})
    kept = client.responses.create(input=added[-1:], previous_response_id=first.id, **asking)
    start = {"role": "user", "content": PRODUCT}
    sent = client.responses.create(input=[start, *added], **asking)
    assert sent.output_text == kept.output_text == str(482915 * 7306)
    assert sent.usage.input_tokens == kept.usage.input_tokens


def read_as_the_server_does(asked):
    """Status, effort and note, as `my_effort` returns them."""
    notes: list[str] = []
    try:
        effort = read_effort(asked, notes)
    except ApiError as error:
        return error.status, None, None
    return 200, effort, notes[0].removeprefix("effort ") if notes else None


@pytest.mark.parametrize("asked", [None, *get_args(AskedEffort), "extreme"])
def test_an_effort_is_mapped_as_the_server_does(asked):
    assert s16_serving.my_effort(asked) == read_as_the_server_does(asked)
