"""The text of one call as it arrives, up to a limit."""

import codecs

from oss_lab.agents.sandbox.result import STREAMS


class CallText:
    """Collects (stream, text) in order. Tracebacks have a limit of their own, so they are kept."""

    def __init__(self, limit: int, cell: str = "") -> None:
        self.pieces: list[tuple[str, str]] = []
        self.left = {True: limit, False: limit}  # for tracebacks, and for the rest
        self.cut = self.reported = 0
        self.mark, self.held, self.raw_ended = b"\0" + cell.encode() + b"\0", b"", False
        self.decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def add(self, stream: str, text: str) -> None:
        """Keep as much of the text as is left. Half characters become escapes."""
        if stream not in STREAMS:
            stream = "stdout"
        text = text.encode("utf-8", "backslashreplace").decode()
        is_error = stream == "error"
        kept = text[: self.left[is_error]]
        self.left[is_error] -= len(kept)
        self.cut += len(text) - len(kept)
        if kept:
            self.pieces.append((stream, kept))

    def add_raw(self, data: bytes) -> None:
        """Bytes that were written past Python's streams, until the mark that ends the call."""
        data, found, _ = (self.held + data).partition(self.mark)
        self.raw_ended |= bool(found)
        # The mark may arrive in two parts, so what could be its beginning is held back.
        start = data.find(b"\0", max(0, len(data) - len(self.mark) + 1))
        self.held = data[start:] if start >= 0 and not found else b""
        self.add("stdout", self.decoder.decode(data[: len(data) - len(self.held)]))

    def total_cut(self) -> int:
        """Characters cut here and, as it reports itself, by the worker."""
        return self.cut + self.reported

    def merged(self) -> tuple[tuple[str, str], ...]:
        """The pieces, neighbors of one stream joined."""
        merged: list[tuple[str, list[str]]] = []
        for stream, text in self.pieces:
            if merged and merged[-1][0] == stream:
                merged[-1][1].append(text)
            else:
                merged.append((stream, [text]))
        return tuple((stream, "".join(texts)) for stream, texts in merged)
