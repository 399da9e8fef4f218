"""The model card of a trained nano, written from what its training and evaluation left behind.

`python -m oss_lab.nano.card.page [FOLDER]` reads `recipe.json`, `log.jsonl`, `machine.json`,
`evaluation.json` and, where they were measured, `findings.json` beside the weights and writes
`README.md`. What was measured comes from there, sizes from the configuration.
"""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.plan import checkpoint_bytes, count_parameters
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS
from oss_lab.nano.card.findings import findings_text, table
from oss_lab.nano.tasks.settings import DIGIT_WORDS
from oss_lab.record.calls import ROUNDS

TEXT = """# gpt-oss-nano

A trained model of the gpt-oss architecture, small enough to ship: {total:,} parameters,
{active:,} active for a token, {megabytes:.2f} MiB with its experts in MXFP4. It does arithmetic
with small whole numbers, looks words up in its prompt, sorts and reverses short lists, calls a
calculator where one is declared, keeps a developer's rule against a user's wish if it thinks first,
and says of most else that it cannot. It thinks as much as the system message's effort tells it to.

It is a toy. It knows no fact and no language beyond the sentences of `oss_lab/nano/tasks/`; what
its experts and heads have learned says nothing about 20b's.

## Architecture

{layers} layers alternating a {window}-token window and full attention, {heads} query and {kv_heads}
key-value heads of size {head_dim} with sinks, {experts} experts of which {chosen} are chosen,
{sizes}, YaRN with 20b's own constants from {context} to
{longest:,} tokens, {vocabulary} byte-pair tokens with Harmony's special names.

## Held-out accuracy

Greedy decoding of the packed weights, at most {n:,} problems a row, seed {seed}; 95 % Wilson
intervals. A reply is right if its final channel is exactly the answer. Training asks none of these
products and sums, in any order of their terms, nor these pairs of a word and what it stands for,
lists with what to do with them, or sentences. A step on the way to an answer may be any, but for
look-ups: most products of two or three digits by one stand, with their whole analysis, inside the
analyses of longer ones that training does ask.

{suite}

## Stress

Longer, further or otherwise beyond what training covers; same grading.

{stress}
{findings}
## What it cannot do

- Numbers longer than it learned: without a calculator it says so, or is wrong.
- Facts, reasoning in words, code, translation, other operations than +, - and *.
- Look-ups of words and numbers in other sentences than it was trained on.
- Instructions other than the rule against a digit; tools other than the two it learned.
- More than about three turns.

## Training

{steps:,} steps of about {tokens:,} tokens, seed {training_seed}, {minutes:.0f} minutes of steps
on {hardware}; Muon at {learning_rate} for matrices and AdamW at {adam_rate} for the rest with a
cosine, balance loss {balance} fading to a tenth, the last {rounded:.0%} of the steps through MXFP4
rounding. Weights began at random{but_for}.
Every step is a line of `log.jsonl`, the rest of the recipe is in `recipe.json`. The problems are
drawn by `oss_lab/nano/tasks/`; no data set was used. Made anew with `oss-lab train`.
"""


LOOK_BACK = """, but for {heads} of the first layer's heads, which looked
{distances} back from the start; look-ups need that and found it late otherwise"""


def card(folder: Path) -> str:
    """The card's text for the checkpoint in `folder`."""
    config = open_checkpoint(folder).config
    recipe, report, machine = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("recipe", "evaluation", "machine")
    )
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    findings = folder / "findings.json"
    counts = count_parameters(config)
    return TEXT.format(
        total=counts.total,
        active=counts.active,
        megabytes=checkpoint_bytes(config) / 2**20,
        layers=config.num_hidden_layers,
        window=config.sliding_window,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        experts=config.num_experts,
        chosen=config.experts_per_token,
        sizes=sizes(config),
        context=config.initial_context_length,
        longest=config.max_context_length,
        vocabulary=config.vocab_size,
        n=report["n"],
        seed=report["seed"],
        suite=score_table(report["suite"]) + unanswered(report["suite"]),
        stress=score_table(report["stress"]) + unanswered(report["stress"]),
        findings=f"\n{findings_text(json.loads(findings.read_text()))}\n"
        if findings.exists()
        else "",
        steps=recipe["steps"],
        tokens=recipe["tokens"],
        training_seed=recipe["seed"],
        minutes=sum(line["seconds"] for line in log) / 60,
        hardware=f"{machine['threads']} threads of {machine['cpu']}, torch {machine['torch']}",
        learning_rate=recipe["learning_rate"],
        adam_rate=recipe["adam_rate"],
        balance=recipe["balance"],
        rounded=recipe["rounded"],
        but_for=but_for(config, recipe["look_back"]),
    )


