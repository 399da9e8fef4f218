"""The parent's end of the worker's protocol: four bytes with a length, then a JSON object.

Nothing that arrives is trusted. Frames have a maximum size, known fields of known types, and an id
that names the running call. Frames with another id are late or forged, and are dropped.
"""

import json
import struct
from dataclasses import dataclass

HEADER = struct.Struct(">I")
LARGEST = 1 << 16  # bytes; the worker's own frames have at most 4096 characters of text
KINDS = {
    "ready": {},
    "failed": {"reason": str},
    "text": {"stream": str, "text": str},
    "cut": {"cut": int},
    "done": {"ok": bool, "cut": int},
}


class BrokenProtocol(Exception):
    """The child wrote something that is not a frame; the message says what."""


@dataclass(frozen=True)
class Frame:
    kind: str
    id: str
    fields: dict


def encode(message: dict) -> bytes:
    data = json.dumps(message).encode()
    return HEADER.pack(len(data)) + data


class FrameReader:
    """Turns the bytes of a pipe into frames."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes. Raises BrokenProtocol."""
        self.waiting += data
        frames = []
        start = 0
        while len(self.waiting) - start >= HEADER.size:
            (length,) = HEADER.unpack_from(self.waiting, start)
            if length > LARGEST:
                raise BrokenProtocol(f"a frame of {length:,} bytes")
            end = start + HEADER.size + length
            if len(self.waiting) < end:
                break
            frames.append(decode(bytes(self.waiting[start + HEADER.size : end])))
            start = end
        del self.waiting[:start]
        return frames


def decode(data: bytes) -> Frame:
    """One frame, with every field checked. Raises BrokenProtocol."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenProtocol("a frame that is not JSON") from error
    if not isinstance(message, dict) or not known(message.get("kind")):
        raise BrokenProtocol("a frame of an unknown kind")
    expected = KINDS[message["kind"]]
    types = {"kind": str, "id": str, **expected}
    if message.keys() != types.keys() or any(
        type(message[name]) is not kind for name, kind in types.items()
    ):
        raise BrokenProtocol(f"a {message['kind']!r} frame with wrong fields")
    return Frame(message["kind"], message["id"], {name: message[name] for name in expected})


def known(kind: object) -> bool:
    return isinstance(kind, str) and kind in KINDS
