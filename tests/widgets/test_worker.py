"""The thread of a source at its ends: closed, failing, and when Python exits."""

import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest
from oss_widgets import Chat, Experts
from oss_widgets.sources.worker import Worker

from oss_lab.errors import LabError


def test_the_cleanup_of_a_canceled_job_may_fail():
    worker, canceled = Worker(), threading.Event()

    def work():
        try:
            canceled.set()
            yield
        finally:
            raise RuntimeError("cleanup")

    def answer():
        yield
        return 5

    with pytest.raises(RuntimeError, match="cleanup"):
        worker.submit(work(), canceled).done.result(30)
    assert worker.submit(answer(), threading.Event()).done.result(30) == 5
    worker.close()


def test_closing_cancels_the_job_that_runs():
    worker, canceled, begun = Worker(), threading.Event(), threading.Event()

    def work():
        begun.set()
        assert canceled.wait(30)
        yield

    job = worker.submit(work(), canceled)
    assert begun.wait(30)
    worker.close()
    with pytest.raises(CancelledError):
        job.done.result(30)
    assert job.done.cancelled()


def test_a_closed_view_says_so_and_waits_for_nothing(lab):
    chat = Chat(lab, "What is 2 * 3?", effort="low")
    chat.wait()
    chat.close()
    for use in (chat.data, lambda: Experts(chat).data(), lambda: setattr(chat, "effort", "high")):
        with pytest.raises(LabError, match="this view is closed; make a new one"):
            use()


def test_python_can_exit_while_a_reply_is_generated():
    script = (
        "import oss_lab; from oss_widgets import Chat;"
        "Chat(oss_lab.load('nano'), 'What is 347 * 62?', 'high')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
