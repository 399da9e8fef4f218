"""What nano is taught: true arithmetic, held-out pairs kept out, batches, and its vocabulary."""

import re
from collections import Counter
from random import Random

import pytest
import torch

from oss_lab.harmony.messages import EFFORTS
from oss_lab.tokenizer import load_vocabulary
from oss_lab.train.arithmetic import product_trace, sum_trace
from oss_lab.train.data import batch_at, conversation_of
from oss_lab.train.tasks import REFUSAL, OutOfReach, Products, Sums, is_held_out
from oss_lab.train.vocabulary import ASSET, MERGES, corpus_pieces, train_ranks


def groups(pattern, text):
    """What the whole of `text` holds at the groups of `pattern`; it must match."""
    match = re.fullmatch(pattern, text)
    assert match, text
    return match.groups()


NUMBER_PAIR = re.compile(r"(\d+) ?(\*|x|times|\+|plus) ?(\d+)")


def operands(question):
    match = NUMBER_PAIR.search(question)
    assert match, question
    a, sign, b = match.groups()
    return int(a), "*" if sign in ("*", "x", "times") else "+", int(b)


@pytest.mark.parametrize("task", [Products(), Sums(), Products(lengths=(2, 2)), Sums((3, 3))])
def test_no_held_out_pair_is_trained_on_in_either_order(task):
    rng = Random(0)
    keys = {}
    for split in ("train", "held_out"):
        drawn = [operands(task.draw(rng, split).question) for _ in range(3000)]
        keys[split] = {(sign, frozenset((a, b))) for a, sign, b in drawn}
        for a, sign, b in drawn:
            assert is_held_out(sign, max(a, b), min(a, b)) == (split == "held_out")
    assert len(keys["held_out"]) > 50
    assert not keys["train"] & keys["held_out"]


def test_one_pair_in_ten_is_held_out():
    share = sum(is_held_out("*", a, b) for a in range(100, 300) for b in range(10, 60)) / 10_000
    assert share == pytest.approx(0.1, abs=0.01)


STEP = re.compile(r"(\d)([*+])(\d)\+(\d)=(\d\d)")


def check_block(lines):
    """A heading `a*b` or `a+b`, its steps digit by digit, `=result`: returns the result."""
    a, sign, b = groups(r"(\d+)([*+])(\d+)", lines[0])
    whole = int(a) * int(b) if sign == "*" else int(a) + int(b)
    carry, written = 0, ""
    for line in lines[1:-1]:
        x, operation, y, carried, result = groups(STEP, line)
        value = int(x) * int(y) if operation == "*" else int(x) + int(y)
        assert operation == sign
        assert int(carried) == carry
        assert int(result) == value + carry
        carry, written = int(result[0]), result[1] + written
    digit = b.rstrip("0") or "0"
    zeros = len(b) - len(digit) if sign == "*" else 0
    assert int(f"{carry}{written}") * 10**zeros == whole
    assert lines[-1] == f"={whole}"
    return whole


def blocks(trace):
    """The blocks of a trace at high effort, each ending with `=result`."""
    found, block = [], []
    for line in trace.splitlines():
        block.append(line)
        if line.startswith("="):
            found.append(block)
            block = []
    assert not block
    return found


def test_every_line_of_a_product_is_right():
    rng = Random(1)
    for _ in range(3000):
        a, b = rng.randrange(10 ** rng.randint(1, 3)), rng.randrange(10 ** rng.randint(1, 2))
        assert check_block(blocks(product_trace(a, b, "high"))[-1]) == a * b
        for block in blocks(product_trace(a, b, "high")):
            check_block(block)
        *partial, last = product_trace(a, b, "medium").splitlines()
        for line in (*partial, last):
            left, right = line.split("=")
            x, sign, y = groups(r"(\d+)([*+])(\d+)", left)
            assert int(right) == (int(x) * int(y) if sign == "*" else int(x) + int(y))
        assert int(last.split("=")[1]) == a * b
        assert product_trace(a, b, "low") == ""


def test_every_line_of_a_sum_is_right():
    rng = Random(2)
    for _ in range(3000):
        a, b = (rng.randrange(10 ** rng.randint(1, 4)) for _ in range(2))
        ((block),) = blocks(sum_trace(a, b, "high"))
        assert check_block(block) == a + b
        digits = sum_trace(a, b, "medium").partition("right: ")[2].split()
        assert int("".join(reversed(digits))) == a + b
        assert sum_trace(a, b, "low") == ""


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_problems_answer_their_own_question(split):
    rng = Random(3)
    for task in (Products(), Sums()):
        for _ in range(500):
            problem = task.draw(rng, split)
            a, sign, b = operands(problem.question)
            assert int(problem.answer) == (a * b if sign == "*" else a + b)
            assert problem.thoughts["low"] == ""
            for effort in ("medium", "high"):
                assert problem.thoughts[effort]
    for _ in range(500):
        assert OutOfReach().draw(rng, split).answer == REFUSAL


def test_questions_out_of_reach_are_out_of_reach():
    rng = Random(4)
    for split in ("train", "held_out"):
        for _ in range(3000):
            question = OutOfReach().draw(rng, split).question
            pair = re.fullmatch(r"(?:What is )?(\d+) [*+] (\d+)\??", question)
            if pair:
                short, long = sorted(len(number) for number in pair.groups())
                products_reach = short <= 2 and long <= 3
                sums_reach = long <= 4
                assert not (products_reach if "*" in question else sums_reach), question


def test_a_batch_follows_from_its_seed_and_step():
    encoding = load_vocabulary("nano")
    batch = batch_at(3, 0, 600, encoding)
    again, other = batch_at(3, 0, 600, encoding), batch_at(4, 0, 600, encoding)
    assert torch.equal(batch.inputs, again.inputs)
    assert batch.inputs.shape != other.inputs.shape or not torch.equal(batch.inputs, other.inputs)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    for row, learnt in zip(batch.targets, batch.learnt, strict=True):
        text = encoding.decode(row[learnt].tolist())
        assert text.startswith("<|channel|>")
        assert text.endswith("<|return|>")
        assert "user" not in text


# The vocabulary


def test_merges_are_the_commonest_pairs():
    ranks = train_ranks(Counter({"aab": 3, "ab": 2, "cd": 4}), 3)
    assert list(ranks)[256:] == [b"ab", b"cd", b"aab"]
    assert sorted(ranks.values()) == list(range(259))


def test_equal_counts_are_decided_by_the_bytes():
    for words in (["xy", "ab"], ["ab", "xy"]):
        assert list(train_ranks(Counter(words), 1))[256:] == [b"xy"]


def test_digits_are_never_merged_and_the_rest_is_short():
    encoding = load_vocabulary("nano")
    assert len(encoding.encode_ordinary("1234567890")) == 10
    assert len(encoding.encode_ordinary(REFUSAL)) < len(REFUSAL) / 3
    for text in ("你好 🙂", "\x00\xff", "a" * 50):
        assert encoding.decode(encoding.encode_ordinary(text)) == text


def test_the_corpus_has_no_special_tokens_and_repeats():
    pieces = corpus_pieces(seed=0, problems=50)
    assert pieces == corpus_pieces(seed=0, problems=50)
    assert not any("<|" in piece for piece in pieces)
    conversation = conversation_of(Products().draw(Random(0), "train"), EFFORTS[2], Random(0))
    assert conversation.messages[-1].channel == "final"


def test_the_shipped_vocabulary_has_every_rank():
    assert len(ASSET.read_bytes().splitlines()) == 256 + MERGES
