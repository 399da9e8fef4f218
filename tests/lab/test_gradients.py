"""Gradients against differences of full runs, and integrated gradients against their total."""

from dataclasses import replace

import pytest
import torch
from oss_kernels.backends import choose_backend

from oss_lab.analysis.gradients import GRADIENT_POINTS, Target, gradient, integrated_gradients
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AddVector, Patch, ScaleHead, UseNextBest
from oss_lab.lab import Lab
from oss_lab.model import Recorder, Transformer
from oss_lab.model.experts import PackedExperts
from oss_lab.model.hook import in_layer

SEQ = 40  # five windows of the tiny model
TOKENS = list(range(SEQ))
TARGET = Target(SEQ - 2, 99)
NUDGE = 3e-3


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(tiny_config, vocab_size=288)


@pytest.fixture(scope="module")
def lab(random_model, config, tiny):
    return Lab(random_model(config), tiny, GREEDY)


@pytest.fixture(scope="module")
def all_experts(random_model, config, tiny):
    """A model that uses all experts: its router has no choice, so the output is continuous."""
    return Lab(random_model(replace(config, experts_per_token=config.num_experts)), tiny, GREEDY)


def run_target(lab, target, *changes, tokens=TOKENS):
    """The target's value in a full run with these changes."""
    with lab.intervene(*changes):
        row = lab.logits(tokens[: target.position + 1], last=1)[0].double()
    scores = row.log_softmax(-1) if target.of == "logprob" else row
    return float(scores[target.token] - (0 if target.against is None else scores[target.against]))


def slope(lab, target, point, layer, position, vector, *changes):
    """The central difference along a vector, from full runs."""
    here = {"point": point, "layer": layer, "positions": (position,), "vector": vector}
    up, down = (
        run_target(lab, target, *changes, AddVector(**here, by=by)) for by in (NUDGE, -NUDGE)
    )
    return (up - down) / (2 * NUDGE)


PLACES = [
    ("embed", None),
    *((name, 1) for name in GRADIENT_POINTS if name != "embed"),
    ("resid.mid", 0),
]
TARGETS = TARGET, Target(SEQ - 1, 7, 99, "logit")


@pytest.mark.parametrize(
    ("point", "layer", "target"),
    [(*place, TARGETS[n % 2]) for n, place in enumerate(PLACES)] + [("embed", None, TARGETS[1])],
)
def test_a_gradient_matches_finite_differences(lab, point, layer, target):
    found = gradient(lab, TOKENS, target, point, layer)
    assert found.output == pytest.approx(run_target(lab, target), abs=1e-5)
    assert found.gradient.shape == (target.position + 1, lab.config.hidden_size)
    kept = lab.trace(TOKENS, [point]).tensor(point, layer)[: target.position + 1]
    torch.testing.assert_close(found.values, kept, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.times_input, (found.gradient * found.values).sum(-1))
    generator = torch.Generator().manual_seed(0)
    for position in (0, 20, target.position):
        vector = torch.randn(lab.config.hidden_size, generator=generator)
        expected = slope(lab, target, point, layer, position, vector)
        actual = float(found.gradient[position] @ vector)
        assert actual == pytest.approx(expected, abs=2e-3, rel=2e-2)
    assert abs(expected) > 0.02


def test_the_last_residual_stream_has_its_gradient_in_closed_form(lab):
    found = gradient(lab, TOKENS, Target(30, 99, 7, "logit"), "resid.post", 1)
    x, norm = found.values[30].double(), lab.model.norm
    rows = lab.model.unembedding.weight.double()
    direction = (rows[99] - rows[7]) * norm.scale.double()
    length = (x.square().mean() + norm.eps).sqrt()
    expected = direction / length - x * (direction @ x) / (len(x) * length**3)
    torch.testing.assert_close(found.gradient[30].double(), expected, atol=1e-6, rtol=1e-4)
    assert not found.gradient[:30].any()


def test_gradients_pass_through_active_interventions(lab):
    vector = torch.randn(lab.config.hidden_size, generator=torch.Generator().manual_seed(1))
    changes = (ScaleHead(layer=1, head=2, by=3.0), UseNextBest(layer=0, slot=0, positions=(20, 38)))
    with lab.intervene(*changes) as effects:
        found = gradient(lab, TOKENS, TARGET)
    assert [effect.changed for effect in effects.each] == [1, 1]
    assert found.output == pytest.approx(run_target(lab, TARGET, *changes), abs=1e-5)
    for position in (20, 38):
        expected = slope(lab, TARGET, "embed", None, position, vector, *changes)
        actual = float(found.gradient[position] @ vector)
        assert actual == pytest.approx(expected, abs=2e-3, rel=2e-2)
        unchanged = gradient(lab, TOKENS, TARGET).gradient[position] @ vector
        assert actual != pytest.approx(float(unchanged), rel=0.05)


