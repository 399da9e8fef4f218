"""The model card's sections on what changes inside: thinking cut short, effort, sinks, experts."""

from oss_lab.nano.card.parts import Found, mean, share, table

SHOWN = (0.0, 0.3, 0.5, 0.8, 1.0)  # shares of a chain of thought


def commitment(found: Found) -> str:
    rows = table(
        ("task", "effort", "n", *(f"{kept:.0%} kept" for kept in SHOWN), "fixed from", "other's"),
        (
            (
                each["task"],
                each["effort"],
                str(each["used"]["count"]),
                *(
                    f"{answer['value']:.0%}"
                    for kept, answer in zip(each["kept"], each["final"], strict=True)
                    if kept in SHOWN
                ),
                mean({name: percent(value) for name, value in each["fixed"].items()}, 0) + " %",
                share(each["control"]["other"]),
            )
            for each in found["commitment"]
        ),
    )
    return f"""## When is the answer decided?

The chain of thought was cut behind each of its lines and the answer forced. A column says how often
it is the reply's own where so much of the chain was kept; *fixed from* is the share of the chain
from which on it stays so, mean over problems. Control: behind the whole chain of another problem,
how often the answer is that problem's. nano never learned to answer behind half a chain.

{rows}"""


def percent(value: object) -> object:
    """A share or an interval of shares in percent; anything else as it is."""
    if isinstance(value, list):
        return [100 * each for each in value]
    return 100 * value if isinstance(value, float) else value


def effort(found: Found) -> str:
    rows = table(
        ("task", "effort", "n", "right", "tokens of analysis", "other tokens"),
        (
            (
                each["task"],
                at["effort"],
                str(at["accuracy"]["n"]),
                share(at["accuracy"]),
                mean(at["tokens"]["analysis"]),
                f"{sum(m['value'] for name, m in at['tokens'].items() if name != 'analysis'):.1f}",
            )
            for each in found["effort"]
            for at in each["by_effort"]
        ),
    )
    moved = table(
        ("task", "efforts", "problems", "bits, by layer", "by chance", "slots moved, by layer"),
        (
            (
                each["task"],
                " and ".join(pair["efforts"]),
                str(pair["problems"]),
                ", ".join(f"{layer['bits']:.3f}" for layer in pair["divergence"]),
                ", ".join(f"{layer['problems_swapped']:.3f}" for layer in pair["divergence"]),
                ", ".join(f"{layer['value']:.0%}" for layer in pair["moved"]),
            )
            for each in found["effort"]
            for pair in each["compared"]
            if pair["part"] == "question"
        ),
    )
    return f"""## What does the effort change?

{rows}

The same question is read at each effort; all tokens before it are the same but the effort's word.
*Bits* are the Jensen-Shannon divergence of the experts' use, *by chance* the 95th percentile with
efforts swapped problem by problem, *slots moved* the share of a token's experts that are others.

{moved}"""


def sinks(found: Found) -> str:
    rows = table(
        ("task", "change", "n", "right", "unchanged", "difference", "divergence"),
        (
            (
                each["task"],
                each["change"],
                str(each["accuracy"]["first"]["n"]),
                share(each["accuracy"]["first"]),
                share(each["accuracy"]["second"]),
                f"{100 * each['accuracy']['difference']:+.1f}"
                f" ({100 * each['interval'][0]:+.1f} – {100 * each['interval'][1]:+.1f}) points",
                mean(each["divergence"], 4),
            )
            for each in found["sinks"]
        ),
    )
    return f"""## What do the sinks do?

The same weights with sinks taken out, at high effort. *Shifted* is a control: half of a layer's
sinks weigh twice as much, the others half as much. *Gain kept* takes all out and scales each head
by the mean share that its sink left to tokens. *Divergence* of the changed predictions from the
unchanged is in thousandths of a nat a token, over {found["sinks"][0]["read"]} right replies.

{rows}"""


def selective(found: Found) -> str:
    result = found["selective"]
    told = " ".join(map(one_expert, result["found"]))
    rows = table(
        ("needed by", "spared", "expert", "task", "right", "without it", "lost", "another instead"),
        (
            (
                each["target"],
                each["spared"],
                f"{each['expert']} of layer {each['layer']}",
                task,
                share(each["without"][task]["accuracy"]["first"]),
                share(each["without"][task]["accuracy"]["second"]),
                points(each["without"][task]),
                points(each["forbidden"][task]),
            )
            for each in result["found"]
            for task in (each["target"], each["spared"])
        ),
    )
    return f"""## Does one task need an expert that another does not?

On {result["chosen_on"]} problems of each task the atlas listed the experts that one task uses most
beyond the other; the one whose knock-out cost it most beyond the other was nominated, and the table
has {result["confirmed_on"]} other problems. *Lost*, in points, is without its output, *another
instead* with the next best chosen in its place. It is called selective if the target's loss is
above 0, the spared task's below {100 * result["margin"]:.0f} points, both by their intervals, and
no other expert of the layer has as large a difference of the two.

{told}

{rows}"""


def points(drop: Found) -> str:
    """A loss in percentage points with its interval."""
    low, high = drop["interval"]
    difference = drop["accuracy"]["difference"]
    return f"{100 * difference:.1f} ({100 * low:.1f} – {100 * high:.1f})"


def one_expert(each: Found) -> str:
    """What came of one direction, in words."""
    most = max(other["contrast"] for other in each["others"])
    verdict = "is selective" if each["selective"] else "is not"
    text, count = each["commonest"] or ("", 0)
    lost = each["without"][each["target"]]["accuracy"]["only_first"]
    said = (
        f"; {count} of the {lost} problems lost are answered “{text}”" if 2 * count > lost else ""
    )
    return (
        f"Expert {each['expert']} of layer {each['layer']} ({each['target']}) {verdict}: its"
        f" difference is {each['own']['contrast']:.2f}, the largest of the other"
        f" {len(each['others'])} is {most:.2f} on the same problems{said}."
    )
