"""The scheduler and what it delivers: one row's error ends that row only, and limits hold."""

import asyncio
import time
from typing import Any

import pytest
import torch

from oss_lab.engine import batch
from oss_lab.engine.batch import Batch, RowError
from oss_lab.engine.next_token import choose_tokens
from oss_lab.errors import LabError
from oss_lab.harmony import Delta, End, Message, Start
from oss_lab.harmony.messages import Author
from oss_lab.lab.generation import Generation
from oss_lab.server.errors import ApiError
from oss_lab.server.job import Job, read_updates
from oss_lab.server.pieces import Added, Closed, Opened, Pieces
from oss_lab.server.scheduler import Scheduler
from oss_lab.server.settings import Limits

QUESTION = "What is 3 * 4?"


def run(lab, work, limits=None) -> Any:
    """Run `work(scheduler)` in an event loop, and end the scheduler."""

    async def main():
        scheduler = Scheduler(lab, limits or Limits(), asyncio.get_running_loop())
        try:
            return await work(scheduler)
        finally:
            await asyncio.to_thread(scheduler.close)

    return asyncio.run(main())


def make_job(lab, question=QUESTION, seconds=60.0, inbox=None, **options):
    given: Any = {"effort": "low", **options}
    return Job(Generation(lab, given), question, inbox or asyncio.Event(), seconds=seconds)


async def finish(job) -> Any:
    """The reply of a job that was submitted."""
    updates = [each async for _, found in read_updates([job], job._inbox) for each in found]
    return updates[-1].reply


def test_rows_that_join_at_any_time_have_the_replies_of_the_lab(nano):
    questions = [f"What is {a} * {b}?" for a in (3, 12, 47) for b in (2, 6, 9)]

    async def work(scheduler):
        async def ask(n, question):
            await asyncio.sleep(0.01 * n)
            job = make_job(nano, question, effort="medium")
            scheduler.submit([job])
            return await finish(job)

        return await asyncio.gather(*(ask(n, each) for n, each in enumerate(questions)))

    found = run(nano, work, Limits(rows=4))
    expected = nano.chat_batch(questions, effort="medium")
    assert [reply.text for reply in found] == [reply.text for reply in expected]


@pytest.mark.parametrize("patience", [60, 0])
def test_free_rows_wait_for_others_while_more_prompts_wait(nano, monkeypatch, patience):
    """Two of 16 rows are an eighth. Without patience, some prompts are read alone."""
    add, sizes = Batch.add, []

    def count(self, requests, cache=None):
        sizes.append(len(requests))
        return add(self, requests, cache)

    monkeypatch.setattr(Batch, "add", count)
    monkeypatch.setattr("oss_lab.server.scheduler.PATIENCE", patience)
    questions = [f"What is {a} * {b}?" for a in (3, 12, 47, 128, 734) for b in (2, 6, 9, 38, 741)]

    async def work(scheduler):
        jobs = [make_job(nano, question) for question in questions]
        scheduler.submit(jobs)
        return await asyncio.gather(*map(finish, jobs))

    replies = run(nano, work, Limits(rows=16))
    assert all(reply.final for reply in replies)
    assert sum(sizes) == len(questions)
    assert (1 in sizes[:-1]) == (patience == 0), sizes


def test_an_error_of_one_row_ends_that_row_only(nano, monkeypatch):
    """The third token of one reply cannot be chosen; another reply's parser fails."""

    def choose(rows, logits, *rest):
        logits = logits.clone()
        for n, row in enumerate(rows):
            if row.number == 1 and len(row.tokens) == 2:
                logits[n] = torch.nan
        return choose_tokens(rows, logits, *rest)

    monkeypatch.setattr(batch, "choose_tokens", choose)

    async def work(scheduler):
        jobs = [make_job(nano) for _ in range(4)]

        def fail(token):
            raise ZeroDivisionError

        jobs[3].builder.add = fail
        scheduler.submit(jobs)
        return await asyncio.gather(*map(finish, jobs), return_exceptions=True)

    good, faulty, also_good, broken = run(nano, work)
    assert good.final == also_good.final == "12"
    assert isinstance(faulty, RowError)
    assert "NaN" in str(faulty)
    assert isinstance(broken, ZeroDivisionError)