@pytest.mark.parametrize(("point", "layer"), [("embed", None), ("resid.mid", 0)])
def test_a_continuous_model_is_attributed_completely(all_experts, point, layer):
    target, gaps = Target(2 * all_experts.config.sliding_window, 99), []
    for steps in (4, 64):
        found = integrated_gradients(all_experts, TOKENS, target, point, layer, steps=steps)
        assert (found.steps, found.turns) == (steps, 0)
        gaps.append(abs(found.gap))
    assert gaps[1] < 1e-3 < gaps[0]
    assert found.output == pytest.approx(run_target(all_experts, target), abs=1e-5)
    place = {"point": point, "layer": layer, "positions": tuple(range(target.position + 1))}
    expected = run_target(all_experts, target, Patch(**place, values=found.baseline))
    assert found.baseline_output == pytest.approx(expected, abs=1e-4)
    difference = found.output - found.baseline_output
    assert float(found.attributions.sum()) == pytest.approx(difference, abs=1e-3)


def test_fixed_experts_make_any_model_continuous(lab):
    target = Target(2 * lab.config.sliding_window, 99)
    found = integrated_gradients(lab, TOKENS, target, steps=128, experts="held")
    assert (abs(found.gap) < 2e-3, found.turns) == (True, 0)
    positions = tuple(range(target.position + 1))
    chosen = lab.trace(TOKENS[: target.position + 1], ["moe.expert_ids"])
    held = [
        Patch(
            point="moe.expert_ids",
            layer=layer,
            positions=positions,
            values=chosen.tensor("moe.expert_ids", layer).long(),
        )
        for layer in range(2)
    ]
    start = Patch(point="embed", positions=positions, values=found.baseline)
    assert found.baseline_output == pytest.approx(run_target(lab, target, start, *held), abs=1e-4)
    assert abs(found.baseline_output - run_target(lab, target, start)) > 0.01
    mean = lab.model.embedding.weight.double().mean(0)
    torch.testing.assert_close(found.baseline[3].double(), mean, atol=1e-6, rtol=1e-5)


def test_the_gap_equals_the_jumps_where_the_router_changes_its_choice(lab):
    position, target = 11, Target(11, 99)
    found = integrated_gradients(lab, TOKENS, target, "resid.mid", 1, steps=200)
    values = lab.trace(TOKENS[: position + 1], ["resid.mid"]).tensor("resid.mid", 1)
    torch.testing.assert_close(found.baseline[0], values.mean(0), atol=1e-5, rtol=1e-5)
    # After the last attention layer only this token's own position on the line matters.
    t = torch.linspace(0, 1, 20001)[:, None]
    line = (found.baseline[position] + t * (values[position] - found.baseline[position]))[:, None]
    watch = Recorder({"moe.expert_ids"})
    last = line + lab.model.block[1].mlp(line, in_layer(watch, 1))
    logprobs = lab.model.unembedding(lab.model.norm(last))[:, 0].double().log_softmax(-1)
    outputs = logprobs[:, target.token]
    (experts,) = (seen[0][:, 0].sort(-1).values for seen in watch.seen.values())
    turned = (experts[1:] != experts[:-1]).any(-1)
    jumps = float((outputs[1:] - outputs[:-1])[turned].sum())
    assert abs(jumps) > 0.05
    assert found.gap == pytest.approx(-jumps, abs=0.01)
    assert found.turns >= int(turned.sum()) >= 1


def test_a_custom_baseline(all_experts):
    config = all_experts.config
    whole = gradient(all_experts, TOKENS, TARGET).values
    same = integrated_gradients(all_experts, TOKENS, TARGET, baseline=whole, steps=2)
    assert (same.output, same.gap) == (pytest.approx(same.baseline_output, abs=1e-5), 0)
    assert not same.attributions.any()
    zeros = torch.zeros(config.hidden_size)
    found = integrated_gradients(all_experts, TOKENS, TARGET, baseline=zeros, steps=2)
    assert not found.baseline.any()
    assert found.baseline.shape == whole.shape


