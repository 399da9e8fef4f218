"""The model card's sections on internals: when the answer is decided, effort, sinks, experts."""

from oss_lab.nano.card.parts import (
    Finding,
    fill,
    format_mean,
    format_range,
    format_result,
    format_share,
    format_table,
    format_value,
    list_changes,
)

SHOWN = (0.0, 0.3, 0.5, 0.8, 1.0)  # shares of a chain of thought


def describe_commitment(found: Finding) -> str:
    rows = format_table(
        ("task", "effort", "n", *(f"{kept:.0%} kept" for kept in SHOWN), "fixed from", "other's"),
        (
            (
                each["task"],
                each["effort"],
                str(each["used"]["count"]),
                *(
                    format_value(answer["value"], ".0%")
                    for kept, answer in zip(each["kept"], each["final"], strict=True)
                    if kept in SHOWN
                ),
                format_mean({name: to_percent(value) for name, value in each["fixed"].items()}, 0)
                + " %",
                format_share(each["control"]["other"]),
            )
            for each in found["commitment"]
        ),
    )
    fixed = fill(
        "depending on the row, the answer is fixed after {} of the chain.",
        format_range((each["fixed"]["value"] for each in found["commitment"]), ".0%"),
    )
    swapped = fill(
        "After the chain of another problem, nano gives the answer to that problem in {} of the"
        " cases.",
        format_range((each["control"]["other"]["value"] for each in found["commitment"]), ".1%"),
    )
    return f"""### When is the answer decided?

Question: how much of the chain of thought does nano need before its answer is fixed?

Method: the chain of thought is cut after each of its lines, and nano must answer. The columns show
how often this answer equals that of the complete reply, by the share of the chain that was *kept*.
*Fixed from* is the share of the chain after which the answer no longer changes, averaged over the
problems. The control gives nano the complete chain of another problem; *other's* shows how often
nano then gives the answer to that problem. nano never learned to answer after part of a chain. A
wrong answer there does not show that its activations do not contain the right one.

{rows}

{format_result(fixed, swapped)}"""


def to_percent(value: object) -> object:
    """A share or an interval of shares in percent; any other value unchanged."""
    if isinstance(value, list):
        return [100 * each for each in value]
    return 100 * value if isinstance(value, float) else value


def describe_effort(found: Finding) -> str:
    rows = format_table(
        ("task", "effort", "n", "right", "tokens of analysis", "other tokens"),
        (
            (
                each["task"],
                at["effort"],
                str(at["accuracy"]["n"]),
                format_share(at["accuracy"]),
                format_mean(at["tokens"]["analysis"]),
                format_value(count_other_tokens(at["tokens"]), ".1f"),
            )
            for each in found["effort"]
            for at in each["by_effort"]
        ),
    )
    pairs = [
        (each["task"], pair)
        for each in found["effort"]
        for pair in each["compared"]
        if pair["part"] == "question"
    ]
    moved = format_table(
        ("task", "efforts", "problems", "bits, by layer", "by chance", "slots moved, by layer"),
        (
            (
                task,
                " and ".join(pair["efforts"]),
                str(pair["problems"]),
                ", ".join(f"{layer['bits']:.3f}" for layer in pair["divergence"]),
                ", ".join(f"{layer['problems_swapped']:.3f}" for layer in pair["divergence"]),
                ", ".join(format_value(layer["value"], ".0%") for layer in pair["moved"]),
            )
            for task, pair in pairs
        ),
    )
    changes = list_changes(
        (each["task"], find_accuracy(each, "low"), find_accuracy(each, "high"))
        for each in found["effort"]
    )
    shares = [layer["value"] for _, pair in pairs for layer in pair["moved"]]
    most = max((share for share in shares if share is not None), default=None)
    moves = fill(
        "When nano reads the same question at another effort, up to {:.0%} of a layer's expert"
        " slots go to other experts.",
        most,
    )
    return f"""### What does the effort change?

Question: how do accuracy, length and the choice of experts depend on the reasoning effort?

Method: the same problems are asked at each effort.

{rows}

To compare the experts, only the tokens of the user's question are used. These tokens and all
tokens before them are the same at each effort, except the word that names the effort. *Bits* is
the Jensen-Shannon divergence between the use of experts at two efforts. *By chance* is the 95th
percentile of this divergence if the two efforts are swapped for a random half of the problems.
*Slots moved* is the share of a token's experts that differ between the two efforts.

{moved}

{format_result(fill("accuracy changes from low to high effort as follows: {}.", changes), moves)}"""


