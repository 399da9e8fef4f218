"""The server under load: 32 streams at a time, and clients that vanish or stop reading.

More clients ask than there are rows, so no row waits for a client.

OSS_LAB_LOAD_SECONDS is how long the clients ask, 10 by default. Speed is measured in CPU time, so
another program on the machine changes it little: tokens per second of the server, all of its
threads counted, against those of the engine's own batch of 32, whose rows join and leave too. The
batch is measured before and after the server, since even CPU time varies on a busy machine.
"""

import asyncio
import json
import os
import time
from urllib.parse import urlsplit

import pytest

from oss_lab.lab.generation import Generation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads Linux's /proc"),
]
ROWS, STREAMS, VANISHING, STALLING = 32, 40, 4, 2
GROWTH = 40  # MiB that the server may grow; the caches of 32 rows vary by a few


def write_questions():
    return [f"What is {a} * {b}?" for a in range(31, 47) for b in (14, 27, 38, 45)]


async def open_stream(url, token, question, *, is_chat):
    """Send a request for a stream, and return the connection."""
    place = urlsplit(url)
    body = {"model": "nano", "stream": True}
    if is_chat:
        path, body["messages"] = "/chat/completions", [{"role": "user", "content": question}]
    else:
        path, body["input"] = "/responses", question
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = (
        f"POST {place.path}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    return reader, writer


def read_answer(text, *, is_chat):
    """The answer in the events of a stream, which must be complete."""
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    if is_chat:
        assert text.rstrip("\r\n0").endswith("data: [DONE]"), text[-200:]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    return events[-1]["response"]["output"][-1]["content"][0]["text"]


async def ask(url, token, question, *, is_chat, pause=0.0):
    """The answer to a question; reading starts after a pause."""
    reader, writer = await open_stream(url, token, question, is_chat=is_chat)
    await asyncio.sleep(pause)
    text = (await reader.read()).decode()
    writer.close()
    return read_answer(text, is_chat=is_chat)


async def run_clients(url, token, expected, seconds):
    """The number of answers; each is checked."""
    questions, counts, end = (
        list(expected),
        {"answers": 0, "vanished": 0},
        time.monotonic() + seconds,
    )

    async def stream(number):
        is_chat = number % 2 == 0
        while time.monotonic() < end:
            question = questions[(number * 7 + counts["answers"]) % len(questions)]
            assert await ask(url, token, question, is_chat=is_chat) == expected[question]
            counts["answers"] += 1

    async def vanish(number):
        while time.monotonic() < end:
            question = questions[number]
            reader, writer = await open_stream(url, token, question, is_chat=number % 2 == 0)
            await reader.read(300)
            writer.transport.abort()
            counts["vanished"] += 1
            await asyncio.sleep(1)

    async def stall(number):
        question = questions[-1 - number]
        answer = await ask(url, token, question, is_chat=number % 2 == 0, pause=seconds)
        assert answer == expected[question]

    await asyncio.gather(
        *map(stream, range(STREAMS)), *map(vanish, range(VANISHING)), *map(stall, range(STALLING))
    )
    return counts


def read_process(process):
    """CPU seconds of all threads so far, and memory in MiB."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_metrics(url, token):
    httpx = pytest.importorskip("httpx")
    headers = {"Authorization": f"Bearer {token}"}
    text = httpx.get(url.removesuffix("/v1") + "/metrics", headers=headers).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("oss_lab_"): float(value) for name, value in pairs}


def measure_engine(lab, questions):
    """Tokens per CPU second of a batch that rows join as others leave."""
    generation = Generation(lab, {})
    waiting = [generation.build_request(generation.build_chat(each)) for each in questions]
    batch, tokens, began = lab.new_batch(lab.choose_engine([])), 0, time.process_time()
    while waiting or batch.rows:
        free = ROWS - len(batch.rows)
        if free and waiting:
            batch.add(waiting[:free])
            del waiting[:free]
        tokens += len(batch.step())
    return tokens / (time.process_time() - began)


def test_no_answer_is_lost_or_mixed(nano, start_server, tmp_path, capsys):
    seconds = float(os.environ.get("OSS_LAB_LOAD_SECONDS", "10"))
    questions = write_questions()
    replies = nano.chat_batch(questions)
    first_alone = measure_engine(nano, 2 * questions)
    expected = {each: reply.final for each, reply in zip(questions, replies, strict=True)}
    process, url, token = start_server(tmp_path / "responses.sqlite3")
    try:
        asyncio.run(run_clients(url, token, expected, seconds=1))
        before, memory = read_process(process)
        first, start = read_metrics(url, token), time.monotonic()
        counts = asyncio.run(run_clients(url, token, expected, seconds))
        wall = time.monotonic() - start
        after, grown = read_process(process)
        metrics = read_metrics(url, token)
    finally:
        process.terminate()
        process.wait(timeout=30)
    tokens, steps = (
        metrics[name] - first[name] for name in ("generated_tokens_total", "steps_total")
    )
    alone = (first_alone + measure_engine(nano, 2 * questions)) / 2
    share = tokens / (after - before) / alone
    with capsys.disabled():
        print(
            f"\n{counts['answers']} answers, {counts['vanished']} clients vanished; {tokens:.0f}"
            f" tokens in {wall:.1f} s and {after - before:.1f} CPU seconds: {share:.2f} of the"
            f" engine's {alone:.0f} tokens per CPU second; {tokens / steps:.1f} rows per step;"
            f" memory {memory:.0f} to {grown:.0f} MiB"
        )
    assert counts["answers"] >= STREAMS
    assert counts["vanished"] >= VANISHING
    assert (metrics["replies_running"], metrics["replies_waiting"]) == (0, 0)
    assert grown - memory < GROWTH
    assert share > 0.5
