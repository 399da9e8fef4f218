"""The keywords of the methods of `Lab`."""

from collections.abc import Collection, Sequence
from typing import TypedDict

from oss_lab.engine.sampling import Sampling
from oss_lab.grammar.response_format import ResponseForm
from oss_lab.harmony.messages import Effort
from oss_lab.harmony.tool_forms import ToolForm
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.selection import Integers
from oss_lab.record.reply import Reply

MAX_TOKENS = 2048


class PromptOptions(TypedDict, total=False):
    """How text and messages are rendered.

    `raw=True` tokenizes text without Harmony. `date` goes into the system message, `instructions`
    and `tools` into the developer message. A tool is a ToolDescription, an OpenAI-style dictionary
    or a Python function. A function is only described to the model, never called. A
    `response_format` with a JSON schema is shown to the model after the tools.
    """

    effort: Effort | None
    instructions: str | None
    tools: Sequence[ToolForm]
    date: str | None
    response_format: ResponseForm | None
    raw: bool


class Options(TypedDict, total=False):
    """The keywords of `chat`, `stream`, `chat_batch` and `generate`.

    Attributes:
        effort, instructions, tools, date: as in `PromptOptions`; not for `generate`.
        sampling: a Sampling; temperature, top_k, top_p, min_p and seed replace its fields.
        max_tokens: maximum number of tokens to generate.
        stop: strings that end the answer; the answer does not include them.
        ignore_stops: for `generate` only: continue after the model's stop tokens, up to max_tokens.
        analysis_budget: maximum tokens of analysis; then the header of `final` is forced.
        response_format: what the answer must be: a pydantic model class, a JSON schema,
            `Regex(...)` or `Lark(...)`. Only tokens that fit it can be sampled on `final`; a schema
            is also shown to the model. An answer that stops at `length` or `text` may be
            incomplete.
        well_formed: only tokens that keep the reply well-formed Harmony can be sampled, and only
            declared tools can be called. A response_format includes this.
        alternatives: how many of the most likely tokens to store at each position.
        points: hook points to record during generation, in `reply.trace`.
        interventions: active for this request, after those of `intervene`.
        continue_from: a truncated reply, or the beginning of the answer as text.
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
    ignore_stops: bool
    analysis_budget: int | None
    response_format: ResponseForm | None
    well_formed: bool
    alternatives: int
    points: Sequence[str]
    interventions: Sequence[Intervention]
    continue_from: Reply | str | None


class PartOptions(TypedDict, total=False):
    """Which parts of a point to record; by default all.

    `channels` records the tokens of messages on these channels, including their format tokens. Give
    `channels` or `positions`, not both.
    """

    layers: Integers | None
    heads: Integers | None
    positions: Integers | None
    channels: Collection[str] | None


MESSAGE_KEYWORDS = ("effort", "instructions", "tools", "date")
PROMPT_KEYWORDS = (*MESSAGE_KEYWORDS, "response_format")
SAMPLING_KEYWORDS = ("temperature", "top_k", "top_p", "min_p", "seed")
