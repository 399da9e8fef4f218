"""What the exercises of 13_train ask for is what the training code computes."""

from random import Random

import torch
import torch.nn.functional as F

from oss_lab.course.sheets.s13_train import my_balance_loss, my_loss, my_thoughts
from oss_lab.nano.tasks.mix import SMALL_TASKS
from oss_lab.nano.training.balance import RouterRecorder


def test_the_thoughts_are_those_of_two_digit_differences():
    rng, task = Random(0), SMALL_TASKS["two-digit differences"]
    problems = [task.draw(rng, "train") for _ in range(50)]
    pairs = [(problem, *map(int, (problem.expression or "").split("-"))) for problem in problems]
    at_least = [(problem, a, b) for problem, a, b in pairs if a >= b]
    assert len(at_least) > 20
    assert all(problem.thoughts["high"] == my_thoughts(a, b) for problem, a, b in at_least)


def test_the_loss_is_the_cross_entropy_of_the_learned_tokens():
    logits, ids = torch.randn(9, 7), torch.randint(7, (9,))
    learned = torch.arange(9) >= 4
    expected = F.cross_entropy(logits[3:-1], ids[4:])
    assert torch.allclose(my_loss(logits, ids, learned), expected)


def test_the_balance_loss_is_that_of_a_step():
    logits = torch.randn(1, 6, 8)
    chosen = logits.topk(2).indices
    recorder = RouterRecorder(layers=1)
    recorder("moe.router_logits", 0, logits)
    recorder("moe.expert_ids", 0, chosen)
    share = torch.bincount(chosen.flatten(), minlength=8)[None] / chosen.numel()
    expected, _ = recorder.compute_loss([torch.ones(1, 6, dtype=torch.bool)], share)
    assert torch.allclose(my_balance_loss(chosen[0], logits[0].softmax(-1)), expected)
