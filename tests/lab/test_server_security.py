"""Who may use the server, and what bad requests get: the API's error object, never a traceback."""

import http.client
import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from oss_lab import server
from oss_lab.errors import LabError
from oss_lab.server.request import EFFORTS, IGNORED, REFUSED
from oss_lab.server.settings import Limits, choose_token

openai = pytest.importorskip("openai", reason="the extra `test` is not installed")
GOOD = {"model": "nano", "messages": [{"role": "user", "content": "What is 3 * 4?"}]}
GOOD |= {"reasoning_effort": "low"}
LIMITS = Limits(body_bytes=20_000, read_seconds=1.0)


@pytest.fixture(scope="module")
def url(serve):
    origins = ("https://good.example",)
    with serve(limits=LIMITS, origins=origins, hosts=("lab.example",)) as found:
        yield found


@pytest.fixture(scope="module")
def send(url):
    """`send("POST", "/v1/models", body, headers)` -> (status, headers, JSON or text)."""

    def run(method="POST", path="/v1/chat/completions", body: object = GOOD, headers=None):
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        given = {"Authorization": "Bearer secret"} | (headers or {})
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {k: v for k, v in given.items() if v})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = "json" in found.get("content-type", "")
        return answer.status, found, json.loads(text) if is_json else text

    return run


def check_error(answer, status, message):
    """The answer is the API's error object with this status and part of a message."""
    found, headers, body = answer
    assert found == status
    assert list(body) == ["error"]
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert message in body["error"]["message"]
    assert "Traceback" not in body["error"]["message"]
    assert headers["x-request-id"].startswith("req_")
    return body["error"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic secret", "secret", "Bearer é"])
def test_a_wrong_or_missing_token_is_refused(send, header):
    error = check_error(send(headers={"Authorization": header}), 401, "token is")
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/v1/responses/x"])
def test_everything_but_health_needs_the_token(send, path):
    check_error(send("GET", path, None, {"Authorization": None}), 401, "the token is missing")
    assert send("GET", "/health", None, {"Authorization": None})[2] == {"status": "ok"}


def test_without_a_token_everybody_is_admitted(serve):
    with serve(token=None) as url:
        client = openai.OpenAI(base_url=url, api_key="anything", max_retries=0)
        assert [model.id for model in client.models.list()] == ["nano"]


def test_a_name_that_resolves_to_this_machine_is_refused(send):
    """DNS rebinding: the page's own name is in Host, and it may resolve to 127.0.0.1."""
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
        error = check_error(send(headers={"Host": host or "x y"}), 403, "--allow-host")
        assert error["code"] == "host_not_allowed"
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000", "LAB.example:8000", "10.1.2.3:80"):
        assert send("GET", "/v1/models", None, {"Host": host})[0] == 200


def test_web_pages_are_refused_unless_they_are_listed(send):
    for origin in ("https://evil.example", "null", "https://good.example.evil.example"):
        status, headers, body = send(headers={"Origin": origin})
        check_error((status, headers, body), 403, "--allow-origin")
        assert "access-control-allow-origin" not in headers
    good = {"Origin": "https://good.example"}
    status, headers, _ = send(headers=good)
    assert (status, headers["access-control-allow-origin"]) == (200, good["Origin"])
    status, headers, _ = send("OPTIONS", body=None, headers=good | {"Authorization": None})
    assert (status, "authorization" in headers["access-control-allow-headers"]) == (204, True)
    status, headers, _ = send()
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_wrong_model_is_404_and_lists_the_right_one(url):
    client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0)
    with pytest.raises(
        openai.NotFoundError, match="'gpt-5' does not exist; this server has 'nano'"
    ):
        client.responses.create(model="gpt-5", input="hello")
    with pytest.raises(openai.NotFoundError, match="this server has 'nano'"):
        client.models.retrieve("gpt-5")
    assert client.models.retrieve("nano").id == "nano"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff\xfe", "the body is not JSON"),
        (b'{"model": NaN}', "NaN is not a JSON number"),
        (b'{"model": "\\ud800"}', "lone surrogate"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "levels deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "levels deep"),
        ({"messages": GOOD["messages"]}, "Missing required parameter: 'model'"),
        ({"model": "nano"}, "Missing required parameter: 'messages'"),
        (GOOD | {"messages": []}, "messages: List should have at least 1 item"),
        (GOOD | {"messages": "hi"}, "messages: Input should be a valid list"),
        (GOOD | {"messages": [{"role": "robot", "content": "x"}]}, "role is 'robot'"),
        (GOOD | {"messages": [{"role": "user"}]}, "missing the field `content`"),
        (GOOD | {"temperature": 3}, "temperature: Input should be less than or equal to 2"),
        (GOOD | {"temperature": "hot"}, "temperature: Input should be a valid number"),
        (GOOD | {"max_tokens": 0}, "max_tokens: Input should be greater than"),
        (GOOD | {"n": 99}, "n is 99; this server allows 16"),
        (GOOD | {"stream": "yes"}, "stream: Input should be a valid boolean"),
        (GOOD | {"reasoning_effort": "huge"}, "reasoning_effort: Input should be"),
        (GOOD | {"top_logprobs": 2}, "needs `logprobs: true`"),
        (GOOD | {"logit_bias": {"1": 5}}, "logit_bias is not supported"),
        (GOOD | {"tools": [{"type": "web_search"}]}, "only 'function' can be described"),
        (GOOD | {"tool_choice": "required"}, "there are no tools"),
        (GOOD | {"tool_choice": 5}, "tool_choice"),
        (GOOD | {"foo": 1}, "Unknown parameter: 'foo'"),
        (GOOD | {"stream_options": {"foo": 1}}, "Unknown parameter: 'stream_options.foo'"),
        (GOOD | {"messages": [{"role": "user", "content": "x " * 9000}]}, "the context"),
    ],
)  # fmt: skip
def test_a_bad_request_gets_one_sentence(send, body, message):
    check_error(send(body=body), 400, message)


