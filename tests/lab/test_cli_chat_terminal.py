"""`oss-lab chat` in a real terminal."""

import os
import select
import subprocess
import sys
import time
from dataclasses import replace

import pytest


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_on_a_terminal_lines_are_kept_for_the_next_chat(write_tiny, tiny_config, tmp_path):
    folder = write_tiny(config=replace(tiny_config, vocab_size=640))
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "TERM": "xterm"}
    ours, theirs = os.openpty()
    chat = subprocess.Popen(
        [sys.executable, "-m", "oss_lab", "chat", str(folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | home,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""

    def wait_for(text):
        nonlocal shown
        until = time.monotonic() + 90
        while text not in shown:
            assert time.monotonic() < until, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 4096)

    wait_for(b"high>")  # the default on nano
    os.write(ours, b"/effort low\r")
    wait_for(b"low>")
    os.write(ours, b"half a line\x03")  # Ctrl-C clears the line
    os.write(ours, b"/quit\r")
    assert chat.wait(60) == 0
    os.close(ours)
    (kept,) = tmp_path.rglob("chat_history")
    assert [line for line in kept.read_text().splitlines() if line.startswith("+")] == [
        "+/effort low",
        "+/quit",
    ]
