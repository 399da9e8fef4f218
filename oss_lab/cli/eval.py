"""`oss-lab eval`: how often a checkpoint is right, and how much it thinks for it.

Asks the built-in questions, or those of a file, at one effort or at each. Every outcome is kept in
a file as it comes: after Ctrl-C or a crash the same command goes on, and one that is complete only
prints its scores again. Tools of a question are not run; their outputs stand in the file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS

if TYPE_CHECKING:
    from oss_lab.evaluation.question import Question
    from oss_lab.evaluation.run import Outcome
    from oss_lab.harmony.messages import Effort

FORMATS = ("jsonl", "aime", "gpqa", "mmlu")
OUTCOMES = "outcomes.jsonl"
MOST_THREADS = 1024


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its arguments."""
    parser = commands.add_parser(
        "eval", help="measure accuracy and thinking by effort", description=__doc__
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="nano, 20b, 120b or a checkpoint folder"
    )
    parser.add_argument("--download", action="store_true", help="fetch 20b or 120b if need be")
    parser.add_argument(
        "--effort", choices=(*EFFORTS, "all"), default="all", help="default: all, one by one"
    )
    asked = parser.add_argument_group("questions")
    asked.add_argument(
        "--problems",
        type=Path,
        metavar="FILE",
        help='your own: lines of {"prompt", "answer"}, perhaps "name", "developer", "tools"',
    )
    asked.add_argument(
        "--format",
        choices=FORMATS,
        help="of --problems (default: jsonl); the others are the public files of these names",
    )
    asked.add_argument("--limit", type=int, metavar="N", help="ask the first N only")
    asked.add_argument(
        "--n", type=int, help="built-in questions for each row of the table (default: 100)"
    )
    asked.add_argument(
        "--seed", type=int, default=1, help="of the built-in questions and of draws (default: 1)"
    )
    answers = parser.add_argument_group("answers")
    answers.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="of a reply (default: 2048 for nano, else 32768)",
    )
    answers.add_argument(
        "--batch", type=int, metavar="N", help="replies at a time (default: 64 for nano, else 8)"
    )
    answers.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    told = parser.add_argument_group("results")
    told.add_argument("--json", action="store_true", help="print JSON, not a table")
    told.add_argument("--plot", type=Path, metavar="FILE.html", help="draw accuracy and tokens")
    told.add_argument(
        "--out", type=Path, metavar="FOLDER", help="keep outcomes here (default: your cache folder)"
    )
    told.add_argument("--fresh", action="store_true", help="forget the outcomes of earlier runs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask what is missing, then print the scores; 130 after Ctrl-C."""
    check(args)
    questions = asked_questions(args)
    import torch

    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.evaluation.journal import Journal, default_place, fingerprint
    from oss_lab.evaluation.resume import resume
    from oss_lab.lab import load

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    checkpoint = find_checkpoint(args.checkpoint, download=args.download)
    lab = load(args.checkpoint, download=args.download, verbose=sys.stderr.isatty())
    small = lab.encoding.name == "nano"
    max_tokens = args.max_tokens or (2048 if small else 32768)
    batch = args.batch or (64 if small else 8)
    of = fingerprint(checkpoint, questions, lab.sampling, max_tokens, args.seed)
    path = args.out / OUTCOMES if args.out else default_place(of)
    efforts: Sequence[Effort] = EFFORTS if args.effort == "all" else (args.effort,)
    with Journal(path, of, fresh=args.fresh) as journal:
        todo = len(efforts) * len(questions)
        if before := len(journal.at(*efforts)):
            earlier = f"{before} of {todo} answers are from an earlier run"
            print(f"{earlier} ({path}); --fresh asks again", file=sys.stderr)
        try:
            for effort in efforts:
                missing = resume(
                    journal,
                    lab,
                    questions,
                    effort,
                    batch=batch,
                    max_tokens=max_tokens,
                    seed=args.seed,
                )
                follow(missing, effort, len(journal.at(effort)), len(questions))
        except KeyboardInterrupt:
            command = "the same command without --fresh" if args.fresh else "the same command"
            kept = f"stopped with {len(journal.at(*efforts))} of {todo} answers, kept in {path}"
            print(f"{kept}; {command} goes on", file=sys.stderr)
            return 130
    report(args, journal.at(*efforts))
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse what does not fit together before anything is read."""
    if args.threads is not None and args.threads > MOST_THREADS:
        raise LabError(f"--threads is {args.threads}; it must be at most {MOST_THREADS}")
    for name in ("limit", "n", "max_tokens", "batch", "threads"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise LabError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more")
    if args.seed < 0:
        raise LabError(f"--seed is {args.seed}; it must be 0 or more")
    if args.problems is None and args.format is not None:
        raise LabError("--format is that of --problems: name the file too")
    if args.problems is not None and args.n is not None:
        raise LabError("--n counts built-in questions; with --problems use --limit")
    if args.plot is not None:
        from oss_lab.cli.logits import check_out

        if args.plot.suffix.lower() != ".html":
            raise LabError(f"--plot writes a web page: call {args.plot} something.html")
        check_out(args.plot)


def asked_questions(args: argparse.Namespace) -> "list[Question]":
    """The questions that the command line names."""
    if args.problems is None:
        from oss_lab.nano import suite

        return suite.questions(args.n or 100, args.seed)[: args.limit]
    from oss_lab.evaluation import aime, gpqa, jsonl, mmlu

    readers: dict[str, Callable[[Path], Sequence[Question]]] = {
        "jsonl": jsonl.read,
        "aime": aime.read,
        "gpqa": gpqa.read,
        "mmlu": mmlu.read,
    }
    return list(readers[args.format or "jsonl"](args.problems))[: args.limit]


def follow(outcomes: "Iterable[Outcome]", effort: "Effort", before: int, todo: int) -> None:
    """Take the outcomes as they come, with a bar on a terminal's stderr."""
    from tqdm.auto import tqdm

    right = 0
    label, unit = f"{effort} effort", "question"
    with tqdm(outcomes, label, initial=before, total=todo, unit=unit, disable=None) as bar:
        for n, outcome in enumerate(bar, 1):
            right += outcome.right
            bar.set_postfix_str(f"{right} of {n} right", refresh=False)


def report(args: argparse.Namespace, outcomes: "Sequence[Outcome]") -> None:
    """Print the table or the JSON, and write the figure."""
    from oss_lab.evaluation.report import as_json, overall, scores, table

    rows, totals = scores(outcomes), overall(outcomes)
    if args.plot is not None:
        from oss_lab.plots.accuracy import accuracy
        from oss_lab.plots.page import page

        figure = accuracy(rows, totals, args.checkpoint)
        title = f"Evaluation of {args.checkpoint}"
        args.plot.write_text(page([figure], title), encoding="utf-8")
    if args.json:
        values = as_json(outcomes)
        print(json.dumps(values if args.effort == "all" else values[0]))
        return
    from rich.console import Console

    several = len({row.name for row in rows}) > 1
    Console().print(table([*rows, *totals] if several else rows))
