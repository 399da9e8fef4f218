"""sys.stdout and sys.stderr of the worker: text goes to the parent in frames, up to a limit.

The limit is on the characters of one cell, over all its streams. What is beyond it is only counted,
so a loop that prints forever costs the parent nothing. The parent checks the limit again.
"""

import io
import time
from collections.abc import Callable

CHUNK = 4096  # characters in one frame
EVERY = 0.2  # seconds between two reports of what was cut

Send = Callable[..., None]


class OutputBudget:
    """The characters that a cell may still write, and how many it wrote beyond them."""

    def __init__(self, limit: int, send: Send) -> None:
        self.limit, self.send = limit, send
        self.renew()

    def renew(self) -> None:
        self.left, self.cut, self.reported = self.limit, 0, 0.0

    def spend(self, stream: str, text: str) -> None:
        """Send as much of `text` as is left, in chunks; count the rest."""
        kept = text[: self.left]
        self.left -= len(kept)
        for start in range(0, len(kept), CHUNK):
            self.send("text", stream=stream, text=kept[start : start + CHUNK])
        if len(kept) < len(text):
            self.cut += len(text) - len(kept)
            if time.monotonic() - self.reported > EVERY:
                self.reported = time.monotonic()
                self.send("cut", cut=self.cut)


class FrameStream(io.TextIOBase):
    """A text stream that buffers one line and spends a budget that it shares."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, name: str, descriptor: int, budget: OutputBudget) -> None:
        self.name, self.descriptor, self.budget = name, descriptor, budget
        self.waiting = ""
        self.buffer = ByteStream(self)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.waiting += text
        if "\n" in text or len(self.waiting) > CHUNK:
            self.flush()
        return len(text)

    def flush(self) -> None:
        text, self.waiting = self.waiting, ""
        self.budget.spend(self.name, text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor


class ByteStream(io.RawIOBase):
    """What `sys.stdout.buffer` is: bytes are decoded as UTF-8 and written to the text stream."""

    def __init__(self, text: FrameStream) -> None:
        self.text = text

    def write(self, data) -> int:
        self.text.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)

    def writable(self) -> bool:
        return True