def test_a_forward_pass_that_fails_ends_the_newest_row(nano, monkeypatch):
    """The step is repeated without it, from the same state."""

    async def work(scheduler):
        jobs = [make_job(nano) for _ in range(3)]
        engine = scheduler._chosen.engine
        forward = type(engine).forward

        def fail(self, tokens, *args, **options):
            if tokens.shape == (3, 1):
                raise MemoryError("no room")
            return forward(self, tokens, *args, **options)

        monkeypatch.setattr(type(engine), "forward", fail)
        scheduler.submit(jobs)
        return await asyncio.gather(*map(finish, jobs), return_exceptions=True)

    first, second, third = run(nano, work)
    assert (first.final, second.final) == ("12", "12")
    assert isinstance(third, MemoryError)


def test_a_prompt_that_fails_does_not_end_those_that_join_with_it(nano, monkeypatch):
    add = Batch.add

    def fail(self, requests, cache=None):
        if any(request.alternatives == 3 for request in requests):
            raise LabError("this prompt fails")
        return add(self, requests, cache)

    monkeypatch.setattr(Batch, "add", fail)

    async def work(scheduler):
        jobs = [make_job(nano, alternatives=n) for n in (0, 3, 1)]
        scheduler.submit(jobs)
        return await asyncio.gather(*map(finish, jobs), return_exceptions=True)

    first, failed, last = run(nano, work)
    assert (first.final, last.final) == ("12", "12")
    assert str(failed) == "this prompt fails"


def test_the_queue_is_bounded_and_takes_all_of_a_request_or_nothing(nano):
    async def work(scheduler):
        jobs = [make_job(nano, effort="high") for _ in range(6)]
        with pytest.raises(ApiError, match="the server is busy") as caught:
            scheduler.submit(jobs)
        assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "1"})
        assert scheduler.waiting == 0
        scheduler.submit(jobs[:5])
        with pytest.raises(ApiError, match="the server is busy"):
            scheduler.submit(jobs[5:])
        replies = await asyncio.gather(*map(finish, jobs[:5]))
        scheduler.submit(jobs[5:])
        return [*replies, await finish(jobs[5])]

    assert {reply.final for reply in run(nano, work, Limits(rows=2, waiting=3))} == {"12"}


def test_time_and_cancellation_end_a_reply_with_what_it_has(slow_nano):
    async def work(scheduler):
        question = "What is 347 * 628?"
        late, cancelled, waits = [
            make_job(slow_nano, question, effort="high", seconds=seconds)
            for seconds in (0.5, 60, 0.2)
        ]
        scheduler.submit([late, cancelled, waits])
        started = time.monotonic()
        await asyncio.sleep(0.3)
        scheduler.cancel(cancelled)
        replies = await asyncio.gather(*map(finish, (late, cancelled, waits)))
        assert time.monotonic() - started < 30
        return [(job.ended_by, reply) for job, reply in
                zip((late, cancelled, waits), replies, strict=True)]  # fmt: skip

    found = run(slow_nano, work, Limits(rows=2))
    assert [ended_by for ended_by, _ in found] == ["time", "cancelled", "time"]
    for _, reply in found[:2]:
        assert reply.stop == "length"
        assert reply.tokens
    assert found[2][1].tokens == ()  # it never left the queue


def test_closing_ends_all_jobs(slow_nano):
    async def work(scheduler):
        jobs = [make_job(slow_nano, "What is 347 * 628?", effort="high") for _ in range(3)]
        scheduler.submit(jobs)
        await asyncio.to_thread(scheduler.close)
        with pytest.raises(ApiError, match="shutting down"):
            scheduler.submit([make_job(slow_nano)])
        await asyncio.gather(*map(finish, jobs))
        return [job.ended_by for job in jobs]

    assert run(slow_nano, work, Limits(rows=2)) == ["cancelled"] * 3


