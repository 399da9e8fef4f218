"""Reinforcement: the gradient of the advantage, the baseline, and a reward that is learned."""

from typing import Any

import pytest
import torch

import oss_lab
from oss_lab.errors import LabError
from oss_lab.finetune import load_adapted
from oss_lab.finetune.loss import sum_nats
from oss_lab.finetune.policy import Policy, leave_one_out
from oss_lab.finetune.recipe import make_recipe


@pytest.fixture(scope="module")
def lab():
    return oss_lab.load("nano", verbose=False)


def test_the_weighted_loss_has_the_gradient_of_weighted_log_probabilities(lab) -> None:
    hidden = torch.randn(2, 5, lab.config.hidden_size, requires_grad=True)
    targets, weights = torch.randint(0, 640, (2, 5)), torch.randn(2, 5)
    weights[0, 1] = 0
    loss = sum_nats(hidden, lab.model.unembedding, targets, weights)
    [ours] = torch.autograd.grad(loss, hidden)
    log_p = lab.model.unembedding(hidden).log_softmax(-1)
    wanted = -(log_p.gather(-1, targets[..., None])[..., 0] * weights).sum()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours, torch.autograd.grad(wanted, hidden)[0], rtol=1e-4, atol=1e-5)


def test_a_reply_is_compared_with_the_others_of_its_prompt() -> None:
    assert leave_one_out([1.0, 0.0, 0.0]) == [1.0, -0.5, -0.5]
    assert leave_one_out([0.3, 0.3]) == [0.0, 0.0]


def test_a_rewarded_reply_becomes_likelier(lab, tmp_path) -> None:
    """At low effort nano guesses the middle digits; the reward is for an even one."""
    policy = Policy(lab, make_recipe(lab.config, learning_rate=1e-2), name="nano")
    prompts = [lab.conversation("What is 347 * 62?", effort="low")] * 4

    def is_even(n, reply):
        return float((reply.final or "1111")[2:3] in set("02468"))

    def share() -> float:
        replies = policy.lab.chat_batch(prompts * 8, temperature=1.0, seed=1, max_tokens=12)
        return sum(is_even(0, each) for each in replies) / len(replies)

    before, frozen = share(), lab.model.unembedding.weight.clone()
    steps = [policy.step(prompts, is_even, samples=8, max_tokens=12) for _ in range(12)]
    assert [len(group) for group in steps[0].replies] == [8] * 4
    after = share()
    assert after > before + 0.3, (before, after)
    torch.testing.assert_close(lab.model.unembedding.weight, frozen, rtol=0, atol=0)
    policy.save(tmp_path)
    again = load_adapted("nano", tmp_path)
    ids = torch.tensor([steps[0].replies[0][0].prompt_tokens])
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids), policy.lab.model(ids), rtol=0, atol=1e-5)


def test_one_reply_has_nothing_to_be_compared_with(lab) -> None:
    policy = Policy(lab, make_recipe(lab.config), name="nano")
    with pytest.raises(LabError, match="samples is 1"):
        policy.step([lab.conversation("2+2?")], lambda n, reply: 1.0, samples=1)


def test_training_continues_from_a_folder_with_the_parts_of_the_recipe(lab, tmp_path) -> None:
    settings: dict[str, Any] = {"targets": "attention", "rank": 4, "alpha": 8.0}
    recipe = make_recipe(lab.config, **settings)
    Policy(lab, recipe, name="nano").save(tmp_path)
    Policy(lab, recipe, name="nano", start=tmp_path)
    others: tuple[dict[str, Any], ...] = ({"rank": 2}, {"alpha": 16.0}, {"targets": "all"})
    for other in others:
        changed = make_recipe(lab.config, **(settings | other))
        with pytest.raises(LabError, match="another rank, alpha or other targets"):
            Policy(lab, changed, name="nano", start=tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text("utf-8").replace('"nano"', '"openai/gpt-oss-20b"'), "utf-8")
    with pytest.warns(UserWarning, match="20b"):
        Policy(lab, recipe, name="nano", start=tmp_path)


def test_without_a_prompt_there_is_no_step(lab) -> None:
    policy = Policy(lab, make_recipe(lab.config), name="nano")
    with pytest.raises(LabError, match="no prompts"):
        policy.step([], lambda n, reply: 1.0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None, "1", "much"])
def test_a_reward_that_is_no_number_changes_nothing(lab, wrong) -> None:
    policy = Policy(lab, make_recipe(lab.config, targets="attention"), name="nano")
    before = [each.detach().clone() for each in policy.trainee.parameters]
    rewards = iter([1.0, wrong])
    with pytest.raises(LabError, match=f"prompt 0 is {wrong!r}"):
        policy.step(
            [lab.conversation("2+2?")], lambda n, reply: next(rewards), samples=2, max_tokens=2
        )
    assert policy.steps == 0
    for each, other in zip(policy.trainee.parameters, before, strict=True):
        assert torch.equal(each, other)
