"""`oss-lab eval`: measure a checkpoint's accuracy, and how many tokens of analysis it writes.

Asks the built-in questions or those of a file, at one effort or at each. Each line of a file is
{"prompt", "answer"}, optionally with "name", "developer" and "tools"; --format reads public files.
Every outcome is saved immediately. After Ctrl-C or a crash the same command resumes; after a
complete run it prints the scores again. No tool is run: the file gives the outputs of the tools.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from oss_lab.checkpoint.atomic import check_output_file
from oss_lab.cli._options import (
    AsJson,
    Checkpoint,
    Download,
    Seed,
    Threads,
    announce_replacement,
    has_error_terminal,
)
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
    effort: Annotated[Literal[Effort, "all"], Option(help="one effort, or all")] = "all",
    problems: Annotated[Path | None, Option(help="a file with your own questions")] = None,
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
    plot: Annotated[Path | None, Option(help="write a chart to this .html file")] = None,
    out: Annotated[Path | None, Option(help="save outcomes in this folder, not the cache")] = None,
    fresh: Annotated[bool, Option("--fresh", help="discard the outcomes of earlier runs")] = False,
) -> int:
    """Measure accuracy and tokens of analysis at each effort."""
    if problems is None and format is not None:
        raise LabError("--format needs --problems: name the file too")
    if problems is not None and n is not None:
        raise LabError("--n applies to the built-in questions; with --problems use --limit")
    if plot is not None:
        if plot.suffix.lower() != ".html":
            raise LabError(f"--plot writes a web page: expected a name ending in .html, got {plot}")
        check_output_file(plot, "--plot")
    questions = load_questions(problems, format, n, seed)[:limit]
    import torch

    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.evaluation.journal import Journal, build_fingerprint, default_path
    from oss_lab.evaluation.resume import resume
    from oss_lab.lab import load

    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = find_checkpoint(name, download=download)
    lab = load(name, download=download, verbose=has_error_terminal())
    small = lab.tokenizer.name == "nano"
    max_tokens = max_tokens or (2048 if small else 32768)
    batch = batch or (64 if small else 8)
    of = build_fingerprint(checkpoint, questions, lab.sampling, max_tokens, seed)
    path = out / OUTCOMES if out else default_path(of)
    efforts: Sequence[Effort] = EFFORTS if effort == "all" else (effort,)
    with Journal(path, of, fresh=fresh) as journal:
        todo = len(efforts) * len(questions)
        if before := len(journal.outcomes_at(*efforts)):
            earlier = f"{before} of {todo} answers are from an earlier run"
            print(f"{earlier} ({path}); --fresh discards them", file=sys.stderr)
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
                show_progress(missing, each, len(journal.outcomes_at(each)), len(questions))
        except KeyboardInterrupt:
            command = "the same command without --fresh" if fresh else "the same command"
            count = len(journal.outcomes_at(*efforts))
            saved = f"stopped with {count} of {todo} answers, saved in {path}"
            print(f"{saved}; {command} resumes", file=sys.stderr)
            return 130
    report(journal.outcomes_at(*efforts), name, effort, as_json, plot)
    return 0


def load_questions(
    problems: Path | None, format: Format | None, n: int | None, seed: int
) -> "Sequence[Question]":
    """Read the questions of a file, or generate the built-in ones."""
    if problems is None:
        from oss_lab.nano import suite

        return suite.draw_questions(n or 100, seed)
    from oss_lab.evaluation import aime, gpqa, jsonl, mmlu

    readers = {
        "jsonl": jsonl.read_jsonl,
        "aime": aime.read_aime,
        "gpqa": gpqa.read_gpqa,
        "mmlu": mmlu.read_mmlu,
    }
    return readers[format or "jsonl"](problems)


def show_progress(outcomes: "Iterable[Outcome]", effort: Effort, before: int, todo: int) -> None:
    """Iterate over the outcomes; progress is a bar on stderr, or lines if it is not a terminal."""
    from tqdm.auto import tqdm

    from oss_lab.progress import report_in_lines

    n = right = 0
    label, unit = f"{effort} effort", "question"

    def describe() -> str:
        return f"{label}: {before + n:,} of {todo:,} questions answered; {right:,} of {n:,} right"

    bar = tqdm(outcomes, label, initial=before, total=todo, unit=unit, disable=None)
    with bar, report_in_lines(describe):
        for n, outcome in enumerate(bar, 1):
            right += outcome.right
            bar.set_postfix_str(f"{right} of {n} right", refresh=False)


def report(
    outcomes: "Sequence[Outcome]", name: str, effort: str, as_json: bool, plot: Path | None
) -> None:
    """Print the scores as a table or JSON, and write the chart."""
    from oss_lab.evaluation.report import as_json as plain
    from oss_lab.evaluation.report import build_overall_scores, build_score_table, build_scores

    rows, totals = build_scores(outcomes), build_overall_scores(outcomes)
    if plot is not None:
        from oss_lab.plots.accuracy import accuracy
        from oss_lab.plots.page import render_page

        figure = accuracy(rows, totals, name)
        with announce_replacement(plot):
            plot.write_text(render_page([figure], f"Evaluation of {name}"), encoding="utf-8")
    if as_json:
        values = plain(outcomes)
        print(json.dumps(values if effort == "all" else values[0]))
        return
    from oss_lab.cli._pipe import make_console

    several = len({row.name for row in rows}) > 1
    make_console().print(build_score_table([*rows, *totals] if several else rows))
