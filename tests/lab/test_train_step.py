"""One training step: what is learned from a group, and the balance loss, against plain
computations."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from oss_lab.model import Recorder, Transformer
from oss_lab.nano.training.balance import RouterRecorder, busiest_load, even_share
from oss_lab.nano.training.data import RowGroup, draw_groups
from oss_lab.nano.training.initialize import initialize
from oss_lab.nano.training.quantized import RoundedExperts
from oss_lab.nano.training.step import compute_gradients
from oss_lab.tokenizer import load_vocabulary


@pytest.fixture(scope="module")
def model(small_nano):
    """Two layers; each token uses two of eight experts per layer."""
    config = replace(
        small_nano, num_hidden_layers=2, num_experts=8, experts_per_token=2, layer_types=()
    )
    made = Transformer(config, RoundedExperts)
    initialize(made, seed=0)
    return made


@pytest.fixture(scope="module")
def groups():
    """Six groups with padding and more tokens than a window."""
    return draw_groups(0, 0, 1500, load_vocabulary("nano"), "broad")


def add_padding(group: RowGroup, columns: int) -> RowGroup:
    """The same rows with more padding."""
    ids = {name: F.pad(getattr(group, name), (0, columns)) for name in ("inputs", "targets")}
    return replace(group, **ids, learned=F.pad(group.learned, (0, columns), value=False))


def full_rows(group: RowGroup):
    """(ids, targets, learned) of each row with its opening before it and without padding."""
    opening = group.opening[0]
    for row, length in enumerate(group.lengths.tolist()):
        yield (
            torch.cat((opening, group.inputs[row, :length])),
            group.targets[row, :length],
            group.learned[row, :length],
        )


def largest_difference(left, right):
    """The largest over all gradients, relative to the largest gradient of each parameter."""
    assert [g is None for g in left] == [g is None for g in right]
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a is not None]
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).item() for a, b in pairs)


def test_a_shared_opening_gives_the_same_as_full_rows(model, groups):
    """The loss and every gradient equal a plain forward pass over opening and row, row by row."""
    for group in groups[:3]:
        result = compute_gradients(model, group, even_share(model.config), 1.0, 0.0)
        nats = torch.zeros(())
        for ids, targets, learned in full_rows(group):
            logits = model(ids[None])[0, group.opening.shape[1] :]
            nats = nats + F.cross_entropy(logits[learned], targets[learned], reduction="sum")
        plain = torch.autograd.grad(nats, list(model.parameters()), allow_unused=True)
        assert result.tokens == int(group.learned.sum()) > 0
        assert result.nats == pytest.approx(nats.item(), rel=1e-5)
        assert largest_difference(result.gradients, plain) < 1e-5


def test_padding_changes_neither_loss_nor_gradients_nor_balance(model, groups):
    group = groups[0]
    assert int(group.lengths.min()) < group.inputs.shape[1]  # at least one row already has padding
    share = even_share(model.config)
    once, again = (
        compute_gradients(model, each, share, 0.01, 0.02) for each in (group, add_padding(group, 9))
    )
    assert again.nats == pytest.approx(once.nats, rel=1e-5)
    assert again.balance == pytest.approx(once.balance, rel=1e-5)
    torch.testing.assert_close(again.chosen, once.chosen)
    assert largest_difference(again.gradients, once.gradients) < 1e-5


def test_the_balance_loss_equals_one_worked_out_by_hand(model, groups):
    """The number of experts times the sum of running share times mean probability. Tokens of the
    opening count once; padding does not count."""
    group = groups[1]
    share = torch.rand(2, 8, generator=torch.Generator().manual_seed(1))
    share /= share.sum(-1, keepdim=True)
    result = compute_gradients(model, group, share, 0.0, 1.0)
    opening = group.opening.shape[1]
    probability, chosen, count = torch.zeros(2, 8), torch.zeros(2, 8), 0
    for row, (ids, _, _) in enumerate(full_rows(group)):
        watch = Recorder({"moe.router_logits", "moe.expert_ids"})
        model(ids[None], hooks=watch)
        skip = opening if row else 0
        logits = watch.stack("moe.router_logits")[:, skip:]
        picked = watch.stack("moe.expert_ids")[:, skip:]
        probability += logits.softmax(-1).sum(1)
        chosen += F.one_hot(picked.long(), 8).sum((1, 2))
        count += logits.shape[1]
    by_hand = 8 * (share * probability / count).sum(-1).mean()
    assert result.balance == pytest.approx(by_hand.item(), rel=1e-5)
    torch.testing.assert_close(result.chosen, chosen / (2 * count))


def test_an_even_share_has_a_balance_loss_of_one(model):
    logits = torch.zeros(1, 4, 8)
    watch = RouterRecorder(1)
    watch("moe.router_logits", 0, logits)
    watch("moe.expert_ids", 0, torch.arange(8).reshape(1, 4, 2))
    share = even_share(replace(model.config, num_hidden_layers=1, layer_types=()))
    loss, chosen = watch.compute_loss([torch.ones(1, 4, dtype=torch.bool)], share)
    assert (loss.item(), busiest_load(share), busiest_load(chosen)) == (1.0, 1.0, 1.0)


def test_only_what_follows_the_last_question_is_learned(groups):
    """In rows without a tool's output this is one stretch, from the channel to the end of the
    turn.
    """
    encoding = load_vocabulary("nano")
    for group in groups:
        for ids, targets, learned in full_rows(group):
            text = encoding.decode([*ids.tolist(), int(targets[-1])])
            if "<|start|>functions" not in text:
                turn = text[text.rindex("<|start|>user") :].split("<|end|><|start|>assistant", 1)[1]
                assert encoding.decode(targets[learned].tolist()) == turn
