"""Search services over HTTP, against a server on this machine that answers like them."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from oss_lab.agents import Agent, ScriptedModel, write_answer, write_call
from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser import SERVICES, Browser, Web, WebSearch, find_service
from oss_lab.agents.browser.web import LARGEST, is_public
from oss_lab.errors import LabError

KEY = "secret-key-123"
PAGES = {
    "/page": ("text/html; charset=utf-8", "<title>Page</title><p>A zebra. <a href='/two'>two</a>"),
    "/latin": ("text/html; charset=latin-1", "<p>caf\u00e9"),
    "/odd": ("text/plain; charset=no-such", "plain"),
    "/image": ("image/png", "png"),
    "/large": ("text/plain", "x" * (LARGEST + 1)),
    "/text": ("application/json", "not json"),
}


class Server(ThreadingHTTPServer):
    """A server that keeps what it was asked."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked = []


class FakeServices(BaseHTTPRequestHandler):
    """Answers in the form of each service."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.answer(json.loads(self.rfile.read(length)))

    def answer(self, body):
        path = urlsplit(self.path)
        asked = {"path": path.path, "query": parse_qs(path.query), "body": body}
        self.server.asked.append(asked | {"headers": dict(self.headers)})
        here = f"http://127.0.0.1:{self.server.server_port}"
        found = [
            {"url": f"{here}/page", "title": "First 【0†x】", "content": "a zebra",
             "description": "a zebra", "highlights": ["a zebra", "more"]},
            {"url": f"{here}/latin", "title": None, "content": None},
            {"title": "without an address"},
            "not a result",
        ]  # fmt: skip
        if path.path == "/res/v1/web/search":
            self.send_json({"web": {"results": found}})
        elif path.path == "/search":
            self.send_json({"results": found})
        elif path.path == "/contents":
            self.send_json({"results": [{"text": "# Read by Exa\n\nA zebra."}]})
        elif path.path == "/extract":
            self.send_json({"results": [{"raw_content": "# Read by Tavily\n\nA zebra."}]})
        elif path.path == "/empty/search":
            self.send_json({"results": None})
        elif path.path == "/refused/search":
            self.send_response(401)
            self.end_headers()
        elif path.path in ("/redirect", "/loop"):
            self.send_response(302)
            self.send_header("Location", "/loop" if path.path == "/loop" else path.query or "/page")
            self.end_headers()
        elif path.path in PAGES:
            kind, text = PAGES[path.path]
            self.send(kind, text.encode("latin-1" if "latin" in kind else "utf-8"))
        else:
            self.send_response(404)
            self.end_headers()

    def send_json(self, value):
        self.send("application/json", json.dumps(value).encode())

    def send(self, kind, data):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):  # the reader had enough
            self.wfile.write(data)


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), FakeServices) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def here(server):
    return f"http://127.0.0.1:{server.server_port}"


WEB = Web(seconds=10, allow_private=True)


@pytest.fixture
def service(here):
    return lambda name, base=here, web=WEB: WebSearch(SERVICES[name], KEY, base, web)


@pytest.mark.parametrize("name", SERVICES)
def test_results_of_each_service(name, service, here, server):
    results = service(name).search("where is 斑马?", 5)
    assert [each.url for each in results] == [f"{here}/page", f"{here}/latin"]
    assert results[0].snippet.startswith("a zebra")
    assert results[1].title == results[1].snippet == ""
    asked = server.asked[0]
    assert "where is 斑马?" in json.dumps(asked, ensure_ascii=False)
    wanted = {
        "brave": ("X-Subscription-Token", KEY), "exa": ("X-Api-Key", KEY),
        "tavily": ("Authorization", f"Bearer {KEY}"),
    }  # fmt: skip
    headers = {key.lower(): value for key, value in asked["headers"].items()}
    if name in wanted:
        header, value = wanted[name]
        assert headers[header.lower()] == value
    else:
        assert KEY not in str(asked)
    if name == "searxng":
        assert asked["query"]["format"] == ["json"]
    assert len(service(name).search("zebra", 1)) == 1


@pytest.mark.parametrize(
    ("name", "title"),
    [("brave", "Page"), ("searxng", "Page"), ("exa", "Read by Exa"), ("tavily", "Read by Tavily")],
)
def test_pages_come_from_the_service_or_directly(name, title, service, here):
    page = service(name).open(f"{here}/page")
    assert page.title == title
    assert "A zebra." in page.text


def test_an_agent_searches_the_web(service, here):
    script = [
        write_call("browser.search", query="zebra"),
        write_call("browser.open", id=0),
        write_answer("A zebra【1†L0】."),
    ]
    run: Any = Agent(ScriptedModel(script), [Browser(service("brave"))]).run("Where?")
    assert "L4:   * 【0†First 〖0‡x〗†127.0.0.1】 a zebra" in run.calls[0].output
    assert run.calls[1].output.startswith(f"[1] Page ({here}/page)")
    assert "【0†two】" in run.calls[1].output


def test_characters_and_kinds(service, here):
    brave = service("brave")
    assert "café" in brave.open(f"{here}/latin").text
    assert brave.open(f"{here}/odd").text == "plain"
    assert brave.open(f"{here}/redirect").url == f"{here}/page"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/image", "127.0.0.1 sent image/png, which is not text"),
        ("/large", "has more than 3,000,000 bytes"),
        ("/none", "127.0.0.1 answered with status 404"),
        ("/loop", "answered with status 302"),
        ("/redirect?file:///etc/passwd", "answered with status 302"),
        ("/redirect?ftp://a.org/", "is not an address that begins with https://"),
    ],
)
def test_a_page_that_cannot_be_read_is_one_sentence(path, sentence, service, here):
    with pytest.raises(CallError, match=sentence):
        service("brave").open(here + path)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/refused", "127.0.0.1 answered with status 401"),
        ("/empty", "searxng answered without results"),
        ("/nowhere", "answered with status 404"),
    ],
)
def test_a_service_that_refuses_is_one_sentence_without_the_key(path, sentence, service, here):
    with pytest.raises(CallError, match=sentence) as caught:
        service("searxng", here + path).search("zebra", 3)
    assert KEY not in str(caught.value)


def test_an_answer_that_is_not_json(here):
    with pytest.raises(CallError, match="answered with something other than JSON"):
        WEB.ask_json(f"{here}/text")


def test_a_server_that_is_not_there(service):
    with pytest.raises(CallError, match=r"127\.0\.0\.1 cannot be reached: "):
        service("searxng", "http://127.0.0.1:9").search("zebra", 3)


def test_the_key_is_not_shown(service):
    assert KEY not in repr(service("brave"))
    assert KEY not in repr(Browser(service("exa")))


# Private addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://10.0.0.1/x",
        "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/",
        "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://127.1/", "http://224.0.0.1/",
    ],
)  # fmt: skip
def test_private_addresses_are_not_opened(url):
    with pytest.raises(CallError, match=r"is inside a private network|there is no host"):
        Web().check(url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.org/",
        "/etc/passwd",
        "javascript:1",
        "http://",
        "http://[",
        "",
    ],
)
def test_other_addresses_are_not_opened(url):
    with pytest.raises(CallError, match="is not an address"):
        Web().check(url)


def test_a_page_of_a_service_is_checked_and_the_service_is_not(service, here, server):
    found = service("searxng", web=Web())
    assert len(found.search("zebra", 5)) == 2
    count = len(server.asked)
    with pytest.raises(CallError, match="is inside a private network and is not opened"):
        found.open(f"{here}/page")
    assert len(server.asked) == count


def test_a_redirect_into_a_private_network_is_refused(here, server, monkeypatch):
    monkeypatch.setattr(
        "oss_lab.agents.browser.web.is_public", lambda address: address == "127.0.0.1"
    )
    with pytest.raises(CallError, match=r"'10\.0\.0\.1' is inside a private network"):
        Web(seconds=10).get(f"{here}/redirect?http://10.0.0.1/")
    assert [each["path"] for each in server.asked] == ["/redirect"]


def test_public_addresses():
    assert is_public("8.8.8.8")
    assert is_public("2606:4700::1111")
    for address in ("127.0.0.1", "::1", "fe80::1%eth0", "100.64.0.1", "::ffff:192.168.0.1"):
        assert not is_public(address)


# The environment


@pytest.fixture
def no_keys(monkeypatch):
    for each in SERVICES.values():
        monkeypatch.delenv(each.variable, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_found_by_its_variable(name, no_keys):
    no_keys.setenv(SERVICES[name].variable, "http://localhost:8080/" if name == "searxng" else KEY)
    found = find_service()
    assert found.name == name
    assert found == find_service(name)
    assert found.base == (SERVICES[name].url or "http://localhost:8080")
    assert found.key == ("" if name == "searxng" else KEY)
    assert not found.web.allow_private


def test_no_service(no_keys):
    with pytest.raises(LabError, match="set one of BRAVE_API_KEY, EXA_API_KEY, TAVILY_API_KEY"):
        find_service()
    with pytest.raises(LabError, match="set one of EXA_API_KEY in the environment"):
        find_service("exa")
    with pytest.raises(LabError, match="there is no search service 'exo'; did you mean 'exa'"):
        find_service("exo")
    no_keys.setenv("EXA_API_KEY", " ")
    with pytest.raises(LabError, match="there is no search service"):
        find_service()
