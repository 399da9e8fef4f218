"""gpt-oss in one file: the same ids and logits as the library, in plain Python."""

import ast
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import oss_lab
from oss_lab import one_file
from oss_lab.nano.gallery import GALLERY

LONGEST = 300  # lines of the file


@pytest.fixture(scope="module")
def lab():
    return oss_lab.load("nano", device="cpu", kernels="reference", verbose=False)


@pytest.fixture(scope="module")
def tokenizer() -> one_file.Tokenizer:
    return one_file.Tokenizer(one_file.NANO / "nano.tiktoken")


def test_it_is_short_and_needs_the_standard_library_only() -> None:
    text = Path(one_file.__file__).read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize("seed", range(20))
def test_text_has_the_librarys_ids(lab, tokenizer, seed: int) -> None:
    letters = "aZé漢ß' \n\t\r0٣½.,-😀’\u0301\u00a0\u2028" + "'s'LL't"
    text = "".join(random.Random(seed).choices(letters, k=200))
    assert tokenizer.encode(text) == lab.tokenizer.encode_ordinary(text)


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_prompts_have_the_librarys_ids(lab, tokenizer, effort) -> None:
    for question in (example.question for example in GALLERY):
        ids = one_file.render(tokenizer, question, effort)
        assert ids == lab.tokens_of(question, effort=effort)


def compare_logits(lab, length: int, seed: int) -> float:
    """Largest difference between the logits of random tokens, at every position."""
    ids = random.Random(seed).choices(range(600), k=length)
    model = one_file.Model(one_file.NANO)
    found = torch.tensor([model.read(id) for id in ids])
    return (found - lab.logits(ids)).abs().max().item()


def test_logits_of_a_short_sequence(lab) -> None:
    """Longer than the window of 32 tokens."""
    assert compare_logits(lab, 40, seed=0) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("length", [129, 300, 600])
def test_logits_past_the_initial_context(lab, length: int) -> None:
    assert compare_logits(lab, length, seed=length) < 1e-3


@pytest.mark.slow
def test_it_answers_as_a_program(lab) -> None:
    command = [sys.executable, "-S", one_file.__file__, "What is 34 * 6?", "--effort", "medium"]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300
    ).stdout
    reply = lab.chat("What is 34 * 6?", effort="medium")
    assert printed.rstrip("\n") == lab.tokenizer.decode(list(reply.ids))
