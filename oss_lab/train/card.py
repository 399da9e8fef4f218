"""The model card of a trained nano, written from what its training and evaluation left behind.

`python -m oss_lab.train.card [FOLDER]` reads `recipe.json`, `log.jsonl` and `evaluation.json`
beside the weights and writes `README.md`. What was measured comes from there, sizes from the
configuration; only `machine.txt`, the line that says where it was trained, is written by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.plan import checkpoint_bytes, count_parameters
from oss_lab.checkpoint.read import open_checkpoint

TEXT = """# gpt-oss-nano

A trained model of the gpt-oss architecture, small enough to ship: {total:,} parameters,
{active:,} active for a token, {megabytes:.2f} MiB with its experts in MXFP4. It answers
`What is A * B?` (up to three by two digits) and `What is A + B?` (up to four digits each), thinks
as much as the system message's effort tells it to, and says that it only knows products and sums
when asked anything else.

It is a toy. It knows no fact, holds no conversation of several turns and calls no tool; longer
numbers, other operations and other wordings than it was trained on are out of its reach, and where
it does not notice that, its answer is wrong.

## Architecture

{layers} layers alternating a {window}-token window and full attention, {heads} query and {kv_heads}
key-value heads of size {head_dim} with sinks, {experts} experts of which {chosen} are chosen,
hidden and intermediate size {hidden}, YaRN with 20b's own constants from {context} to
{longest:,} tokens, {vocabulary} byte-pair tokens with Harmony's special names.

## Held-out accuracy

Greedy decoding of the packed weights; {n} problems a row whose operand pairs training never saw,
seed {seed}; 95 % Wilson intervals. A reply is right if its final channel is exactly the answer.

| task | effort | accuracy | interval | mean analysis tokens |
|---|---|---|---|---|
{rows}

## Training

{steps:,} steps of about {tokens:,} tokens, seed {training_seed}, {minutes:.0f} minutes of steps
on {hardware}; AdamW at {learning_rate} with a cosine, balance loss {balance} fading to a tenth,
the last {rounded:.0%} of the steps through MXFP4 rounding. Every step is a line of `log.jsonl`,
the rest of the recipe is in `recipe.json`. The problems are drawn by `oss_lab/train/tasks.py`; no
data set was used. Made anew with `oss-lab train`.
"""


def card(folder: Path) -> str:
    """The card's text for the checkpoint in `folder`."""
    config = open_checkpoint(folder).config
    recipe = json.loads((folder / "recipe.json").read_text())
    report = json.loads((folder / "evaluation.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
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
        hidden=config.hidden_size,
        context=config.initial_context_length,
        longest=config.max_context_length,
        vocabulary=config.vocab_size,
        n=report["scores"][0]["n"],
        seed=report["seed"],
        rows="\n".join(map(_row, report["scores"])),
        steps=recipe["steps"],
        tokens=recipe["tokens"],
        training_seed=recipe["seed"],
        minutes=sum(line["seconds"] for line in log) / 60,
        hardware=(folder / "machine.txt").read_text().strip(),
        learning_rate=recipe["learning_rate"],
        balance=recipe["balance"],
        rounded=recipe["rounded"],
    )


def _row(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return (
        f"| {score['task']} | {score['effort']} | {score['accuracy']:.1%} "
        f"| {low:.1%} – {high:.1%} | {score['mean_analysis_tokens']:.0f} |"
    )


def main() -> None:
    default = Path(__file__).parents[1] / "assets" / "nano"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    (folder / "README.md").write_text(card(folder))
    print(folder / "README.md")


if __name__ == "__main__":
    main()