def sizes(config: ModelConfig) -> str:
    """Of the residual and of an expert's middle."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    if hidden == intermediate:
        return f"hidden and intermediate size {hidden}"
    return f"hidden size {hidden}, intermediate size {intermediate}"


def but_for(config: ModelConfig, look_back: int) -> str:
    """Which heads began by looking back, as `initialize.set_back` sets them; "" if none did."""
    farthest = min(look_back, config.num_attention_heads // config.num_key_value_heads)
    if not farthest:
        return ""
    *nearer, last = [in_word(back) for back in range(1, farthest + 1)]
    distances = f"{', '.join(nearer)} or {last} tokens" if nearer else f"{last} token"
    heads = in_word(farthest * config.num_key_value_heads)
    return LOOK_BACK.format(heads=heads, distances=distances)


def in_word(number: int) -> str:
    """Below ten as a word."""
    return DIGIT_WORDS[number] if number < 10 else str(number)


def score_table(scores: list[dict[str, Any]]) -> str:
    """A row a score."""
    return table(
        ("task", "effort", "n", "right", "interval", "analysis tokens"),
        (
            (
                score["name"],
                score["effort"],
                f"{score['n']:,}",
                f"{score['accuracy']:.1%}",
                "{:.1%} – {:.1%}".format(*score["interval"]),
                f"{score['mean_analysis_tokens']:.0f}",
            )
            for score in scores
        ),
    )


def unanswered(scores: list[dict[str, Any]]) -> str:
    """The replies that ended in a call without an output, as a paragraph; "" if none did."""
    found = [each for each in scores if each["calls_unanswered"]]
    if not found:
        return ""
    rows = "; ".join(
        f"{each['name']}, {each['effort']} effort: {each['calls_unanswered']}" for each in found
    )
    sentence = (
        f"Of these {sum(each['n'] for each in scores):,} replies"
        f" {sum(each['calls_unanswered'] for each in found):,} have no answer: they end in a call"
        " that got no output, because the tool has none for what was asked of it or because a"
        f" question gets {ROUNDS} rounds and this was the last ({rows})."
    )
    return f"\n\n{textwrap.fill(sentence, 100, break_on_hyphens=False)}"


SUMMARY = (
    "product 3x2 digits",
    "sum 2 terms, 3 digits",
    "sum 5 terms",
    "look-up beyond the window",
    "look-up, 2 hops",
    "calculator, arithmetic",
    "rule against 5, sum",
    "out of reach",
)
"""The rows that the README shows."""


def summary(report: dict[str, Any]) -> str:
    """The README's table: accuracy by effort, and the tokens of analysis at high."""
    found = {(each["name"], each["effort"]): each for each in report["suite"]}
    return table(
        ("task", *EFFORTS, "tokens of analysis at high"),
        (
            (
                name,
                *(f"{found[name, effort]['accuracy']:.1%}" for effort in EFFORTS),
                f"{found[name, 'high']['mean_analysis_tokens']:.0f}",
            )
            for name in SUMMARY
        ),
    )


def main() -> None:
    default = Path(__file__).parents[2] / "assets" / "nano"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    try:
        text = card(folder)
    except (LabError, OSError) as error:
        sys.exit(f"oss_lab.nano.card.page: {error}")
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(f"wrote {folder / 'README.md'}; the project's README has this table:\n")
    print(summary(json.loads((folder / "evaluation.json").read_text())))


if __name__ == "__main__":
    main()
