"""What the command line sets: the model's name, limits, and what a client may see."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from oss_lab.errors import LabError

TOKEN_VARIABLE = "OSS_LAB_TOKEN"
Images = Literal["refuse", "placeholder"]


@dataclass(frozen=True)
class Limits:
    """The most that clients may use.

    Attributes:
        rows: replies that are generated at the same time.
        waiting: replies that wait for a free row; another request gets 429.
        body_bytes: size of a request.
        read_seconds: time to receive a request.
        seconds: time for one reply, waiting included; then it ends as if at max_tokens.
        tokens: generated tokens per reply, if the request names no smaller number.
        choices: `n` of a request.
    """

    rows: int = 32
    waiting: int = 128
    body_bytes: int = 4 * 2**20
    read_seconds: float = 30.0
    seconds: float = 600.0
    tokens: int = 2048
    choices: int = 16


@dataclass(frozen=True)
class Settings:
    """How one server is set up.

    Attributes:
        model: the model id, as given to `oss-lab serve`.
        token: clients must send it as `Authorization: Bearer TOKEN`; None admits everybody.
        hosts: names in the Host header that are allowed, besides localhost and IP addresses.
        origins: web pages that may call the server from a browser.
        hide_analysis: keep the chain of thought from clients.
        images: what an image in a request becomes; no gpt-oss can see it.
        store: the file with stored responses; None keeps them in memory.
    """

    model: str
    token: str | None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hide_analysis: bool = False
    images: Images = "refuse"
    store: Path | None = None
    limits: Limits = field(default_factory=Limits)


def choose_token(given: str | None) -> str:
    """The given token, or the one in OSS_LAB_TOKEN, or a random one.

    Raises:
        LabError: it cannot be sent in a header.
    """
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return secrets.token_hex(24)
    if not token or not token.isascii() or token.split() != [token]:
        raise LabError("the token must be ASCII without spaces; leave it out for a random one")
    return token
