"""`oss-lab eval`: how often a checkpoint is right, and how much it thinks for it.

Asks the built-in questions, or those of a file, at one effort or at each. A file has lines of
{"prompt", "answer"}, perhaps with "name", "developer" and "tools", or is one of the public files
that --format names. Every outcome is kept in a file as it comes: after Ctrl-C or a crash the same
command resumes, and one that is complete only prints its scores again. Tools of a question are not
run; the file gives their outputs.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from oss_lab.checkpoint.atomic import check_out
from oss_lab.cli._options import AsJson, Checkpoint, Download, Seed, Threads
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Effort

if TYPE_CHECKING:
    from oss_lab.evaluation.question import Question
    from oss_lab.evaluation.run import Outcome

Format = Literal["jsonl", "aime", "gpqa", "mmlu"]
OUTCOMES = "outcomes.jsonl"


def run(
    name: Checkpoint,
    download: Download = False,
    effort: Annotated[Literal[Effort, "all"], Option(help="one, or all of them")] = "all",
    problems: Annotated[Path | None, Option(help="a file of your own questions")] = None,
    format: Annotated[Format | None, Option(help="format of --problems (default: jsonl)")] = None,
    limit: Annotated[int | None, Option(min=1, help="ask only the first N questions")] = None,
    n: Annotated[
        int | None, Option(min=1, help="built-in questions per row (default: 100)")
    ] = None,
    seed: Seed = 1,
    max_tokens: Annotated[
        int | None,
        Option(min=1, help="maximum tokens per reply (default: 2048 for nano, else 32768)"),
    ] = None,
    batch: Annotated[
        int | None, Option(min=1, help="replies at a time (default: 64 for nano, else 8)")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
    plot: Annotated[Path | None, Option(help="a page to draw accuracy and tokens in")] = None,
    out: Annotated[Path | None, Option(help="keep outcomes here, not in your cache folder")] = None,
    fresh: Annotated[bool, Option("--fresh", help="forget the outcomes of earlier runs")] = False,
) -> int:
    """Measure accuracy and thinking by effort."""
    if problems is None and format is not None:
        raise LabError("--format is that of --problems: name the file too")
    if problems is not None and n is not None:
        raise LabError("--n counts built-in questions; with --problems use --limit")
    if plot is not None:
        if plot.suffix.lower() != ".html":
            raise LabError(f"--plot writes a web page: call {plot} something.html")
        check_out(plot, "--plot")
    questions = asked_questions(problems, format, n, seed)[:limit]
    import torch

    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.evaluation.journal import Journal, default_place, fingerprint
    from oss_lab.evaluation.resume import resume
    from oss_lab.lab import load

    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = find_checkpoint(name, download=download)
    lab = load(name, download=download, verbose=sys.stderr.isatty())
    small = lab.tokenizer.name == "nano"
    max_tokens = max_tokens or (2048 if small else 32768)
    batch = batch or (64 if small else 8)
    of = fingerprint(checkpoint, questions, lab.sampling, max_tokens, seed)
    path = out / OUTCOMES if out else default_place(of)
    efforts: Sequence[Effort] = EFFORTS if effort == "all" else (effort,)
    with Journal(path, of, fresh=fresh) as journal:
        todo = len(efforts) * len(questions)
        if before := len(journal.at(*efforts)):
            earlier = f"{before} of {todo} answers are from an earlier run"
            print(f"{earlier} ({path}); --fresh asks again", file=sys.stderr)
        try:
            for each in efforts:
                missing = resume(
                    journal,
                    lab,
                    questions,
                    each,
                    batch=batch,
                    max_tokens=max_tokens,
                    seed=seed,
                )
                follow(missing, each, len(journal.at(each)), len(questions))
        except KeyboardInterrupt:
            command = "the same command without --fresh" if fresh else "the same command"
            kept = f"stopped with {len(journal.at(*efforts))} of {todo} answers, kept in {path}"
            print(f"{kept}; {command} goes on", file=sys.stderr)
            return 130
    report(journal.at(*efforts), name, effort, as_json, plot)
    return 0


def asked_questions(
    problems: Path | None, format: Format | None, n: int | None, seed: int
) -> "Sequence[Question]":
    """Read the questions of a file, or make the built-in ones."""
    if problems is None:
        from oss_lab.nano import suite

        return suite.questions(n or 100, seed)
    from oss_lab.evaluation import aime, gpqa, jsonl, mmlu

    readers = {"jsonl": jsonl, "aime": aime, "gpqa": gpqa, "mmlu": mmlu}
    return readers[format or "jsonl"].read(problems)


def follow(outcomes: "Iterable[Outcome]", effort: Effort, before: int, todo: int) -> None:
    """Take the outcomes as they come, with a bar on a terminal's stderr."""
    from tqdm.auto import tqdm

    right = 0
    label, unit = f"{effort} effort", "question"
    with tqdm(outcomes, label, initial=before, total=todo, unit=unit, disable=None) as bar:
        for n, outcome in enumerate(bar, 1):
            right += outcome.right
            bar.set_postfix_str(f"{right} of {n} right", refresh=False)


def report(
    outcomes: "Sequence[Outcome]", name: str, effort: str, as_json: bool, plot: Path | None
) -> None:
    """Print the table or the JSON, and write the figure."""
    from oss_lab.evaluation.report import as_json as plain
    from oss_lab.evaluation.report import overall, scores, table

    rows, totals = scores(outcomes), overall(outcomes)
    if plot is not None:
        from oss_lab.plots.accuracy import accuracy
        from oss_lab.plots.page import page

        figure = accuracy(rows, totals, name)
        plot.write_text(page([figure], f"Evaluation of {name}"), encoding="utf-8")
    if as_json:
        values = plain(outcomes)
        print(json.dumps(values if effort == "all" else values[0]))
        return
    from rich.console import Console

    several = len({row.name for row in rows}) > 1
    Console().print(table([*rows, *totals] if several else rows))
