"""The parent's side of one worker process: send a request, collect the answer, keep the limits.

Whatever the child writes, or stops writing, ends in a Result: a call is over when its answer came,
when its time is up, when the child is gone, or when it broke a limit or the protocol.
"""

import os
import queue
import secrets
import threading
import time
from contextlib import suppress

from oss_lab.agents.sandbox.call_text import CallText
from oss_lab.agents.sandbox.data_folder import NAME, DataFolder
from oss_lab.agents.sandbox.frames import BrokenProtocol, Frame, FrameReader, encode
from oss_lab.agents.sandbox.limits import MIB, Limits
from oss_lab.agents.sandbox.process import CannotStart, Process
from oss_lab.agents.sandbox.result import Result
from oss_lab.agents.sandbox.view import find_view
from oss_lab.agents.sandbox.watch import EVERY, find_excess

START_SECONDS = 60.0  # for the interpreter to start; it takes less than one on an idle machine
FLOOD = 64 * MIB  # bytes that one call may send; the worker's own frames stay far below
HUGE = 10**15  # the code can report any number of cut characters
RAW_SECONDS = 1.0  # after an answer, for the end of what the code wrote past Python


class Over(Exception):
    """The call cannot end normally; the message says why."""


class Worker:
    """One process and the threads that read its pipes."""

    def __init__(self, process: Process, data: DataFolder, limits: Limits, *, lock: bool) -> None:
        self.process, self.data, self.limits = process, data, limits
        self.frames = FrameReader()
        self.arrived: queue.Queue[tuple[str, bytes]] = queue.Queue(maxsize=64)
        self.closed, self.canceled = threading.Event(), False
        for source, descriptor in (("answers", process.answers), ("raw", process.raw)):
            assert descriptor is not None
            threading.Thread(
                target=self.read, args=(source, descriptor), name="sandbox-pipe", daemon=True
            ).start()
        self.shake_hands(lock)

    def shake_hands(self, lock: bool) -> None:
        """Send the settings and wait until the worker is ready. Raises CannotStart."""
        settings = {
            "lock": lock,
            "memory": self.limits.memory,
            "file_size": self.limits.disk,
            "open_files": self.limits.open_files,
            "output": self.limits.output,
            "folder": self.process.folder,
            "name": NAME,
            "packages": find_view().packages,
        }
        pieces = CallText(2000)
        try:
            first = self.exchange(settings, "", pieces, START_SECONDS)
        except Over as why:
            said = "".join(text for _, text in pieces.pieces).strip()
            raise CannotStart(f"{why}{f': {said}' if said else ''}") from why
        except BaseException:
            self.close()
            raise
        if first.kind == "failed":
            self.close()
            raise CannotStart(first.fields["reason"])
        self.process.pause()

    def run(self, code: str, seconds: float) -> Result:
        """Run code. If the result names a reason in `ended`, the worker is closed."""
        began = time.monotonic()
        cell = secrets.token_hex(8)
        pieces, ended = CallText(self.limits.output, cell), None
        self.process.resume()
        try:
            request = {"id": cell, "code": code}
            last = self.exchange(request, cell, pieces, seconds)
            if last.kind != "done":
                raise Over(self.close(f"it answered with a {last.kind!r} frame and was killed"))
            pieces.reported = last.fields["cut"]
            self.process.pause()
            self.check_limits()
        except Over as over:
            ended = str(over)
        except BaseException:  # an interrupt here must not leave code running
            self.close()
            raise
        if ended is not None:  # a killed process may have written until the last moment
            self.data.shrink(self.limits.disk, self.limits.files)
        cut = min(max(0, pieces.total_cut()), HUGE)
        return Result(pieces.merged(), time.monotonic() - began, cut, ended)

    def exchange(self, request: dict, cell: str, pieces: CallText, seconds: float) -> Frame:
        """Send a request and collect text until its last frame. Closes the worker to raise Over."""
        threading.Thread(target=self.write, args=(encode(request),), daemon=True).start()
        received, look, last = 0, time.monotonic() + EVERY, None
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            if now >= look:
                self.check_limits()
                look = time.monotonic() + EVERY
            with suppress(queue.Empty):
                source, data = self.arrived.get(timeout=max(0.001, min(deadline, look) - now))
                received += len(data)
                if received > FLOOD:
                    raise Over(self.close(f"it wrote more than {FLOOD // MIB} MiB and was killed"))
                answer = self.take(source, data, cell, pieces)
                if answer is not None and last is None:
                    last, deadline = answer, min(deadline, now + RAW_SECONDS)
            if last is not None and (pieces.raw_ended or last.kind != "done"):
                return last
        if last is not None:
            return last
        raise Over(self.close(f"timed out after {seconds:g} seconds and was killed"))

    def check_limits(self) -> None:
        """Raise Over, with the worker closed, if a limit is exceeded."""
        if excess := find_excess(self.process.proc, self.data, self.limits):
            end = "was killed, and the newest files are deleted" if NAME in excess else "was killed"
            raise Over(self.close(f"{excess}, so the process {end}"))

    def take(self, source: str, data: bytes, cell: str, pieces: CallText) -> Frame | None:
        """Use what arrived. Returns the frame that ends the call, if it is among it."""
        if not data:
            self.take_last_words(pieces)
            if self.canceled:
                raise Over(self.close("canceled and killed"))
            raise Over(self.close("the Python process ended", by_itself=True))
        if source == "raw":
            pieces.add_raw(data)
            return None
        try:
            frames = self.frames.feed(data)
        except BrokenProtocol as problem:
            reason = f"it wrote {problem} to the pipe for answers and was killed"
            raise Over(self.close(reason)) from problem
        for frame in frames:
            if frame.id != cell:
                continue  # late or forged
            if frame.kind == "text":
                pieces.add(frame.fields["stream"], frame.fields["text"])
            elif frame.kind == "cut":
                pieces.reported = frame.fields["cut"]
            else:
                return frame
        return None

    def take_last_words(self, pieces: CallText) -> None:
        """Take what a dying process wrote past Python, and let it end by itself."""
        until = time.monotonic() + RAW_SECONDS
        data = b"?"
        with suppress(queue.Empty):
            while data and (left := until - time.monotonic()) > 0:
                source, data = self.arrived.get(timeout=left)
                if source == "raw":
                    pieces.add_raw(data)
        self.process.gone.wait(max(0.0, until - time.monotonic()))

    def read(self, source: str, descriptor: int) -> None:
        """Pass on a pipe's bytes until its end, which is passed on as no bytes."""
        data = b"?"
        while data and not self.closed.is_set():
            try:
                data = os.read(descriptor, 1 << 16)
            except OSError:
                data = b""
            while not self.closed.is_set():
                with suppress(queue.Full):
                    self.arrived.put((source, data), timeout=0.1)
                    break
        os.close(descriptor)

    def write(self, data: bytes) -> None:
        """Send bytes, in a separate thread: a child that does not read must not stop the caller."""
        descriptor = self.process.requests
        with suppress(OSError):
            while data and descriptor is not None and not self.closed.is_set():
                data = data[os.write(descriptor, data) :]

    def cancel(self) -> None:
        """Make a running call end, from another thread."""
        self.canceled = True
        self.process.kill()

    def close(self, why: str = "", *, by_itself: bool = False) -> str:
        """End the process. Returns the reason, with how it ended if it did so by itself."""
        self.closed.set()
        how = self.process.close()
        return f"{why} ({how})" if by_itself and how else why
