"""The fields of a request that both APIs have, and the fields without a use here.

`IGNORED` and `REFUSED` list every field of OpenAI's APIs that this server knows and does not use. A
field without an effect on the reply is ignored, and named in a response header. A field that would
change the reply is refused. Any other field is unknown, and refused as OpenAI refuses it.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from oss_lab.harmony.messages import Effort
from oss_lab.server.errors import ApiError

AskedEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: dict[str, Effort] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
IGNORED = frozenset({
    "user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "verbosity", "moderation", "access_programs",
})  # fmt: skip
REFUSED = frozenset({
    "audio", "modalities", "prediction", "logit_bias", "web_search_options", "functions",
    "function_call", "frequency_penalty", "presence_penalty", "background", "background_options",
    "context_management", "conversation", "prompt", "image", "max_tool_calls",
})  # fmt: skip
EMPTY = (None, 0, False, [], {}, ["text"])  # values of refused fields that change nothing

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Objects = list[dict[str, Any]]


class Body(BaseModel):
    """A request of either API. Fields that are known but not used are extra fields."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    tools: Objects | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    def check_others(self) -> list[str]:
        """A note for each ignored field that has a value.

        Raises:
            ApiError: a field is unknown, or would change the reply and is not supported.
        """
        notes = []
        for name, value in (self.model_extra or {}).items():
            if name in IGNORED:
                notes += [] if value is None else [f"{name} is ignored"]
            elif name not in REFUSED:
                raise ApiError(
                    400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name
                )
            elif value not in EMPTY:
                raise ApiError(
                    400,
                    f"{name} is not supported by this server; leave it out",
                    code="unsupported_parameter",
                    param=name,
                )
        return notes

    def sampling(self) -> dict[str, Any]:
        """The keywords of sampling that have a value."""
        given = {"temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in given.items() if value is not None}


def read_effort(asked: str | None, notes: list[str]) -> Effort | None:
    """The effort of gpt-oss for one of the API's; a note if it is another one.

    Raises:
        ApiError: the API has no such effort.
    """
    if asked is None:
        return None
    if asked not in EFFORTS:
        raise ApiError(
            400,
            f"the reasoning effort is {asked!r}; use one of {', '.join(get_args(AskedEffort))}",
            code="invalid_value",
            param="reasoning",
        )
    if EFFORTS[asked] != asked:
        notes.append(f"effort {asked} was mapped to {EFFORTS[asked]}")
    return EFFORTS[asked]


def limit_tokens(asked: int | None, most: int, notes: list[str]) -> int:
    """The number of tokens to generate at most."""
    if asked is not None and asked > most:
        notes.append(f"at most {most} tokens are generated, not {asked}")
    return most if asked is None else min(asked, most)