def test_weights_stay_packed_and_cached_experts_are_reused(random_model, config, tiny):
    lab = Lab(random_model(config), tiny, GREEDY)
    before = {name: x.clone() for name, x in lab.model.state_dict().items()}
    fresh = gradient(lab, TOKENS, TARGET)
    again = Lab(random_model(config), tiny, GREEDY)
    again.logits(TOKENS)  # in inference mode, which fills the expert cache
    after = gradient(again, TOKENS, TARGET)
    assert torch.equal(fresh.gradient, after.gradient)
    with torch.inference_mode():
        inside = gradient(lab, TOKENS, TARGET)
    assert torch.equal(fresh.gradient, inside.gradient)
    banks = [module for module in lab.model.modules() if isinstance(module, PackedExperts)]
    assert {bank.blocks.dtype for bank in banks} == {torch.uint8}
    assert all(p.grad is None for p in lab.model.parameters())
    assert all(torch.equal(x, before[name]) for name, x in lab.model.state_dict().items())


def test_kernels_are_not_used(lab, config, tiny, random_model):
    pytest.importorskip("numba", reason="numba is not installed")
    kernels = choose_backend("cpu", torch.device("cpu"))
    fast = Lab(random_model(config), tiny, GREEDY, kernels=kernels)
    expected = gradient(lab, TOKENS, TARGET, "resid.post", 0)
    found = gradient(fast, TOKENS, TARGET, "resid.post", 0)
    assert torch.equal(found.gradient, expected.gradient)


def test_bfloat16_is_differentiated_in_bfloat16(lab, config, tiny, scaled_tensors):
    model = Transformer(config)
    model.load_state_dict(scaled_tensors(config, 0))
    coarse = Lab(model.to(torch.bfloat16).eval().requires_grad_(False), tiny, GREEDY)
    target = Target(5, 99)
    fine, rough = (gradient(each, TOKENS, target, "resid.post", 0) for each in (lab, coarse))
    assert rough.gradient.dtype == torch.float32
    assert rough.output == pytest.approx(fine.output, abs=0.3)
    assert torch.equal(rough.gradient, rough.gradient.bfloat16().float())
    likeness = torch.cosine_similarity(fine.gradient[5], rough.gradient[5], dim=0)
    assert float(likeness) > 0.9
    assert integrated_gradients(coarse, TOKENS, target, steps=2).attributions.isfinite().all()


def test_where_nano_is_certain_only_integrated_gradients_are_informative(nano):
    reply = nano.chat("What is 58 * 7?")
    tokens = [*reply.prompt_tokens, *reply.ids]
    position = len(tokens) - 1 - len("406") - 1  # after the header of the answer
    target = Target(position, tokens[position + 1])
    flat = gradient(nano, tokens, target, "resid.post", 2)
    assert flat.output == pytest.approx(reply.tokens[-4].logprob, abs=1e-4)
    assert flat.output > -1e-4
    assert float(flat.times_input.abs().max()) < 1e-2
    found = integrated_gradients(nano, tokens, target, "resid.post", 2, steps=32, experts="held")
    assert abs(found.gap) < 0.1 < 5 < float(found.attributions.sum())


def test_mistakes_are_one_sentence(lab):
    def go(target=TARGET, *args, **options):
        return lambda: integrated_gradients(lab, TOKENS, target, *args, **options)

    for call, message in (
        (
            go(Target(SEQ, 1)),
            f"position {SEQ} is out of range; the sequence has positions 0 to {SEQ - 1}",
        ),
        (go(Target(3, 288)), "the target has id 288"),
        (go(Target(3, 1, -1)), "the target has id -1"),
        (go(Target(3, 1, of="odds")), "of must be 'logprob' or 'logit', got 'odds'"),  # type: ignore[arg-type]
        (go(TARGET, "attn.q", 0), "cannot take a gradient at 'attn.q'; use one of embed, resid"),
        (go(TARGET, "out.norm"), "cannot take a gradient at 'out.norm'"),
        (go(TARGET, "resid.pre"), "the layer of resid.pre is None; it must be 0 to 1"),
        (go(TARGET, "resid.pre", 2), "the layer of resid.pre is 2"),
        (go(TARGET, "embed", 0), "the layer of embed is 0; it must be None"),
        (go(steps=0), "steps is 0"),
        (go(experts="frozen"), "experts must be 'free' or 'held', got 'frozen'"),
        (go(baseline=torch.zeros(3)), r"the baseline is \[3\]; it must be \[64\] or \[39, 64\]"),
        (lambda: gradient(lab, [], TARGET), "empty"),
    ):
        with pytest.raises(LabError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
