"""`oss-lab fake`: write a checkpoint with random weights and the true shapes of a model.

Use it to try every command before you download the weights. The answers are noise; sizes, memory
and speed are real. `oss-lab inspect` reports that the weights are random. No vocabulary is written:
text for 20b and 120b needs o200k_harmony, which tiktoken downloads once; token ids need nothing.
"""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from oss_lab.checkpoint.atomic import check_output_folder
from oss_lab.checkpoint.layouts import TITLES, Layout
from oss_lab.cli._options import Seed


def run(
    model: Annotated[
        Literal["20b", "120b", "nano"], Argument(metavar="MODEL", help="20b, 120b or nano")
    ],
    out: Annotated[Path, Argument(metavar="OUT", help="the folder to write")],
    layout: Annotated[Layout, Option(help="the layout to write")] = "original",
    layers: Annotated[
        int | None, Option(min=1, max=1000, help="number of layers (default: the model's)")
    ] = None,
    seed: Seed = 0,
    overwrite: Annotated[
        bool, Option("--overwrite", help="replace an existing checkpoint")
    ] = False,
) -> int:
    """Write a checkpoint with random weights, to try everything without a download."""
    from oss_lab.checkpoint.fake import write_fake

    check_output_folder(out, "OUT")
    files = write_fake(model, out, layout=layout, layers=layers, seed=seed, overwrite=overwrite)
    size = sum(file.stat().st_size for file in files)
    names = ", ".join(file.name for file in files)
    print(f"wrote random weights for {model} to {out} in the {TITLES[layout]} layout")
    print(f"{size / 1e9:,.3f} GB: {names}")
    if model != "nano":
        print(
            "text needs the vocabulary o200k_harmony, which is downloaded once (3.6 MB); without a"
            " network, give token ids: oss-lab trace or logits with --tokens FILE"
        )
    return 0
