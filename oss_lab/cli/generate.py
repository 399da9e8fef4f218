"""`oss-lab generate`: one question, one reply; streamed by channel, or as one JSON object.

With --raw the text is continued as it stands, without Harmony. A call to a tool ends the reply.
"""

import argparse
import codecs
import json
import math
import secrets
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tiktoken

    from oss_lab.engine.generate import Sampling, Token
    from oss_lab.lab import Lab
    from oss_lab.record.reply import Reply, Timing

FILTERS = ("top_k", "top_p", "min_p")
HARMONY = ("effort", "instructions", "calculator", "analysis_budget")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "generate", help="answer one question, by channel or as JSON", description=__doc__
    )
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument(
        "--model", default="nano", help="nano, 20b, 120b or a checkpoint folder (default: nano)"
    )
    parser.add_argument("--download", action="store_true", help="fetch 20b or 120b if need be")
    parser.add_argument("--effort", choices=EFFORTS, help="default: medium; nano's is high")
    parser.add_argument("--instructions", metavar="TEXT", help="what the developer message says")
    parser.add_argument(
        "--calculator", action="store_true", help="declare a calculator; a call ends the reply"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, help="the same seed gives the same reply")
    parser.add_argument(
        "--temperature", type=float, help="0: the likeliest token (default: 0 for nano, else 1)"
    )
    parser.add_argument("--top-k", type=int, help="keep the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="keep the likeliest up to this probability")
    parser.add_argument("--min-p", type=float, help="keep from this share of the likeliest's")
    parser.add_argument("--max-tokens", type=int, default=2048, help="default: 2048")
    parser.add_argument(
        "--analysis-budget", type=int, metavar="N", help="begin the answer after N of analysis"
    )
    parser.add_argument(
        "--alternatives", type=int, default=0, metavar="N", help="tell the N likeliest (--json)"
    )
    parser.add_argument("--raw", action="store_true", help="continue QUESTION as plain text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    idle = [option(name) for name in HARMONY if is_given(getattr(args, name))]
    if args.raw and idle:
        raise LabError(f"--raw continues plain text: leave {' and '.join(idle)} out")
    if args.alternatives and not args.json:
        raise LabError("--alternatives are told in the JSON object only: add --json")
    from oss_lab.engine.generate import Sampling
    from oss_lab.lab import load

    seed = secrets.randbits(32) if args.seed is None else args.seed
    names = ("temperature", *FILTERS)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    Sampling(**given, seed=seed)  # refuses what is out of bounds before anything is loaded
    lab = load(args.model, download=args.download, verbose=sys.stderr.isatty())
    sampling = replace(lab.sampling, **given, seed=seed)
    idle = [option(name) for name in FILTERS if name in given]
    if sampling.temperature == 0 and idle:
        raise LabError(f"{idle[0]} does nothing at temperature 0: give --temperature too")
    return continue_text(lab, args, sampling) if args.raw else answer(lab, args, sampling)


def option(name: str) -> str:
    """The option of an argument: top_k is --top-k."""
    return f"--{name.replace('_', '-')}"


def is_given(value: object) -> bool:
    """Whether an option without a default of its own is there; 0 and "" are values."""
    return value is not None and value is not False


def answer(lab: "Lab", args: argparse.Namespace, sampling: "Sampling") -> int:
    """One Harmony turn."""
    from oss_lab.cli._transcript import Transcript
    from oss_lab.nano.tasks.settings import CALCULATOR_TOOL

    stream = lab.stream(
        args.question,
        effort=args.effort,
        instructions=args.instructions,
        tools=(CALCULATOR_TOOL,) if args.calculator else (),
        sampling=sampling,
        max_tokens=args.max_tokens,
        analysis_budget=args.analysis_budget,
        alternatives=args.alternatives,
    )
    transcript = Transcript(sys.stdout)
    for event in stream:
        if not args.json:
            transcript.event(event)
    reply = stream.reply
    if args.json:
        print(json.dumps(reply_as_json(reply, lab.encoding) | {"seed": sampling.seed}))
    elif reply.stop in ("length", "endoftext"):
        transcript.note(f"stopped by {reply.stop} after {len(reply.tokens)} tokens")
    return 0


def continue_text(lab: "Lab", args: argparse.Namespace, sampling: "Sampling") -> int:
    """A plain completion; what is printed is the text that was added."""
    from oss_lab.cli._transcript import Transcript
    from oss_lab.harmony.specials import ENDOFTEXT, specials, token_bytes
    from oss_lab.record.reply import Timing

    transcript, decoder = Transcript(sys.stdout), codecs.getincrementaldecoder("utf-8")("replace")
    end, pieces, tokens = specials(lab.encoding).ids[ENDOFTEXT], [], []
    began, first = time.perf_counter(), 0.0
    for token in lab.continuation(
        args.question,
        max_tokens=args.max_tokens,
        sampling=sampling,
        alternatives=args.alternatives,
    ):
        tokens.append(token)
        first = first or time.perf_counter() - began
        data = b"" if token.id == end else token_bytes(lab.encoding, token.id)
        pieces.append(decoder.decode(data or b""))
        if not args.json:
            transcript.text(pieces[-1])
    pieces.append(decoder.decode(b"", final=True))
    if not args.json:
        transcript.text(pieces[-1])
        transcript.close()
        return 0
    value = {
        "text": "".join(pieces),
        "stop": "endoftext" if tokens[-1].id == end else "length",
        "tokens": tokens_as_json(tokens, lab.encoding),
        "timing": timing_as_json(Timing(first, time.perf_counter() - began, len(tokens))),
        "seed": sampling.seed,
    }
    print(json.dumps(value))
    return 0


def reply_as_json(reply: "Reply", encoding: "tiktoken.Encoding") -> dict[str, Any]:
    """Everything that a reply holds but its prompt."""
    from oss_lab.harmony import plain_message

    return {
        "analysis": reply.analysis,
        "commentary": reply.commentary,
        "final": reply.final,
        "tool_calls": [asdict(call) for call in reply.tool_calls],
        "messages": [plain_message(message) for message in reply.messages],
        "stop": reply.stop,
        "diagnostics": [asdict(diagnostic) for diagnostic in reply.diagnostics],
        "tokens": tokens_as_json(reply.tokens, encoding),
        "timing": timing_as_json(reply.timing),
    }


def tokens_as_json(
    tokens: "Sequence[Token]", encoding: "tiktoken.Encoding"
) -> list[dict[str, Any]]:
    """Ids with their text (U+FFFD where one holds part of a character) and log-probabilities."""
    from oss_lab.harmony.specials import token_bytes

    def text(id: int) -> str:
        return (token_bytes(encoding, id) or b"").decode(errors="replace")

    return [
        {
            "id": token.id,
            "text": text(token.id),
            "logprob": token.logprob,
            "forced": token.forced,
            "alternatives": [
                {"id": id, "text": text(id), "logprob": logprob}
                for id, logprob in token.alternatives
            ],
        }
        for token in tokens
    ]


def timing_as_json(timing: "Timing") -> dict[str, float | None]:
    """Seconds, and the decoding speed (null where a single token gives none)."""
    speed = timing.tokens_per_second
    return asdict(timing) | {"tokens_per_second": None if math.isnan(speed) else speed}