def count_other_tokens(tokens: dict[str, Finding]) -> float | None:
    """The mean number of tokens outside the analysis; None if n is 0."""
    means = [mean["value"] for channel, mean in tokens.items() if channel != "analysis"]
    return None if None in means else sum(means)


def find_accuracy(each: Finding, effort: str) -> float | None:
    """The accuracy of a task at `effort`; None if it was not measured."""
    found = {at["effort"]: at["accuracy"]["value"] for at in each["by_effort"]}
    return found.get(effort)


def describe_sinks(found: Finding) -> str:
    rows = format_table(
        ("task", "change", "n", "right", "unchanged", "difference", "divergence"),
        (
            (
                each["task"],
                each["change"],
                str(each["accuracy"]["first"]["n"]),
                format_share(each["accuracy"]["first"]),
                format_share(each["accuracy"]["second"]),
                f"{100 * each['accuracy']['difference']:+.1f}"
                f" ({100 * each['interval'][0]:+.1f} – {100 * each['interval'][1]:+.1f}) points",
                format_mean(each["divergence"], 4),
            )
            for each in found["sinks"]
        ),
    )
    clear = [
        f"{each['change']} in {each['task']}"
        for each in found["sinks"]
        if not each["interval"][0] <= 0 <= each["interval"][1]
    ]
    rest = len(found["sinks"]) - len(clear)
    result = fill("no effect on accuracy was measured in {} of {} rows.", rest, len(found["sinks"]))
    exceptions = fill("The exceptions are: {}.", "; ".join(clear))
    return f"""### What do the attention sinks do?

Question: does nano need its attention sinks?

Method: the same weights answer at high effort with some sinks removed. There are two controls.
*Shifted* doubles the weight of half of each layer's sinks and halves that of the others. *Gain
kept* removes all sinks and scales each head by the mean share of attention that its sink left to
tokens. *Divergence* compares the predictions with those of the unchanged model, in thousandths
of a nat per token, over {found["sinks"][0]["read"]} right replies. An effect on accuracy counts as
measured if the interval of the difference does not include 0.

{rows}

{format_result(result, exceptions)}"""


def describe_selective(found: Finding) -> str:
    result = found["selective"]
    verdicts = " ".join(map(describe_expert, result["found"]))
    rows = format_table(
        ("needed by", "spared", "expert", "task", "right", "without it", "lost", "another instead"),
        (
            (
                each["target"],
                each["spared"],
                f"{each['expert']} of layer {each['layer']}",
                task,
                format_share(each["without"][task]["accuracy"]["first"]),
                format_share(each["without"][task]["accuracy"]["second"]),
                format_points(each["without"][task]),
                format_points(each["forbidden"][task]),
            )
            for each in result["found"]
            for task in (each["target"], each["spared"])
        ),
    )
    return f"""### Does one task need an expert that another does not?

Question: is there an expert that products need and sums do not, or the other way round?

Method: on {result["chosen_on"]} problems of each task, the routing atlas lists the experts that
one task uses more than the other. Each of them is ablated. The expert whose ablation costs the
first task most, compared with the other task, is nominated. The table uses {result["confirmed_on"]}
other problems. *Lost* is the loss in points if the expert is ablated; *another instead* is the
loss if the router chooses the next best expert in its place. An expert is called *selective* if
three conditions hold: the interval of the first task's loss is above 0; the interval of the
other task's loss is below {100 * result["margin"]:.0f} points; and no other expert of the layer
has as large a difference between the two losses.

{rows}

{format_result(verdicts)}"""


def format_points(drop: Finding) -> str:
    """A loss in percentage points with its interval."""
    low, high = drop["interval"]
    difference = drop["accuracy"]["difference"]
    return f"{100 * difference:.1f} ({100 * low:.1f} – {100 * high:.1f})"


def describe_expert(each: Finding) -> str:
    """The result for one nominated expert, in words."""
    difference = fill(
        "Its difference between the two losses is {:.2f}; the largest of the other {} experts is"
        " {:.2f} on the same problems.",
        each["own"]["contrast"],
        len(each["others"]),
        max((other["contrast"] for other in each["others"]), default=None),
    )
    verdict = "selective" if each["selective"] else "not selective"
    text, count = each["commonest"] or ("", 0)
    lost = each["without"][each["target"]]["accuracy"]["only_first"]
    answers = (
        f"The most frequent answer to the problems that are lost is “{text}” ({count} of {lost})."
        if 2 * count > lost
        else ""
    )
    nominated = f"Expert {each['expert']} of layer {each['layer']} ({each['target']}) is {verdict}."
    return " ".join(filter(None, (nominated, difference, answers)))
