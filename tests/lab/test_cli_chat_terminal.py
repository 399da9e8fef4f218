"""`oss-lab chat` in a real terminal."""

import os
import re
import select
import subprocess
import sys
import time
from dataclasses import replace

import pytest


class Terminal:
    """`oss-lab chat` in a pseudo-terminal."""

    def __init__(self, *arguments, home):
        own = {"HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "TERM": "xterm"}
        self.ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oss_lab", "chat", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | own,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = b""

    def wait_for(self, text):
        until = time.monotonic() + 90
        while text not in self.shown:
            assert time.monotonic() < until, self.shown
            if select.select([self.ours], [], [], 1)[0]:
                self.shown += os.read(self.ours, 4096)

    def type(self, line):
        os.write(self.ours, line)

    def leave(self):
        self.type(b"/quit\r")
        assert self.process.wait(60) == 0
        os.close(self.ours)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_on_a_terminal_lines_are_kept_for_the_next_chat(write_tiny, tiny_config, tmp_path):
    folder = write_tiny(config=replace(tiny_config, vocab_size=640))
    chat = Terminal(str(folder), home=tmp_path)
    chat.wait_for(b"high>")  # the default on nano
    chat.type(b"/effort low\r")
    chat.wait_for(b"low>")
    chat.type(b"half a line\x03")  # Ctrl-C clears the line
    chat.leave()
    (kept,) = tmp_path.rglob("chat_history")
    assert [line for line in kept.read_text().splitlines() if line.startswith("+")] == [
        "+/effort low",
        "+/quit",
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_on_a_terminal_a_call_is_folded_to_one_line(tmp_path):
    chat = Terminal("nano", "--tools", "calculator", "--effort", "low", home=tmp_path)
    chat.wait_for(b"low>")
    chat.type(b"What is 4815 * 884?\r")
    chat.wait_for(b"[final]")
    chat.wait_for(b"low>")
    chat.leave()
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", chat.shown)
    line = rb'\nfunctions\.calculator\(\{"expression":"4815\*884"\}\) -> 4256460   (<1|\d+) ms\r?\n'
    assert re.search(line, plain)
