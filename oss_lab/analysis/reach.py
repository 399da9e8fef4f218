"""How far information can travel through attention windows, and how far it does in a model.

A layer moves information from a position to itself and to later positions that see its key: up to
`sliding_window` - 1 positions on a sliding layer, any distance on a full one. So the distances of
the layers add up. `find_routes` and `earliest_positions` need only the configuration. `influence`
changes the token at the source and checks whether the logits at the target change at all.

The embedding, the norms and the experts move nothing from one position to another.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import comb
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.forwards import build_cache, choose_engine, run_forward
from oss_lab.config import ModelConfig
from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.interventions import NarrowWindow

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt


@dataclass(frozen=True)
class Routes:
    """How information at one position can reach another.

    Attributes:
        hops: the fewest layers that must move it, each to a later position; 0 if source and
            target are equal, None if no route is long enough.
        carriers: for each of these hops, in order, the layers that could make it.
        layer_sets: how many sets of layers could move it, with one hop in each layer of the set
            and none in the others; includes sets with more than `hops` layers.
    """

    source: int
    target: int
    hops: int | None
    carriers: tuple[tuple[int, ...], ...]
    layer_sets: int


@check_arguments
def layer_reach(config: ModelConfig, cut: Collection[int] = ()) -> tuple[int | None, ...]:
    """How many positions forward each layer can move information; None is any number.

    Args:
        cut: layers limited to the window, whatever their type.

    Raises:
        LabError: a layer does not exist.
    """
    layers = config.num_hidden_layers
    for layer in cut:
        check_index("layer", layer, layers)
    windows = [config.sliding_window if n in cut else config.window(n) for n in range(layers)]
    return tuple(None if window is None else window - 1 for window in windows)


@check_arguments
def earliest_positions(
    config: ModelConfig, target: int, cut: Collection[int] = ()
) -> tuple[int, ...]:
    """After each layer, the first position that the residual stream at `target` can depend on.

    All positions from there to the target can reach it too.

    Raises:
        LabError: the position or a layer does not exist.
    """
    check_index("position", target, config.max_context_length, "the context")
    far = [target if step is None else step for step in layer_reach(config, cut)]
    return tuple(max(0, target - reach) for reach in accumulate(far))


@check_arguments
def find_routes(config: ModelConfig, source: int, target: int, cut: Collection[int] = ()) -> Routes:
    """Through which layers information at `source` could reach `target`.

    Args:
        cut: layers limited to the window, whatever their type.

    Raises:
        LabError: a position or layer does not exist, or the source is after the target.
    """
    check_index("position", target, config.max_context_length, "the context")
    if not 0 <= source <= target:
        raise LabError(f"the source is {source}; it must be from 0 to the target, {target}")
    distance, reach = target - source, layer_reach(config, cut)
    if distance == 0:
        return Routes(source, target, 0, (), 1)
    full = [n for n, step in enumerate(reach) if step is None]
    sliding = [n for n, step in enumerate(reach) if step]  # a window of one key moves nothing
    step = config.sliding_window - 1
    counted = count_layer_sets(len(full), len(sliding), step, distance)
    if sliding and distance <= step:
        return Routes(source, target, 1, (tuple(sorted(full + sliding)),), counted)
    if full:
        return Routes(source, target, 1, (tuple(full),), counted)
    hops = -(-distance // step) if sliding else len(reach) + 1
    if hops > len(sliding):
        return Routes(source, target, None, (), 0)
    spare = len(sliding) - hops
    carriers = tuple(tuple(sliding[hop : hop + spare + 1]) for hop in range(hops))
    return Routes(source, target, hops, carriers, counted)


def count_layer_sets(full: int, sliding: int, step: int, distance: int) -> int:
    """How many sets of layers can cover exactly `distance` positions.

    A sliding layer moves 1 to `step` positions, a full one 1 or more.
    """
    return sum(
        comb(full, m) * comb(sliding, k)
        for m in range(full + 1)
        for k in range(sliding + 1)
        if 0 < m + k <= distance and (m or k * step >= distance)
    )


@dataclass(frozen=True)
class Influence:
    """What another token at the source changes at the target.

    Attributes:
        instead: the token id that replaces the source's.
        reachable: whether there is a route.
        largest: largest change of a logit at the target; exactly 0 if nothing reaches it.
        divergence: Kullback-Leibler divergence of the changed prediction from the unchanged one,
            in nats.
    """

    source: int
    target: int
    instead: int
    reachable: bool
    largest: float
    divergence: float


@check_arguments
@torch.no_grad()
def influence(
    lab: "Lab",
    of: "Prompt",
    source: int,
    target: int,
    instead: int | None = None,
    cut: Collection[int] = (),
) -> Influence:
    """Compare the logits at `target` with and without another token at `source`.

    Both runs share the cache of the tokens before the source, and continue one token at a time. So
    every sum has the same order in both, and logits that the source cannot reach are bit for bit
    equal.

    Args:
        instead: by default the next id of the vocabulary.
        cut: layers limited to the window, each by a `NarrowWindow`.

    Raises:
        LabError: a position, layer or id does not exist, or `instead` is already the source's id.
    """
    tokens = lab.tokens_of(of)
    if not 0 <= target < len(tokens):
        raise LabError(f"the target is {target}; the positions are 0 to {len(tokens) - 1}")
    reachable = find_routes(lab.config, source, target, cut).hops is not None
    if instead is None:
        instead = (tokens[source] + 1) % lab.config.vocab_size
    check_tokens([instead], lab.config, name="the other token")
    if instead == tokens[source]:
        raise LabError(f"position {source} already holds {instead}; choose another token")
    window = lab.config.sliding_window
    narrowed = [n for n in sorted(set(cut)) if lab.config.window(n) is None and target >= window]
    changed = [*tokens[:source], instead, *tokens[source + 1 : target + 1]]
    with lab.intervene(*(NarrowWindow(layer=n, keys=window) for n in narrowed)):
        plain, other = run_both(lab, list(tokens[: target + 1]), changed, source)
    before, after = plain.double().log_softmax(-1), other.double().log_softmax(-1)
    return Influence(
        source,
        target,
        instead,
        reachable,
        float((plain - other).abs().max()),
        float((before.exp() * (before - after)).sum()),
    )


def run_both(
    lab: "Lab", plain: list[int], changed: list[int], source: int
) -> Iterator[Float[Tensor, "vocab"]]:
    """The last logits of two sequences that are equal before `source`."""
    engine = choose_engine(lab).engine
    before = build_cache(lab, plain[:source], engine)
    for tokens in (plain, changed):
        cache = before.fork()
        one_by_one = torch.tensor([tokens[source:]], device=lab.model.device).split(1, dim=1)
        logits = [run_forward(lab, here, cache, last=1, engine=engine)[0, 0] for here in one_by_one]
        yield logits[-1].float()
