"""`oss-lab generate`: answer one question, streamed by channel or as one JSON object.

Without QUESTION, or if it is `-`, the question is read from standard input. --raw continues the
text itself, without Harmony's chat format, up to a stop token. A tool call ends the reply. --schema
samples only answers that a JSON schema allows.

A model that is too large for one machine or GPU can be split over several processes, which torchrun
starts: `torchrun --nproc-per-node 2 -m oss_lab generate QUESTION --parallel`. The first one prints.
"""

import json
import math
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from oss_lab.cli._json import prefix_errors, read_json
from oss_lab.cli._options import (
    AsJson,
    AskedEffort,
    Download,
    Instructions,
    MaxTokens,
    has_error_terminal,
    read_text,
)
from oss_lab.cli._warnings import print_warning, report_warnings
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort

if TYPE_CHECKING:
    import tiktoken

    from oss_lab.record.builder import Stream
    from oss_lab.record.reply import Reply, Timing
    from oss_lab.record.token import Token


def run(
    question: Annotated[
        str | None,
        Argument(
            metavar="QUESTION",
            help="put -- before a question that begins with - (default: standard input)",
        ),
    ] = None,
    model: Annotated[str, Option(help="nano, 20b, 120b, a Hub id or a folder")] = "nano",
    download: Download = False,
    parallel: Annotated[
        bool, Option("--parallel", help="split the model over the processes of torchrun")
    ] = False,
    effort: AskedEffort = None,
    instructions: Instructions = None,
    calculator: Annotated[
        bool, Option("--calculator", help="declare a calculator, which is not run")
    ] = False,
    as_json: AsJson = False,
    seed: Annotated[
        int | None, Option(help="seed (default: a random one; 0 with --parallel)")
    ] = None,
    temperature: Annotated[
        float | None, Option(help="0 is greedy (default: 0 for nano, else 1)")
    ] = None,
    top_k: Annotated[int | None, Option(help="sample from the k most likely tokens")] = None,
    top_p: Annotated[
        float | None, Option(help="sample from the most likely tokens up to this total probability")
    ] = None,
    min_p: Annotated[
        float | None, Option(help="minimum probability, relative to the most likely token")
    ] = None,
    max_tokens: MaxTokens = 2048,
    analysis_budget: Annotated[
        int | None, Option(help="maximum tokens of analysis; then the answer is forced")
    ] = None,
    schema: Annotated[
        Path | None, Option(metavar="FILE", help="JSON schema that the answer must follow")
    ] = None,
    well_formed: Annotated[
        bool, Option("--well-formed", help="sample only well-formed Harmony")
    ] = False,
    alternatives: Annotated[
        int, Option(help="most likely tokens to list at each position (with --json)")
    ] = 0,
    raw: Annotated[bool, Option("--raw", help="continue QUESTION as plain text")] = False,
    no_stop: Annotated[
        bool, Option("--no-stop", help="with --raw: continue after stop tokens, up to --max-tokens")
    ] = False,
) -> int:
    """Answer one question, streamed by channel or as JSON."""
    if raw:
        refuse_harmony_options(
            effort, instructions, calculator, analysis_budget, schema, well_formed
        )
    if alternatives and not as_json:
        raise LabError("--alternatives needs JSON output: add --json")
    if no_stop and not raw:
        raise LabError("--no-stop applies to plain text: add --raw")
    if parallel and question in (None, "-"):
        raise LabError("--parallel reads no standard input: give the question as an argument")
    if question is None and sys.stdin is not None and sys.stdin.isatty():
        raise BadParameter("is missing; give a question, or pipe it in", param_hint="QUESTION")
    question = read_text("-" if question is None else question, "the question")
    from oss_lab.engine.sampling import Sampling
    from oss_lab.lab import load
    from oss_lab.nano.tasks.settings import CALCULATOR_TOOL

    filters = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    given: dict[str, Any] = {"temperature": temperature, **filters}
    given = {name: value for name, value in given.items() if value is not None}
    random_seed = 0 if parallel else secrets.randbits(32)  # the processes need the same
    given["seed"] = random_seed if seed is None else seed
    Sampling(**given)  # checks the bounds before the model is loaded
    response_format = None if schema is None else read_schema(schema)
    lab = load(model, download=download, parallel=parallel, verbose=has_error_terminal())
    if parallel and os.environ["RANK"] != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until this process ends
    sampling = replace(lab.sampling, **given)
    idle = [f"--{name.replace('_', '-')}" for name in filters if name in given]
    if sampling.temperature == 0 and idle:
        raise LabError(f"{idle[0]} has no effect at temperature 0: set --temperature too")
    if raw:
        stream = lab.stream_text(
            question,
            max_tokens=max_tokens,
            sampling=sampling,
            alternatives=alternatives,
            ignore_stops=no_stop,
        )
        value = show_continuation(stream, lab.tokenizer, quiet=as_json)
    else:
        with report_warnings(print_warning):
            stream = lab.stream(
                question,
                effort=effort,
                instructions=instructions,
                tools=(CALCULATOR_TOOL,) if calculator else (),
                sampling=sampling,
                max_tokens=max_tokens,
                analysis_budget=analysis_budget,
                response_format=response_format,
                well_formed=well_formed,
                alternatives=alternatives,
            )
        value = show_answer(stream, lab.tokenizer, quiet=as_json)
    if as_json:
        print(json.dumps(value | {"seed": sampling.seed}))
    return 0


