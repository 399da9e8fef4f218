"""What the exercises of 17_finetune ask for is what the finetune package computes."""

import pytest
import torch

from oss_lab.config import GPT_OSS_NANO
from oss_lab.course.labs.examples import make_example
from oss_lab.course.sheets.s17_finetune import my_learned, my_low_rank, my_places
from oss_lab.finetune.examples import Example, read_examples
from oss_lab.finetune.lora import LowRank
from oss_lab.finetune.packing import collate
from oss_lab.finetune.recipe import make_recipe
from oss_lab.harmony import render
from oss_lab.nano.suite import SUITE
from oss_lab.tokenizer import load_vocabulary


def test_the_low_rank_product() -> None:
    x, weight = torch.randn(5, 7), torch.randn(4, 7)
    up, down = torch.randn(4, 3), torch.randn(3, 7)
    wanted = x @ weight.T + LowRank(up, down, 16 / 3)(x)
    torch.testing.assert_close(my_low_rank(x, weight, down, up, 16), wanted.detach())


@pytest.mark.parametrize("channels", [("analysis", "commentary", "final"), ("final",)])
@pytest.mark.parametrize("roles", [("assistant",), ("user", "assistant"), ("tool",)])
def test_the_loss_mask(channels, roles) -> None:
    encoding = load_vocabulary("nano")
    recipe = make_recipe(GPT_OSS_NANO, roles=roles, channels=channels, length=512)
    (problem,) = SUITE["tool sum, 2 calls"].draw_problems("tool", 1, 0)
    conversation = problem.conversation("high")
    rendered = render(conversation, encoding, mode="training")
    messages = conversation.messages
    notes = [
        (note.message, messages[note.message].role, messages[note.message].channel, note.field)
        for note in rendered.annotations
    ]
    [example] = read_examples([make_example(problem, "high")], encoding, recipe, "low")
    assert rendered.tokens == example.tokens
    assert my_learned(notes, roles, channels) == example.learned


def test_the_places_of_a_packed_row() -> None:
    row = [Example([1] * (n + 1), [True] * (n + 1)) for n in (4, 2, 3)]
    batch = collate([row, [Example([1] * 13, [True] * 13)]])
    positions, starts = my_places([4, 2, 3], 12)
    assert batch.positions[0].tolist() == positions
    firsts = {n: batch.examples[0].tolist().index(n) for n in range(3)} | {-1: 12}
    assert [firsts[n] for n in batch.examples[0].tolist()] == starts
