"""The model card's sections on the experiments, from `findings.json`.

Each section states the question, the method, the numbers and the result. The numbers in a result
are computed from the file. If one is missing (n = 0), its sentence or its part of a list is left
out. A conclusion is left out if the numbers do not support it.
"""

from oss_lab.nano.card.findings_inside import (
    describe_commitment,
    describe_effort,
    describe_selective,
    describe_sinks,
)
from oss_lab.nano.card.findings_turns import describe_dropped, describe_turns, has_dropped
from oss_lab.nano.card.parts import (
    Finding,
    fill,
    format_pair,
    format_range,
    format_result,
    format_share,
    format_table,
    list_changes,
)

LABELS = ("task", "task_given_token", "token", "field")
INTRODUCTION = """## Experiments

`python -m oss_lab.nano.studies` ran these experiments on held-out problems. Numbers in parentheses
are 95% intervals."""


def describe_findings(found: Finding) -> str:
    """Markdown: one section per experiment in `found`."""
    sections = {
        "corruption": describe_corruption,
        "commitment": describe_commitment,
        "effort": describe_effort,
        "calls": describe_calls,
        "dropped": describe_dropped,
        "turns": describe_turns,
        "window": describe_window,
        "sinks": describe_sinks,
        "experts": describe_experts,
        "selective": describe_selective,
        "rounding": describe_rounding,
    }
    texts = [describe(found).strip() for name, describe in sections.items() if found.get(name)]
    return "\n\n".join([INTRODUCTION, *texts])


def describe_corruption(found: Finding) -> str:
    rows = format_table(
        ("effort", "faultless", "follows", "still right", "other", "control right"),
        (
            (
                each["effort"],
                f"{each['faultless']['count']} of {each['faultless']['n']}",
                format_share(each["corrupted"]["follows"]),
                format_share(each["corrupted"]["true"]),
                format_share(each["corrupted"]["other"]),
                format_share(each["control"]),
            )
            for each in found["corruption"]
        ),
    )
    follows = [
        (each["effort"], share)
        for each in found["corruption"]
        if (share := each["corrupted"]["follows"])["value"] is not None
    ]
    result = fill(
        "the answer follows the changed result in {}.",
        " and ".join(
            f"{share['value']:.1%} of the replies at {effort} effort" for effort, share in follows
        ),
    )
    conclusion = (
        "Most answers were therefore computed from the written results, including the wrong one."
        if min((share["interval"][0] for _, share in follows), default=0) > 0.5
        else ""
    )
    return f"""### Does nano use its chain of thought?

Question: is the answer computed from the results written in the analysis?

Method: nano solves products of three by two digits. In each analysis without a mistake
(*faultless*), one result, chosen at random, gets a wrong digit. The analysis is cut off after
it, and nano continues. The answer *follows* if correct arithmetic leads from the changed result
to this answer. It is *still right* if it is the right answer to the question. The control is cut
at the same place without the change.

{rows}

{format_result(result, conclusion)}"""


def describe_calls(found: Finding) -> str:
    rows = format_table(
        ("situation", "effort", "n", "calls only if wanted", "valid", "exact"),
        (
            (
                each["situation"],
                each["effort"],
                str(each["as_wanted"]["n"]),
                format_share(each["as_wanted"]),
                format_share(each["valid"]),
                format_share(each["exact"]),
            )
            for each in found["calls"]
        ),
    )
    lowest = {
        name: format_lower_bound([each[name]["value"] for each in found["calls"]])
        for name in ("as_wanted", "valid", "exact")
    }
    replies = fill(
        "in every row, {} of the replies contain a call if and only if one is wanted.",
        lowest["as_wanted"],
    )
    of_calls = fill(
        "Of its calls, {} are valid and {} are exact.", lowest["valid"], lowest["exact"]
    )
    return f"""### When does nano call the calculator?

Question: does nano call the calculator when it should, and only then?

Method: only the first reply to each question counts. A call is wanted if a calculator is
declared and the question is arithmetic that nano learned to calculate. A call is *valid* if it
goes to the calculator on the commentary channel with arguments that match the declared schema. It
is *exact* if it passes the expression of the question.

{rows}

{format_result(replies, of_calls)}"""


