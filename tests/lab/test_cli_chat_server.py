"""`oss-lab chat URL`: a model on a server, with the same transcript as one that is loaded here."""

import io
import re

import pytest

pytest.importorskip("openai", reason="openai is not installed (extra `connect`)")

from oss_lab.cli.main import main

SAME = ["--effort", "medium", "--tools", "calculator"]


@pytest.fixture
def chat(monkeypatch, capsys):
    """`chat([URL, "--token", "secret"], "a line")`: the transcript and the exit status.

    A line may be a function that returns it.
    """
    monkeypatch.delenv("OSS_LAB_TOKEN", raising=False)

    class Lines(io.StringIO):
        def __init__(self, lines):
            super().__init__()
            self.lines = list(lines)

        def readline(self, size=-1):
            line = self.lines.pop(0) if self.lines else None
            return "" if line is None else f"{line() if callable(line) else line}\n"

    def run(arguments, *lines):
        monkeypatch.setattr("sys.stdin", Lines(lines))
        status = main(["chat", *arguments])
        found = capsys.readouterr()
        return (found.out if status == 0 else found.err), status

    return run


@pytest.fixture(scope="module")
def url(serve):
    with serve() as here:
        yield here


def without_times(out):
    out = out[out.index("\n> ") + 1 :]
    return re.sub(r"(   |, )(<1 ms|\d+ ms|\d+\.\d s)(?=\n|\])", r"\1TIME", out)


def test_the_transcript_is_that_of_the_loaded_model(chat, url, tmp_path):
    def lines(file):
        return ("What is 4815 * 884?", "/calls", "What is 36 + 19?", f"/save {file}", "/reset",
                f"/load {file}", "/history", "/undo", "/undo", "/example 13")  # fmt: skip

    out, status = chat([url, "--token", "secret", *SAME], *lines(tmp_path / "a.json"))
    assert status == 0
    assert out.startswith(f"(nano at {url}, effort medium; /help lists the commands)\n(a server")
    assert "-> 4256460   " in out
    here, _ = chat(["nano", *SAME], *lines(tmp_path / "b.json"))
    limit = r"\(this is question 3; nano gets worse.*\n"  # a server does not say what it has
    expected = re.sub(limit, "", without_times(here)).replace("b.json", "a.json")
    assert without_times(out) == expected


def test_the_token_comes_from_the_environment(chat, url, monkeypatch):
    monkeypatch.setenv("OSS_LAB_TOKEN", "secret")
    assert chat([url])[1] == 0
    monkeypatch.setenv("OSS_LAB_TOKEN", "wrong")
    found, status = chat([url])
    assert (status, found.count("\n")) == (1, 1)
    assert f"{url}: the token is missing or wrong; give" in found
    assert chat([url, "--token", "secret"])[1] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--token", "guess"], "--token or OSS_LAB_TOKEN in a terminal"),
        (["--token", "sécret"], "the token must be ASCII without spaces"),
        (["--token", "a b"], "the token must be ASCII without spaces"),
        (["--token", "secret", "--model", "b"], "there is no model 'b'; choose one of nano"),
        (["--token", "secret", "--tools", "browser"], "so the tool 'browser' cannot be sent"),
        (["--token", "secret", "--download"], "--download fetches a checkpoint, and a server has"),
    ],
)
def test_what_cannot_work_is_one_sentence(chat, url, arguments, sentence):
    found, status = chat([url, *arguments])
    assert status == 1
    assert sentence in found
    assert found.count("\n") == 1
    assert "guess" not in found


def test_an_address_without_its_beginning_is_explained(chat, url):
    address = url.removeprefix("http://")
    sentence = f"oss-lab: {address}: an address starts with http:// or https://\n"
    assert chat([address]) == (sentence, 1)


def test_an_address_without_its_end_is_explained(chat, url):
    found, status = chat([url.removesuffix("/v1"), "--token", "secret"])
    assert (status, found.count("\n")) == (1, 1)
    assert "answered 404" in found
    assert "most addresses end in /v1" in found


def test_a_server_that_is_gone_does_not_end_the_chat(chat, serve):
    running = serve()
    here = running.__enter__()

    def stop():
        running.__exit__(None, None, None)
        return "What is 3 * 4?"

    arguments = [here, "--token", "secret", "--effort", "low"]
    out, status = chat(arguments, "What is 12 + 13?", stop, "/history")
    assert status == 0
    assert "[final]\n25\n" in out
    assert re.search(
        rf"> What is 3 \* 4\?\n\({here} does not answer \(.*\); is the server "
        r"running\?\)\n> /history\n",
        out,
    )
    assert "[user]\nWhat is 3 * 4?\n" not in out.partition("/history")[2]


def test_the_speed_of_a_server_is_not_made_up(chat, url):
    out, _ = chat([url, "--token", "secret"], "/verbose", "What is 3 * 4?")
    assert re.search(r"\n\(\d+ tokens in \d+\.\d s; first token after \d+\.\d s\)\n", out)
