"""The keywords of the workbench's verbs."""

from collections.abc import Collection, Sequence
from typing import TypedDict

from oss_lab.engine.sampling import Sampling
from oss_lab.harmony.messages import Effort
from oss_lab.harmony.tool_forms import ToolForm
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.selection import Integers
from oss_lab.record.reply import Reply

MAX_TOKENS = 2048


class Asking(TypedDict, total=False):
    """How text and messages are rendered.

    `raw=True` takes text without Harmony. `date` goes into the system message, `instructions` and
    `tools` into the developer message; a tool is a ToolDescription, an OpenAI-style dictionary or a
    Python function, which is described and never called.
    """

    effort: Effort | None
    instructions: str | None
    tools: Sequence[ToolForm]
    date: str | None
    raw: bool


class Options(TypedDict, total=False):
    """The keywords of `chat`, `stream`, `chat_batch` and `generate`.

    effort, instructions, tools, date: as in `Asking`; not for `generate`.
    sampling: a prepared Sampling; temperature, top_k, top_p, min_p and seed replace its fields.
    max_tokens: how many tokens may be generated.
    stop: strings at which the answer ends; they are left out of it.
    analysis_budget: tokens of analysis after which the header of `final` is forced.
    alternatives: how many of the likeliest tokens to keep at each place.
    points: what to record during generation, in `reply.trace`.
    interventions: active for this request, after those of `intervene`.
    continue_from: a reply that was cut, or the beginning of the answer as text.
    """

    effort: Effort | None
    instructions: str | None
    tools: Sequence[ToolForm]
    date: str | None
    sampling: Sampling | None
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    seed: int | None
    max_tokens: int
    stop: str | Sequence[str]
    analysis_budget: int | None
    alternatives: int
    points: Sequence[str]
    interventions: Sequence[Intervention]
    continue_from: Reply | str | None


class Parts(TypedDict, total=False):
    """Which parts of a point are kept; without a keyword, all of them are.

    `channels` keeps the tokens of messages on these channels, `format` tokens included; it and
    `positions` exclude each other.
    """

    layers: Integers | None
    heads: Integers | None
    positions: Integers | None
    channels: Collection[str] | None


ASKING = ("effort", "instructions", "tools", "date")
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
