"""The model card's sections on what a conversation contains: earlier questions, and reasoning."""

from oss_lab.nano.card.parts import (
    Finding,
    fill,
    format_pair,
    format_result,
    format_table,
    list_changes,
)


def describe_turns(found: Finding) -> str:
    rows = format_table(
        ("question", "n", "prompt tokens", "right, alone", "right, in the conversation"),
        (
            (
                str(each["turn"]),
                format_pair(each["accuracy"])[0],
                f"{each['prompt_tokens']:.0f}",
                *format_pair(each["accuracy"])[1:],
            )
            for each in found["turns"]
        ),
    )
    known = [each for each in found["turns"] if each["accuracy"]["second"]["value"] is not None]
    ends = (
        (known[0]["accuracy"]["second"]["value"], known[-1]["accuracy"]["second"]["value"])
        if len(known) > 1
        else (None, None)
    )
    result = fill("accuracy falls from {:.1%} to {:.1%}.", *ends) if is_falling(*ends) else ""
    return f"""### How long can a conversation be?

Question: are answers still right after many questions in one conversation?

Method: at high effort, nano answers unrelated questions one after the other: sums of two numbers,
products of two digits by one, and operations on lists. Its own answers stay in the conversation,
right or wrong. *Alone* asks each question in its own conversation. Training has at most three
questions in one conversation.

{rows}

{format_result(result)}"""


def is_falling(first: float | None, last: float | None) -> bool:
    """Whether both are known and the last is lower."""
    return first is not None and last is not None and last < first


def describe_dropped(found: Finding) -> str:
    rows = format_table(
        ("calls", "n", "right, kept", "right, dropped"),
        ((str(each["calls"]), *format_pair(each["accuracy"])) for each in found["dropped"]),
    )
    lost = list_changes(
        (
            f"{each['calls']} calls",
            each["accuracy"]["first"]["value"],
            each["accuracy"]["second"]["value"],
        )
        for each in found["dropped"]
        if has_dropped(each["accuracy"])
    )
    result = fill(
        "without this analysis, fewer answers are right: {}. A client must therefore return the"
        " analysis between tool calls.",
        lost,
    )
    return f"""### What is lost if the reasoning between tool calls is dropped?

Question: does nano need its own analysis from before a tool call to continue after it?

Method: nano looks up words with a tool and adds their numbers, at medium effort. It writes the
running total in the analysis between the calls. *Kept* returns this analysis to nano with the
output of the tool, *dropped* leaves it out. The first total comes after the second output, so with
two calls there is none to leave out. In training, a question has at most four calls.

{rows}

{format_result(result)}"""


def has_dropped(accuracy: Finding) -> bool | None:
    """Whether the second accuracy is lower and the intervals do not overlap; None if n is 0."""
    first, second = accuracy["first"], accuracy["second"]
    if first["value"] is None or second["value"] is None:
        return None
    return second["interval"][1] < first["interval"][0]
