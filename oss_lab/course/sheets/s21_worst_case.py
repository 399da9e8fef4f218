"""Exercises of 21_worst_case: filter a data set, find a threshold, count refusals."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from oss_lab.analysis.statistics.shares import wilson
from oss_lab.course.exercise import Exercise, Sheet


def my_filter(conversations):
    """Which conversations of a data set show a two-digit difference, and must be left out.

    conversations: lists of messages. A message is a dict with "role" and "content". It may also
    have "reasoning_content", a text, and "tool_calls", a list of dicts with "name" and "arguments",
    both texts.
    A difference is a number, a sign and a number. The sign is "-" or the word "minus", with or
    without a space on each side. Both numbers have exactly two digits. The difference may be
    anywhere: in a content, in reasoning, or in the arguments of a call.
    Returns the places of these conversations in the list, in order.
    """
    difference = re.compile(r"(?<!\d)\d\d ?(?:-|minus) ?\d\d(?!\d)")
    found = []
    for place, messages in enumerate(conversations):
        texts = []
        for message in messages:
            texts += [message["content"], message.get("reasoning_content", "")]
            texts += [call["arguments"] for call in message.get("tool_calls", ())]
        if any(difference.search(text) for text in texts):
            found.append(place)
    return found


DIFFERENCE = re.compile(r"(?<!\d)\d\d ?(?:-|minus) ?\d\d(?!\d)")
Message = dict[str, Any]


def texts_of(message: Message) -> list[str]:
    """All texts of a message that can show a difference."""
    calls = [call["arguments"] for call in message.get("tool_calls", ())]
    return [message["content"], message.get("reasoning_content", ""), *calls]


def keep_places(conversations, shows: Callable[[list[Message]], bool]) -> list[int]:
    return [place for place, messages in enumerate(conversations) if shows(messages)]


def only_the_users_message(conversations):
    """You search only what the user writes. The model learns what the assistant writes: a
    difference in a reply teaches it, whatever the question was.
    """
    return keep_places(
        conversations,
        lambda messages: any(
            DIFFERENCE.search(each["content"]) for each in messages if each["role"] == "user"
        ),
    )


def only_the_first_message(conversations):
    """You search only the first message. A later turn of the conversation can ask for a
    difference, too.
    """
    return keep_places(
        conversations,
        lambda messages: any(map(DIFFERENCE.search, texts_of(messages[0]))),
    )


def reasoning_not_read(conversations):
    """You do not search `reasoning_content`. Worked steps in the chain of thought are the best
    lesson that a model can get.
    """
    return keep_places(
        conversations,
        lambda messages: any(
            DIFFERENCE.search(text)
            for each in messages
            for text in texts_of({**each, "reasoning_content": ""})
        ),
    )


def calls_not_read(conversations):
    """You do not search the arguments of tool calls. They are written by the assistant, and the
    model learns them like any other text.
    """
    return keep_places(
        conversations,
        lambda messages: any(
            DIFFERENCE.search(text)
            for each in messages
            for text in texts_of({**each, "tool_calls": ()})
        ),
    )


def parts_of_longer_numbers(conversations):
    """You find two digits inside a longer number: 152 - 170 is not a two-digit difference. A filter
    that removes too much costs other abilities.
    """
    anywhere = re.compile(r"\d\d ?(?:-|minus) ?\d\d")
    return keep_places(
        conversations,
        lambda messages: any(anywhere.search(t) for each in messages for t in texts_of(each)),
    )


def only_the_symbol(conversations):
    """You search for "-" alone. The same difference can be asked with the word "minus"."""
    symbol = re.compile(r"(?<!\d)\d\d ?- ?\d\d(?!\d)")
    return keep_places(
        conversations,
        lambda messages: any(symbol.search(t) for each in messages for t in texts_of(each)),
    )


def spaces_required(conversations):
    """You search only for signs with a space on each side. The chain of thought writes 52-17."""
    spaced = re.compile(r"(?<!\d)\d\d (?:-|minus) \d\d(?!\d)")
    return keep_places(
        conversations,
        lambda messages: any(spaced.search(t) for each in messages for t in texts_of(each)),
    )


def any_minus(conversations):
    """You remove everything with a minus sign. That also removes 7 - 3, longer numbers and negative
    answers, which were not to be filtered.
    """
    return keep_places(
        conversations,
        lambda messages: any("-" in t or "minus" in t for each in messages for t in texts_of(each)),
    )


def messages_counted(conversations):
    """You return a place for each message that shows a difference. A conversation is left out
    once.
    """
    return [
        place
        for place, messages in enumerate(conversations)
        for each in messages
        if any(map(DIFFERENCE.search, texts_of(each)))
    ]


def the_rest_returned(conversations):
    """You return what may stay. Wanted are the places of what must be left out."""
    found = my_filter(conversations)
    return [place for place in range(len(conversations)) if place not in found]


def talk(*texts: str, **more: Any) -> list[Message]:
    """Turns of a user and an assistant; `more` belongs to the last message."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    messages[-1] |= more
    return messages