def refuse_harmony_options(
    effort: Effort | None,
    instructions: str | None,
    calculator: bool,
    analysis_budget: int | None,
    schema: Path | None,
    well_formed: bool,
) -> None:
    """Raise LabError for an option that has no effect with --raw."""
    harmony = {
        "--effort": effort,
        "--instructions": instructions,
        "--calculator": calculator or None,
        "--analysis-budget": analysis_budget,
        "--schema": schema,
        "--well-formed": well_formed or None,
    }
    idle = [option for option, value in harmony.items() if value is not None]
    if idle:
        raise LabError(f"--raw continues plain text: leave {' and '.join(idle)} out")


def read_schema(path: Path) -> dict[str, Any]:
    """The JSON schema in a file.

    Raises:
        LabError: the file cannot be read, or has something else.
    """
    from oss_lab.grammar.schema import write_json_grammar

    with prefix_errors(path):
        schema = read_json(path)
        write_json_grammar(schema)  # checks it before the model is loaded
    return schema


def show_answer(stream: "Stream", encoding: "tiktoken.Encoding", *, quiet: bool) -> dict[str, Any]:
    """Show one Harmony turn as it is generated, and return its JSON."""
    from oss_lab.cli._transcript import Transcript

    transcript = Transcript(sys.stdout)
    for event in stream:
        if not quiet:
            transcript.show_event(event)
    reply = stream.reply
    if not quiet and reply.stop in ("length", "endoftext"):
        transcript.write_note(f"stopped after {len(reply.tokens)} tokens ({reply.stop})")
    return reply_as_json(reply, encoding)


def show_continuation(
    stream: "Stream", encoding: "tiktoken.Encoding", *, quiet: bool
) -> dict[str, Any]:
    """Show a plain completion as it is generated, and return its JSON."""
    from oss_lab.cli._transcript import Transcript
    from oss_lab.harmony import Delta

    transcript = Transcript(sys.stdout)
    for event in stream:
        if not quiet and isinstance(event, Delta):
            transcript.write_text(event.text)
    if not quiet:
        transcript.end_line()
    reply = stream.reply
    return {
        "text": reply.text,
        "stop": reply.stop,
        "tokens": tokens_as_json(reply.tokens, encoding),
        "timing": timing_as_json(reply.timing),
    }


def reply_as_json(reply: "Reply", encoding: "tiktoken.Encoding") -> dict[str, Any]:
    """Convert a reply to JSON, without its prompt."""
    from oss_lab.harmony import plain_message

    return {
        "analysis": reply.analysis,
        "commentary": reply.commentary,
        "final": reply.final,
        "tool_calls": [asdict(call) for call in reply.tool_calls],
        "open_calls": [asdict(call) for call in reply.open_calls],
        "messages": [plain_message(message) for message in reply.messages],
        "stop": reply.stop,
        "diagnostics": [asdict(diagnostic) for diagnostic in reply.diagnostics],
        "warnings": list(reply.warnings),
        "tokens": tokens_as_json(reply.tokens, encoding),
        "timing": timing_as_json(reply.timing),
    }


def tokens_as_json(
    tokens: "Sequence[Token]", encoding: "tiktoken.Encoding"
) -> list[dict[str, Any]]:
    """Convert tokens to ids with text and log-probability; partial characters become U+FFFD."""
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
    """Convert timing to seconds and decoding speed (null for a single token)."""
    speed = timing.tokens_per_second
    return asdict(timing) | {"tokens_per_second": None if math.isnan(speed) else speed}
