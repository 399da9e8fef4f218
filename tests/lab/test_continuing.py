"""Continuing: truncated replies, given beginnings of an answer, stop strings, dates, and sampled
ids that are reused."""

import pytest

from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Message, render
from oss_lab.harmony.messages import TextContent

QUESTION = "What is 347 * 62?"


@pytest.mark.parametrize("cut", [1, 2, 5, 60, 153])
def test_a_truncated_reply_continues_as_if_it_was_not_truncated(nano, cut):
    whole = nano.chat(QUESTION)
    part = nano.chat(QUESTION, max_tokens=cut)
    assert (part.stop, len(part.ids)) == ("length", cut)
    rest = nano.chat(continue_from=part)
    assert (rest.ids, rest.final, rest.stop) == (whole.ids, whole.final, "return")
    assert rest.logprobs[:cut] == part.logprobs
    assert rest.timing.tokens == len(whole.ids) - cut
    assert rest.conversation == whole.conversation


def test_a_continued_stream_gives_only_the_rest(nano):
    part = nano.chat(QUESTION, max_tokens=60)
    events = list(nano.stream(continue_from=part))
    text = "".join(event.text for event in events if type(event).__name__ == "Delta")
    whole = nano.chat(QUESTION)
    assert f"{whole.analysis}{whole.final}".endswith(text)
    assert len(text) < len(whole.analysis)


def test_the_given_beginning_of_an_answer_is_continued(nano):
    reply = nano.chat(QUESTION, continue_from="215")
    assert len(reply.final) == 5
    assert reply.final.startswith("215")
    assert reply.analysis == ""
    assert [token.forced for token in reply.tokens][:4] == [True] * 4


def test_raw_text_is_continued(nano):
    whole = nano.generate("What is 3", max_tokens=10)
    part = nano.generate("What is 3", max_tokens=4)
    rest = nano.generate(continue_from=part, max_tokens=6)
    assert (rest.ids, rest.text) == (whole.ids, whole.text)


@pytest.mark.parametrize("cut", [10, 11, 12])  # before, at and after the eighth token of analysis
def test_a_budget_counts_the_analysis_of_the_continued_reply(nano, cut):
    whole = nano.chat("What is 34 * 6?", analysis_budget=8)
    part = nano.chat("What is 34 * 6?", analysis_budget=8, max_tokens=cut)
    assert nano.chat(continue_from=part, analysis_budget=8).ids == whole.ids


@pytest.mark.parametrize("stop", ["4", "51", "1", "2", "zz"])
def test_a_stop_string_must_end_in_the_continuation(nano, stop):
    """A stop string may begin in the given text. One that ends there does not count."""
    part = nano.chat(QUESTION, max_tokens=152)
    assert part.final == "215"
    rest = nano.chat(continue_from=part, stop=stop)
    assert rest.final == {"4": "2151", "51": "21", "1": "215"}.get(stop, "21514")
    assert rest.conversation.messages[-1].text == rest.final


def test_raw_text_continues_after_its_stop_string(reciting_lab):
    whole = reciting_lab("ab, ab.<|return|>").generate("x")
    part = reciting_lab("ab, ab.<|return|>").generate("x", stop="b")
    assert (part.text, part.stop) == ("a", "text")
    rest = reciting_lab(", ab.<|return|>").generate(continue_from=part, stop="b")
    assert (rest.text, rest.stop) == ("ab, a", "text")
    assert reciting_lab(", ab.<|return|>").generate(continue_from=part).text == whole.text


def test_what_cannot_be_continued_is_refused_in_one_sentence(nano):
    whole, raw = nano.chat("What is 3 * 4?"), nano.generate("What is 3", max_tokens=2)
    cut = nano.chat("What is 3 * 4?", max_tokens=3)
    for call, sentence in (
        (lambda: nano.chat(continue_from=whole), r"this reply is complete \(stop 'return'\)"),
        (lambda: nano.chat(continue_from=raw), "this reply comes from `generate`"),
        (lambda: nano.generate(continue_from=cut), "this reply comes from `chat`"),
        (lambda: nano.chat("and 5?", continue_from=cut), "not both"),
        (lambda: nano.chat(continue_from=cut, effort="low"), "effort comes from the continued"),
        (lambda: nano.chat("x", continue_from=3), "continue_from: expected a Reply or text, got 3"),
    ):
        with pytest.raises(LabError, match=sentence):
            call()


def test_an_answer_ends_at_a_stop_string(nano):
    whole = nano.chat(QUESTION)
    reply = nano.chat(QUESTION, stop=["5", "zzz"])
    assert (whole.final, reply.final, reply.stop) == ("21514", "21", "text")
    assert reply.analysis == whole.analysis  # the reasoning contains a 5 and continues
    assert reply.ids == whole.ids[: len(reply.ids)]
    assert reply.conversation.messages[-1].text == "21"
    batch = nano.chat_batch([QUESTION, "What is 3 * 4?"], stop="5")
    assert [each.final for each in batch] == ["21", "12"]


def test_raw_text_ends_at_a_stop_string(reciting_lab):
    lab = reciting_lab("abc, the end<|return|>")
    reply = lab.generate("x", stop=["c, t"])
    assert (reply.text, reply.stop) == ("ab", "text")
    assert lab.generate("x").text == "abc, the end"


def test_a_date_goes_into_the_system_message(nano):
    reply = nano.chat("What is 3 * 4?", date="2026-11-30", max_tokens=1)
    text = nano.tokenizer.decode(list(reply.prompt_tokens))
    assert "Current date: 2026-11-30" in text


def test_sampled_ids_stay_in_the_history(reciting_lab, tiny):
    """Three tokens `t`, `h`, `e` become one token when `the` is encoded again."""
    spelled = [tiny.encode_single_token(letter) for letter in "the"]
    assert tiny.encode_ordinary("the") != spelled
    lab = reciting_lab("<|channel|>final<|message|>", *spelled, "<|return|>")
    reply = lab.chat("x")
    assert reply.final == "the"
    following = Conversation((*reply.conversation.messages, Message.of("user", "y")))
    prompt = render(following, tiny).tokens
    assert contains(prompt, spelled)
    edited = Conversation(
        tuple(
            Message.of("assistant", each.text.upper(), channel="final")
            if each.role == "assistant"
            else each
            for each in following
        )
    )
    assert not contains(render(edited, tiny).tokens, spelled)


@pytest.mark.parametrize("ids", [(5,), (10**9,), ()])
def test_ids_of_another_text_are_not_rendered(tiny, ids):
    """Neither are special tokens: the text of a message stays text."""
    plain = Message.of("assistant", "the", channel="final")
    part = TextContent("the", ids)
    forged = Message(plain.author, (part,), "final")
    special = Message(plain.author, (TextContent("<|end|>", (tiny.eot_token,)),), "final")
    assert forged == plain  # ids do not count when messages are compared
    for message in (forged, special):
        text = Message.of("assistant", message.text, channel="final")
        assert (
            render(Conversation.of(message), tiny).tokens
            == render(Conversation.of(text), tiny).tokens
        )


def contains(tokens, part):
    """Whether the tokens contain this run of ids."""
    return any(tokens[n : n + len(part)] == part for n in range(len(tokens)))