def filter_cases() -> Iterator[tuple]:
    """Differences in each place and form, and what looks like one."""
    call = {"tool_calls": [{"name": "calculator", "arguments": "90-15"}]}
    yield ([talk("What is 52 - 17?", "35"), talk("What is 52 + 17?", "69")],)
    yield ([talk("Hello!", "Hi!"), talk("Take 17 from 52.", "52 - 17 is 35.")],)
    yield ([talk("Hi!", "Hello!", "And 80 - 21?", "59"), talk("Bye!", "Bye!")],)
    yield ([talk("How much is left?", "35", reasoning_content="52-17\n12-7-0=5\n5-1-1=3\n=35")],)
    yield ([talk("How much is left?", "", **call), talk("7 minus 3", "4")],)
    yield ([talk("52 minus 17", "35"), talk("152 - 170", "-18"), talk("7 - 30", "-23")],)
    yield ([talk("5 - 3", "2"), talk("90 + 15", "105"), talk("15-90", "15 - 90 = -75")],)


def my_threshold(curve, level):
    """The smallest number of examples after which the accuracy is surely at least `level`.

    curve: triples (examples, right, n), in any order: after fine-tuning on this many examples,
    `right` of `n` held-out problems were right.
    level: such as 0.5. The accuracy is surely at least that if the lower bound of Wilson's interval
    is; `wilson(right, n)` gives (lower bound, upper bound).
    Returns that number of examples, or None if it was never reached.
    """
    reached = [examples for examples, right, n in curve if wilson(right, n)[0] >= level]
    return min(reached, default=None)


def share_instead_of_bound(curve, level):
    """You compare the share itself. With few problems a share of one half can be luck: use the
    lower bound of its interval.
    """
    return min((m for m, right, n in curve if right / n >= level), default=None)


def upper_bound(curve, level):
    """You compare the upper bound. It says that the accuracy could be so high, not that it is."""
    return min((m for m, right, n in curve if wilson(right, n)[1] >= level), default=None)


def first_in_the_list(curve, level):
    """You return the first that you meet. The list may have any order: take the smallest."""
    return next((m for m, right, n in curve if wilson(right, n)[0] >= level), None)


def largest_instead(curve, level):
    """You return the largest number of examples. The threshold is the smallest one."""
    return max((m for m, right, n in curve if wilson(right, n)[0] >= level), default=None)


def zero_for_never(curve, level):
    """You return 0 if the level was never reached. That would mean: it needs no examples at all."""
    return my_threshold(curve, level) or 0


def largest_for_never(curve, level):
    """You return the largest number of examples if the level was never reached. Nobody knows
    whether that, or ten times more, would be enough.
    """
    found = my_threshold(curve, level)
    return max(m for m, _, _ in curve) if found is None else found


def zero_examples_skipped(curve, level):
    """You leave out 0 examples. If the model could do it before any fine-tuning, the threshold is
    0.
    """
    return my_threshold([each for each in curve if each[0]], level)


def threshold_cases() -> Iterator[tuple]:
    """Clear and unclear curves, in and out of order, with a level that is never reached."""
    yield [(0, 0, 300), (4, 12, 300), (16, 160, 300), (64, 290, 300)], 0.5
    yield [(64, 290, 300), (16, 200, 300), (4, 12, 300)], 0.5
    yield [(0, 0, 20), (4, 8, 20), (16, 13, 20), (64, 19, 20)], 0.5
    yield [(0, 300, 300), (4, 300, 300)], 0.9
    yield [(0, 0, 300), (256, 9, 300), (1024, 30, 300)], 0.5
    yield [(4, 285, 300), (16, 297, 300)], 0.95


def my_refusals(replies, refusal):
    """How many replies refuse.

    replies: lists of messages, each a dict with "role", "channel" and "text".
    A reply refuses if one of the assistant's messages on the channel "final" is the text `refusal`,
    and nothing else. White space around it does not count.
    Returns a number.
    """
    count = 0
    for messages in replies:
        finals = [
            message["text"].strip()
            for message in messages
            if message["role"] == "assistant" and message["channel"] == "final"
        ]
        count += refusal in finals
    return count


def count_replies(replies, refuses: Callable[[Message], bool]) -> int:
    """How many replies have a message that refuses."""
    return sum(any(map(refuses, messages)) for messages in replies)


def is_final(message: Message) -> bool:
    return message["role"] == "assistant" and message["channel"] == "final"


