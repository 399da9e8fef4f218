"""What one call of the Python tool produced: data for the run, and text for the model."""

from dataclasses import dataclass

STREAMS = ("stdout", "stderr", "value", "error")


@dataclass(frozen=True)
class Result:
    """The outcome of one call.

    Attributes:
        pieces: (stream, text) in the order in which it arrived. Streams are "stdout", "stderr",
            "value" (the last expression) and "error" (a traceback).
        seconds: how long the call took.
        cut: characters beyond the limit, which were not kept.
        ended: why the process is gone, with its variables; None if it lives.
    """

    pieces: tuple[tuple[str, str], ...]
    seconds: float
    cut: int = 0
    ended: str | None = None

    @property
    def stdout(self) -> str:
        return self.of("stdout")

    @property
    def stderr(self) -> str:
        return self.of("stderr")

    @property
    def value(self) -> str:
        return self.of("value").removesuffix("\n")

    @property
    def error(self) -> str:
        return self.of("error")

    @property
    def ok(self) -> bool:
        return self.ended is None and not self.error

    def of(self, stream: str) -> str:
        """All text of one stream."""
        return "".join(text for name, text in self.pieces if name == stream)

    @property
    def text(self) -> str:
        """What the model reads: everything in order, with notes in brackets.

        >>> Result((("stdout", "1\\n"), ("value", "2\\n")), 0.1).text
        '1\\n2'
        """
        body = "".join(text for _, text in self.pieces).rstrip("\n")
        kept = sum(len(text) for _, text in self.pieces)
        notes = []
        if self.cut:
            notes.append(f"[output cut: {kept:,} characters are shown, {self.cut:,} more are not]")
        if self.ended:
            notes.append(
                f"[{self.ended}; a new process replaces it: all variables and imports are gone, "
                "files in /mnt/data are kept]"
            )
        return "\n".join([*([body] if body else []), *notes]) or "[no output]"
