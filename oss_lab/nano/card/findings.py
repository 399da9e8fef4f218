"""The model card's sections on what was found, from `findings.json`."""

from oss_lab.nano.card.findings_inside import commitment, effort, selective, sinks
from oss_lab.nano.card.parts import Found, pair, share, table

LABELS = ("task", "task_given_token", "token", "field")


def findings_text(found: Found) -> str:
    """Markdown: a section an experiment."""
    sections = (
        corruption,
        commitment,
        effort,
        calls,
        dropped,
        window,
        sinks,
        experts,
        selective,
        rounding,
    )
    return "\n\n".join(each(found) for each in sections if found.get(each.__name__))


def corruption(found: Found) -> str:
    rows = table(
        ("effort", "faultless", "follows", "true in spite of it", "other", "control right"),
        (
            (
                each["effort"],
                f"{each['faultless']['count']} of {each['faultless']['n']}",
                share(each["corrupted"]["follows"]),
                share(each["corrupted"]["true"]),
                share(each["corrupted"]["other"]),
                share(each["control"]),
            )
            for each in found["corruption"]
        ),
    )
    return f"""## Is the chain of thought used?

One result in a faultless analysis of a 3x2-digit product was changed at random and the analysis cut
behind it; nano went on from there. The answer *follows* if it is what correct work makes of the
changed result. The control was cut at the same place with nothing changed.

{rows}"""


def calls(found: Found) -> str:
    rows = table(
        ("situation", "effort", "n", "called or not as wanted", "valid", "exact"),
        (
            (
                each["situation"],
                each["effort"],
                str(each["as_wanted"]["n"]),
                share(each["as_wanted"]),
                share(each["valid"]),
                share(each["exact"]),
            )
            for each in found["calls"]
        ),
    )
    return f"""## When is the calculator called?

First replies. *Valid* calls go to the calculator on commentary with JSON of the declared form;
*exact* ones ask for the question's expression.

{rows}"""


def dropped(found: Found) -> str:
    rows = table(
        ("calls", "n", "right, kept", "right, dropped"),
        ((str(each["calls"]), *pair(each["accuracy"])) for each in found["dropped"]),
    )
    return f"""## What is lost when reasoning between calls is dropped?

Sums over a look-up tool at medium effort. The running total stands in the analysis between the
calls; *dropped* leaves that analysis out when the tool's output is given. Training has up to four
calls.

{rows}"""


def window(found: Found) -> str:
    rows = table(
        ("look-up", "effort", "n", "right, intact", "right, cut", "chance"),
        (
            (
                each["where"],
                each["effort"],
                *pair(each["accuracy"]),
                f"{each['chance_listed']:.1%}",
            )
            for each in found["window"]
        ),
    )
    return f"""## What do the full layers do?

Look-ups with the same weights, the full layers cut to the window; chance names a listed number.
*Within* is the control: question and answer fit into one window, the system message with its
effort does not.

{rows}"""


def experts(found: Found) -> str:
    shipped = found["experts"]
    models = {"shipped": shipped} | found.get("compared", {})
    below = [
        f"{label} in layer {layer} ({name})"
        for name, model in models.items()
        for label in LABELS
        for layer, each in enumerate(model[label])
        if each["bits"] <= each["null_high"]
    ]
    exceptions = f" but for {', '.join(below)}" if below else ""
    rows = table(
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
    return f"""## What do experts know of a token?

Mutual information of a token's experts and its label in bits, over what shuffled labels give (the
task shuffled between conversations, token and field within them); {shipped["conversations"]:,}
conversations, {shipped["tokens"]:,} tokens, {shipped["shuffles"]} shuffles. *Given the token* is
the task where the kind of token is known. Every figure lies above its shuffles' 97.5 %
quantile{exceptions}.

{rows}"""


def rounding(found: Found) -> str:
    rows = table(
        ("task", "effort", "n", "MXFP4", "BF16", "difference", "only one right"),
        (
            (
                each["task"],
                each["effort"],
                *pair(each["accuracy"]),
                f"{100 * each['accuracy']['difference']:+.1f} points",
                f"{each['accuracy']['only_first']}, {each['accuracy']['only_second']}",
            )
            for each in found["rounding"]
        ),
    )
    return f"""## What does MXFP4 cost?

The packed weights against the run's own rounded to BF16 alone, on the same problems.

{rows}"""