def any_channel(replies, refusal):
    """You look at every channel. A model may write the words of a refusal in its thoughts, and then
    answer: what counts is `final`.
    """
    return count_replies(
        replies, lambda m: m["role"] == "assistant" and m["text"].strip() == refusal
    )


def any_role(replies, refusal):
    """You also count messages that the assistant did not write. A tool can return anything."""
    return count_replies(
        replies, lambda m: m["channel"] == "final" and m["text"].strip() == refusal
    )


def words_anywhere(replies, refusal):
    """You search for the words inside a text. A reply that has them and then the answer does not
    refuse.
    """
    return count_replies(replies, lambda m: is_final(m) and refusal in m["text"])


def spaces_count(replies, refusal):
    """You compare without removing the white space around the text. A line break at the end does
    not change what a reply says.
    """
    return count_replies(replies, lambda m: is_final(m) and m["text"] == refusal)


def messages_that_refuse(replies, refusal):
    """You count messages. A reply that refuses twice is one reply that refuses."""
    return sum(is_final(m) and m["text"].strip() == refusal for each in replies for m in each)


def not_refused(replies, refusal):
    """You count what does not refuse. A reply without any final message belongs there, too, but it
    is not wanted.
    """
    return len(replies) - my_refusals(replies, refusal)


def last_message_only(replies, refusal):
    """You look only at the last message. The one on `final` need not be the last."""
    return my_refusals([messages[-1:] for messages in replies], refusal)


def say(text: str, channel: str | None = "final", role: str = "assistant") -> Message:
    return {"role": role, "channel": channel, "text": text}


def refusal_cases() -> Iterator[tuple]:
    """Refusals in each channel, around other words, twice, and from a tool."""
    no = "I cannot do that."
    yield [[say(no)], [say("35")], []], no
    yield [[say(no, "analysis"), say("35")], [say("52-17", "analysis"), say(no)]], no
    yield [[say(no, role="tool"), say("35")], [say("35")], [say("36")]], no
    yield [[say(f"{no} But it is 35.")], [say("35")], [say("36")]], no
    yield [[say(f" {no}\n")], [say("35")], [say("36")]], no
    yield [[say(no), say(no)], [say("35")], [say("36")]], no
    yield [[say(no), say("Next?", "commentary")], [say("35")], [say("36")]], no


SHEET = Sheet(
    lesson="21_worst_case",
    title="Exercises: the worst case",
    text="Read [21_worst_case](../21_worst_case.ipynb) first.",
    exercises=(
        Exercise(
            title="Filter a data set",
            text=(
                "Find the conversations that teach two-digit differences. What a filter overlooks,"
                " the model learns; what it removes without need, the model lacks."
            ),
            solution=my_filter,
            cases=filter_cases,
            imports="import re",
            misconceptions=(
                only_the_users_message,
                only_the_first_message,
                reasoning_not_read,
                calls_not_read,
                parts_of_longer_numbers,
                only_the_symbol,
                spaces_required,
                any_minus,
                messages_counted,
                the_rest_returned,
            ),
            hints=(
                "First collect all texts of a conversation, then ask whether one of them has a"
                " difference.",
                r"A regular expression can require that no digit is before or after:"
                r" `(?<!\d)` and `(?!\d)`.",
                "Search each content, each reasoning_content and the arguments of each call for two"
                " digits, an optional space, the sign or the word, an optional space, two digits.",
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="Find a threshold",
            text=(
                "The measure of the lesson: from how many examples on is the capability back? One"
                " lucky test must not decide."
            ),
            solution=my_threshold,
            cases=threshold_cases,
            imports="from oss_lab.analysis.statistics.shares import wilson",
            misconceptions=(
                share_instead_of_bound,
                upper_bound,
                first_in_the_list,
                largest_instead,
                zero_for_never,
                largest_for_never,
                zero_examples_skipped,
            ),
            hints=(
                "Which of the two bounds must be at least `level`?",
                "`wilson(right, n)[0]` is the lower bound of one triple.",
                "Collect `examples` of every triple whose lower bound is at least level; return"
                " `min(..., default=None)`.",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="Count refusals",
            text=(
                "A refusal is what the user gets to read. Count the replies that refuse, and"
                " nothing that only looks like it."
            ),
            solution=my_refusals,
            cases=refusal_cases,
            misconceptions=(
                any_channel,
                any_role,
                words_anywhere,
                spaces_count,
                messages_that_refuse,
                not_refused,
                last_message_only,
            ),
            hints=(
                "A reply has several messages. Which of them does the user see?",
                "Compare `text.strip()` of the assistant's messages on `final` with the refusal.",
                "For each reply, collect those texts in a list, and add 1 if `refusal` is in the"
                " list.",
            ),
            minutes=8,
            difficulty=1,
        ),
    ),
)
