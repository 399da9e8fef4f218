"""Reach: routes against enumeration, and against the effect of a changed token on the logits."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from oss_lab.analysis.reach import earliest_positions, find_routes, influence, layer_reach
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.lab import Lab

WINDOW = 8
SLIDING, FULL = "sliding_attention", "full_attention"


def with_layers(config, kinds, window=WINDOW):
    types = tuple(SLIDING if kind == "s" else FULL for kind in kinds)
    return replace(
        config, num_hidden_layers=len(kinds), layer_types=types, sliding_window=window,
        vocab_size=288,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    """`lab("sfs")`: a random model with these kinds of layers."""
    made = {}

    def make(kinds):
        if kinds not in made:
            made[kinds] = Lab(random_model(with_layers(tiny_config, kinds)), tiny, GREEDY)
        return made[kinds]

    return make


def enumerate_routes(reach, distance):
    """All sets of layers whose hops, each of at least one position, can add up to the distance."""
    found = []
    for count in range(len(reach) + 1):
        for chosen in combinations(range(len(reach)), count):
            sums = {0}
            for layer in chosen:
                far = distance if reach[layer] is None else reach[layer]
                sums = {s + hop for s in sums for hop in range(1, far + 1) if s + hop <= distance}
            if distance in sums:
                found.append(chosen)
    return found


@pytest.mark.parametrize("kinds", ["s", "f", "ss", "sf", "sfsf", "ssss", "ffs"])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_routes_match_enumeration(tiny_config, kinds, window):
    config = with_layers(tiny_config, kinds, window)
    for cut in ((), (1,), tuple(range(len(kinds)))):
        if cut and cut[-1] >= len(kinds):
            continue
        reach = [window - 1 if k == "s" or n in cut else None for n, k in enumerate(kinds)]
        assert list(layer_reach(config, cut)) == reach
        for distance in range(14):
            sets = enumerate_routes(reach, distance)
            found = find_routes(config, 20 - distance, 20, cut)
            assert found.layer_sets == len(sets)
            if not sets:
                assert (found.hops, found.carriers) == (None, ())
                continue
            shortest = [each for each in sets if len(each) == len(sets[0])]
            assert found.hops == len(sets[0])
            hops = tuple(tuple(sorted(set(layers))) for layers in zip(*shortest, strict=True))
            assert found.carriers == hops


def test_the_earliest_position_is_the_first_with_a_route(tiny_config):
    for kinds in ("sfs", "sss"):
        config = with_layers(tiny_config, kinds)
        for cut in ((), (1,)):
            for target in (0, 7, 8, 21, 22, 40):
                found = earliest_positions(config, target, cut)
                for layer in range(3):
                    shorter = with_layers(tiny_config, kinds[: layer + 1])
                    inside = [n for n in cut if n <= layer]
                    reached = [
                        source
                        for source in range(target + 1)
                        if find_routes(shorter, source, target, inside).hops is not None
                    ]
                    assert reached == list(range(found[layer], target + 1))


def test_the_published_models_need_a_full_layer_beyond_their_windows():
    config = GPT_OSS_20B
    full = tuple(range(1, 24, 2))
    assert find_routes(config, 0, 127).carriers == (tuple(range(24)),)
    assert find_routes(config, 0, 128).carriers == (full,)
    assert find_routes(config, 0, 24 * 127, full).layer_sets == 1
    assert find_routes(config, 0, 24 * 127 + 1, full).hops is None
    assert earliest_positions(config, 1000)[0] == 1000 - 127
    assert earliest_positions(GPT_OSS_NANO, 300, cut=(1, 3)) == (269, 238, 207, 176)


@pytest.mark.parametrize("kinds", ["s", "ss", "sss"])
def test_nothing_reaches_further_than_the_sum_of_all_windows(lab, kinds):
    """Within a window, beyond one, and at the sum of the layers' windows."""
    model = lab(kinds)
    most = len(kinds) * (WINDOW - 1)
    for distance in sorted({1, WINDOW, most, most + 1}):
        found = influence(model, range(most + 10), 3, 3 + distance)
        assert found.reachable == (distance <= most)
        assert (found.largest > 0) == found.reachable
        assert (found.divergence > 0) == found.reachable


@pytest.mark.parametrize("kinds", ["sf", "fs", "sfs"])
def test_full_layers_carry_information_until_they_are_cut(lab, kinds):
    model, most = lab(kinds), len(kinds) * (WINDOW - 1)
    cut = [n for n, kind in enumerate(kinds) if kind == "f"]
    for distance in (most, most + 1):
        tokens = range(distance + 2)
        whole = influence(model, tokens, 0, distance)
        assert whole.reachable
        assert whole.largest > 0
        found = influence(model, tokens, 0, distance, cut=cut)
        assert found.reachable == (distance <= most)
        assert (found.largest > 0) == found.reachable
    assert torch.equal(model.logits(range(9)), lab(kinds).logits(range(9)))  # the cut has ended


def test_the_effect_is_the_difference_of_two_full_runs(lab):
    model = lab("sfs")
    tokens = list(range(40))
    found = influence(model, tokens, 11, 30, instead=200)
    other = [*tokens[:11], 200, *tokens[12:]]
    plain, changed = model.logits(tokens)[30], model.logits(other)[30]
    assert found.largest == pytest.approx(float((plain - changed).abs().max()), abs=1e-4)
    p, q = plain.double().log_softmax(-1), changed.double().log_softmax(-1)
    assert found.divergence == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-4)


def test_on_nano_the_cut_blocks_what_the_windows_cannot_carry(nano):
    tokens = [200 + n % 50 for n in range(4 * 31 + 2)]
    for target, reached in ((4 * 31, True), (4 * 31 + 1, False)):
        assert find_routes(nano.config, 0, target).hops == 1
        cut = influence(nano, tokens, 0, target, cut=(1, 3))
        assert cut.reachable == (cut.largest > 0) == reached


def test_mistakes_are_one_sentence(lab):
    model = lab("sf")
    tokens = range(20)
    for call, message in (
        (
            lambda: find_routes(model.config, 5, 4),
            "the source is 5; it must be from 0 to the target, 4",
        ),
        (lambda: find_routes(model.config, 0, 10**9), "position 1000000000 is out of range"),
        (lambda: earliest_positions(model.config, -1), "position -1 is out of range"),
        (lambda: find_routes(model.config, 0, 4, cut=(2,)), "layer 2 is out of range"),
        (lambda: influence(model, tokens, 0, 20), "the target is 20; the positions are 0 to 19"),
        (lambda: influence(model, tokens, 3, 5, instead=3), "position 3 already holds 3"),
        (lambda: influence(model, tokens, 3, 5, instead=999), "the other token has id 999"),
    ):
        with pytest.raises(LabError, match=message):
            call()
