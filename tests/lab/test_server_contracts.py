"""The server against what others wrote: llm-comply, openai-agents and schemathesis, unmodified.

llm-comply has 13 tests for Open Responses and 9 for chat completions. One of each sends an image,
which this server refuses by default. With `--images placeholder` they pass too.
"""

import asyncio
import os
from pathlib import Path

import pytest

from oss_lab.server.settings import Limits

openai = pytest.importorskip("openai", reason="the extra `test` is not installed")

MODEL = "o1-nano"  # llm-comply tests reasoning only if the name looks like a reasoning model
HARD = "What is 4815 * 884?"


def run_llm_comply(url, name):
    """llm-comply's results for one of its suites, by the test's id: its errors, or why skipped."""
    llm_comply = pytest.importorskip("llm_comply", reason="the extra `test` is not installed")
    from llm_comply.config import ComplianceConfig
    from llm_comply.runner import TestRunner
    from llm_comply.schema import SpecLoader
    from llm_comply.tests.open_responses import OPEN_RESPONSES_TESTS
    from llm_comply.tests.openai_chat import OPENAI_CHAT_TESTS

    tests = {"openresponses": OPEN_RESPONSES_TESTS, "openai_chat": OPENAI_CHAT_TESTS}[name]
    spec = Path(llm_comply.__file__).parent / "specs" / f"{name}.json"
    # Open Responses names the events of reasoning differently than OpenAI's client does.
    headers = {"x-oss-lab-events": "openresponses"}
    config = ComplianceConfig(url, "secret", MODEL, extra_headers=headers)
    results = TestRunner(config, tests, SpecLoader(str(spec))).run_all().results
    return {each.id: [each.status.value, *each.errors] for each in results}


@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver")
@pytest.mark.parametrize(
    ("name", "count", "image"),
    [("openresponses", 13, "image-input"), ("openai_chat", 9, "chat-image-input")],
)
def test_llm_comply_passes(serve, name, count, image):
    """Both suites load their JSON schemas, which takes most of the time."""
    with serve(model=MODEL, images="placeholder") as url:
        found = run_llm_comply(url, name)
    assert len(found) == count
    assert {id: errors for id, errors in found.items() if errors != ["passed"]} == {}
    assert image in found


def test_an_agent_uses_its_tool(serve):
    """openai-agents runs the loop: it sends the call's output back until there is an answer."""
    agents = pytest.importorskip("agents", reason="the extra `test` is not installed")
    agents.set_tracing_disabled(True)
    calls = []

    @agents.function_tool
    def calculator(expression: str) -> str:
        """Evaluates an expression."""
        calls.append(expression)
        return "4256460"

    async def ask(url, kind, tools, *, stream):
        async with openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            agent = agents.Agent(name="nano", model=kind("nano", client), tools=tools)
            if not stream:
                return (await agents.Runner.run(agent, HARD)).final_output
            run = agents.Runner.run_streamed(agent, HARD)
            assert [event async for event in run.stream_events()]
            return run.final_output

    kinds = (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel)
    with serve() as url:
        for kind in kinds:
            for stream in (False, True):
                answer = asyncio.run(ask(url, kind, [calculator], stream=stream))
                assert answer == "4256460"
        assert calls == ["4815*884"] * 4
        assert "too hard" in asyncio.run(ask(url, kinds[0], [], stream=False))


@pytest.mark.slow
def test_no_request_of_schemathesis_gets_a_5xx(serve):
    """OSS_LAB_REQUESTS is their number. The schema is the one that the server publishes."""
    schemathesis = pytest.importorskip("schemathesis", reason="the extra `test` is not installed")

    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    count = int(os.environ.get("OSS_LAB_REQUESTS", "50"))
    answers = []
    headers = {"Authorization": "Bearer secret"}
    with serve(limits=Limits(tokens=32, seconds=20)) as url:
        base = url.removesuffix("/v1")
        schema = schemathesis.openapi.from_url(f"{base}/openapi.json", headers=headers)
        operations = [each.ok() for each in schema.get_all_operations()]
        cases = st.one_of([each.as_strategy() for each in operations])

        @settings(
            max_examples=count, deadline=None, derandomize=True, database=None,
            phases=[Phase.generate], suppress_health_check=[*HealthCheck]  # pyright: ignore[reportArgumentType],
        )  # fmt: skip
        @given(case=cases)
        def send(case):
            answer = case.call(base_url=base, headers=headers, timeout=60)
            answers.append(answer.status_code)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)
            if answer.status_code >= 400:
                assert answer.json()["error"]["message"]

        send()
    assert len(operations) == 10
    assert len(answers) >= count
    assert {200, 404} <= set(answers)