def feed(pieces, *parts, channel: str | None = "final", recipient=None, finished=True) -> list[Any]:
    """The pieces of one message whose text arrives in these parts."""
    author = Author("assistant")
    found = pieces.read([Start(author, channel, recipient, None, (0, 3))])
    for n, part in enumerate(parts, 3):
        found += pieces.read([Delta(part, channel, recipient, (n, n + 1))])
    end = 3 + len(parts)
    message = Message.of("assistant", "".join(parts), channel=channel, recipient=recipient)
    return found + pieces.read([End(message, None, (0, end))], is_complete=finished)


@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        (("a", "b", "c"), ["a", "b", "c"]),
        (("a", "st", "op", "c"), ["a"]),
        (("a", "st", "ay"), ["a", "stay"]),
        (("a st", "opstop"), ["a "]),
        (("sto", "stop"), ["sto"]),
        (("xstop and more",), ["x"]),
        (("s",), ["s"]),
        ((), []),
    ],
)
def test_text_is_held_back_until_it_cannot_be_a_stop_string(parts, texts):
    opened, *added, closed = feed(Pieces(["stop"]), *parts)
    assert opened == Opened("text", "final_answer")
    assert [piece.text for piece in added] == texts
    assert closed == Closed("".join(texts), True)
    assert all(isinstance(piece, Added) for piece in added)


def test_text_that_is_delivered_together_is_one_piece_per_message():
    """The piece has the tokens of its text, for their log-probabilities."""

    def write(first, *parts):
        end = first + 1 + len(parts)
        message = Message.of("assistant", "".join(parts), channel="final")
        return [
            Start(Author("assistant"), "final", None, None, (first, first + 1)),
            *(Delta(part, "final", None, (n, n + 1)) for n, part in enumerate(parts, first + 1)),
            End(message, None, (first, end)),
        ]

    assert Pieces(["stop"]).read([*write(0, "a", "b"), *write(4, "c", "st", "op")]) == [
        Opened("text", "final_answer"), Added("ab", (1, 3)), Closed("ab", True),
        Opened("text", "final_answer"), Added("c", (5, 6)), Closed("c", True),
    ]  # fmt: skip


@pytest.mark.parametrize("parts", ["a b< c", "a < b", "a < < > b", "a< >b", "< a <", "a b< c< d"])
def test_each_token_is_passed_on_once_however_tokens_are_delivered(parts):
    """A client sums the log-probabilities of the tokens that it gets."""
    parts = parts.split()
    events = [
        Start(Author("assistant"), "final", None, None, (0, 1)),
        *(Delta(part, "final", None, (n, n + 1)) for n, part in enumerate(parts, 1)),
        End(Message.of("assistant", "".join(parts), channel="final"), None, (0, len(parts) + 2)),
    ]

    def deliver(size):
        pieces, found = Pieces(["<>"]), []
        for n in range(0, len(events), size):
            found += pieces.read(events[n : n + size])
        added = [each for each in found if isinstance(each, Added)]
        tokens = [token for each in added for token in range(*each.tokens)]
        assert sorted(set(tokens)) == tokens
        assert not tokens or tokens[-1] <= len(parts)  # without the stop token
        return "".join(each.text for each in added), tokens, found[-1]

    assert len({repr(deliver(size)) for size in (1, 2, 3, 4, len(events))}) == 1


def test_messages_become_items_by_channel_and_recipient():
    """An empty message is an item too. Stop strings apply to the answer only."""
    pieces = Pieces(["a"])
    assert feed(pieces, "a", channel="analysis") == [
        Opened("reasoning"), Added("a", (3, 4)), Closed("a", True),
    ]  # fmt: skip
    assert feed(pieces, channel="commentary") == [Opened("text", "commentary"), Closed("", True)]
    call = feed(pieces, "{}", channel="commentary", recipient="functions.f", finished=False)
    assert call == [Opened("call", name="f"), Added("{}", (3, 4)), Closed("{}", False)]
    assert feed(pieces, channel=None) == [Opened("text", "final_answer"), Closed("", True)]
    assert pieces.reasoning_tokens == 4