def format_lower_bound(shares: list[float | None]) -> str:
    """The smallest of several shares as a lower bound, in words; "" if all are None."""
    lowest = min((share for share in shares if share is not None), default=None)
    return "all" if lowest == 1 else fill("at least {:.1%}", lowest)


def describe_window(found: Finding) -> str:
    rows = format_table(
        ("look-up", "effort", "n", "right, intact", "right, cut", "chance"),
        (
            (
                each["where"],
                each["effort"],
                *format_pair(each["accuracy"]),
                f"{each['chance_listed']:.1%}",
            )
            for each in found["window"]
        ),
    )
    changes = list_changes(
        (
            f"*{each['where']}* at {each['effort']} effort",
            each["accuracy"]["first"]["value"],
            each["accuracy"]["second"]["value"],
        )
        for each in found["window"]
    )
    drops = {(each["where"], has_dropped(each["accuracy"])) for each in found["window"]}
    conclusion = (
        "The drop beyond the window but not within it shows that look-ups beyond it need"
        " the full-attention layers."
        if drops == {("beyond", True), ("within", False)}
        else ""
    )
    return f"""### What do the full-attention layers do?

Question: do look-ups across a longer distance need the full-attention layers?

Method: *cut* has the same weights, but every layer uses the sliding window. In *beyond*, the
word and its number are farther back than one window. *Within* is the control: question and
answer fit into one window, although the system message with its effort does not. *Chance* is the
accuracy of a random guess among the listed numbers.

{rows}

{format_result(fill("accuracy changes as follows: {}.", changes), conclusion)}"""


def describe_experts(found: Finding) -> str:
    shipped = found["experts"]
    models = {"shipped": shipped} | found.get("compared", {})
    below = [
        f"{label} in layer {layer} ({name})"
        for name, model in models.items()
        for label in LABELS
        for layer, each in enumerate(model[label])
        if each["bits"] <= each["null_high"]
    ]
    exceptions = f", except {', '.join(below)}" if below else ""
    others = " The other models in the table are for comparison." if len(models) > 1 else ""
    rows = format_table(
        ("model", "layer", *(label.replace("_", " ") for label in LABELS), "busiest expert"),
        (
            (
                name,
                str(layer),
                *(f"{model[label][layer]['excess']:.3f}" for label in LABELS),
                f"{model['load'][layer]:.1f} ×",
            )
            for name, model in models.items()
            for layer in range(len(model["load"]))
        ),
    )
    average = {
        label: sum(each["excess"] for each in shipped[label]) / len(shipped[label])
        for label in LABELS
    }
    return f"""### What do the experts depend on?

Question: does the choice of experts depend on the task, or only on the token?

Method: nano reads {shipped["conversations"]:,} conversations ({shipped["tokens"]:,} tokens) with
the right replies. The table has the mutual information in bits between the experts of a token
and a label, minus the mean of {shipped["shuffles"]} shuffles of the label. *Task* is shuffled
between conversations; *token* (the kind of token) and *field* (its place in the Harmony format)
within a conversation. *Task given token* is the information about the task if the kind of token
is known. *Busiest expert* is the load of the busiest expert relative to an even load.{others}

{rows}

Result: every value is above the 97.5% quantile of its shuffles{exceptions}. Averaged over the
layers, the experts of the shipped model carry {average["token"]:.2f} bits about the kind of
token, {average["field"]:.2f} about the field, {average["task"]:.2f} about the task, and
{average["task_given_token"]:.2f} about the task if the kind of token is known."""


def describe_rounding(found: Finding) -> str:
    rows = format_table(
        ("task", "effort", "n", "MXFP4", "BF16", "difference", "only one right"),
        (
            (
                each["task"],
                each["effort"],
                *format_pair(each["accuracy"]),
                f"{100 * each['accuracy']['difference']:+.1f} points",
                f"{each['accuracy']['only_first']}, {each['accuracy']['only_second']}",
            )
            for each in found["rounding"]
        ),
    )
    differences = [100 * each["accuracy"]["difference"] for each in found["rounding"]]
    result = fill(
        "depending on the row, the difference in accuracy is {} points.",
        format_range(differences, "+.1f"),
    )
    return f"""### What does MXFP4 cost?

Question: how much accuracy is lost when the experts are stored in four bits?

Method: the packed weights and the same weights rounded only to BF16 answer the same problems. *Only
one right* counts the problems that only the first or only the second model gets right.

{rows}

{format_result(result)}"""