def test_fields_without_an_effect_are_named(send):
    extra = {"user": "me", "service_tier": "auto", "logit_bias": {}, "presence_penalty": 0}
    status, headers, _ = send(body=GOOD | extra)
    assert status == 200
    assert headers["x-oss-lab-notes"] == "user is ignored; service_tier is ignored"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(send, url):
    check_error(send(body=b"x" * 30_000), 413, "larger than 20000 bytes")
    place = urlsplit(url)
    head = (
        f"POST {place.path}/responses HTTP/1.1\r\nHost: localhost\r\n"
        "Authorization: Bearer secret\r\nContent-Length: 99999999\r\n\r\n"
    )
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(head.encode())  # nothing of the body
        assert b" 413 " in connection.recv(4096)


def test_a_body_without_a_length_is_counted_and_a_slow_one_is_given_up(url):
    place = urlsplit(url)
    head = (
        f"POST {place.path}/responses HTTP/1.1\r\nHost: localhost\r\n"
        "Authorization: Bearer secret\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for data, status in ((b"6000\r\n" + b"x" * 0x6000 + b"\r\n", b" 413 "), (b"1\r\n", b" 408 ")):
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            connection.sendall(head.encode() + data)
            assert status in connection.recv(4096)


def test_what_is_not_supported_is_refused_by_name(send):
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    check_error(send("GET", "/v1/responses", None, upgrade), 400, "WebSocket is not supported")
    check_error(send(path="/v1/responses/compact", body={}), 404, "compaction is not supported")
    body = {"model": "nano", "input": "x"}
    check_error(send(path="/v1/responses", body=body | {"background": True}), 400, "background is")
    check_error(send(path="/v1/responses", body={"model": "nano"}), 400, "parameter: 'input'")
    items = [{"type": "web_search_call"}]
    check_error(send(path="/v1/responses", body=body | {"input": items}), 400, "'web_search_call'")
    items = [{"role": "user", "content": "x"}, {"type": "function_call_output", "output": "1"}]
    check_error(send(path="/v1/responses", body=body | {"input": items}), 400, "input[1].call_id")
    items[1]["call_id"] = "call_1"
    error = send(path="/v1/responses", body=body | {"input": items})
    check_error(error, 400, "input[1].tool_call_id is 'call_1', but no earlier call has this id")
    items = [{"type": "item_reference", "id": "msg_1"}]
    check_error(send(path="/v1/responses", body=body | {"input": items}), 404, "is not stored")


def test_unknown_addresses_and_methods_get_the_error_object(send):
    check_error(send("GET", "/v1/nothing", None), 404, "/v1/nothing")
    check_error(send("PUT", "/v1/models", None), 405, "Method Not Allowed")


def test_metrics_count(send):
    send()
    text = send("GET", "/metrics", None)[2]
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(values["oss_lab_generated_tokens_total"]) > 0
    assert float(values['oss_lab_answers_total{status="200"}']) > 0
    assert values["oss_lab_replies_running"] == "0"


def test_a_bug_gets_an_error_object_without_its_traceback(serve, monkeypatch, caplog):
    def fail(*_, **__):
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr("oss_lab.server.chat.request.Generation", fail)
    with serve() as url:
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**GOOD)
    assert caught.value.body["message"] == "the server failed; its terminal shows why"
    assert "secret" not in str(caught.value)


def test_the_page_lists_every_field_and_limit():
    page = (Path(server.__file__).parent / "API.md").read_text("utf-8")
    ignored, refused = re.findall(
        r"^- (?:Ignored|Refused)[^:]*: (.*?)\.(?:\n-| `trunc)", page, re.M | re.S
    )
    assert set(re.findall(r"`(\w+)`", ignored)) == IGNORED
    assert set(re.findall(r"`(\w+)`", refused)) == REFUSED
    limits = Limits()
    assert f"{limits.body_bytes // 2**20} MiB" in page
    assert f"within {limits.read_seconds:g} seconds. {limits.rows} replies" in page
    assert f"{limits.tokens:,} tokens and {limits.seconds:g} seconds" in page
    mapped = {asked: used for asked, used in EFFORTS.items() if asked != used}
    assert mapped == {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}


def test_a_token_is_chosen(monkeypatch):
    monkeypatch.delenv("OSS_LAB_TOKEN", raising=False)
    assert len(choose_token(None)) == 48
    assert choose_token(None) != choose_token(None)
    monkeypatch.setenv("OSS_LAB_TOKEN", "abc")
    assert (choose_token(None), choose_token("given")) == ("abc", "given")
    for wrong in ("", "two words", "é"):
        with pytest.raises(LabError, match="the token must be ASCII"):
            choose_token(wrong)
