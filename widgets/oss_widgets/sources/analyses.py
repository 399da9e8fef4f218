"""The analyses that views request by name, computed in Python; `js/source/source.js` lists them.

Each is a generator: it yields between its parts, so it can be canceled, and returns plain data.
Arrays are tensors, which the connection sends as binary buffers.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.commitment import commitment
from oss_lab.analysis.effort import effort_lens
from oss_lab.analysis.lens import read_layer
from oss_lab.errors import LabError, explain_unknown
from oss_lab.hooks.derived import layer_logits
from oss_lab.hooks.forward import open_hooks
from oss_lab.hooks.selection import is_integer
from oss_lab.hooks.step import ForwardPass
from oss_lab.lab import Lab
from oss_lab.record.token_labels import token_text
from oss_widgets.sources.microscope import flip_bit, read_block
from oss_widgets.sources.reading import fork_cache, record
from oss_widgets.sources.run import Run

Options = Mapping[str, Any]
Analysis = Generator[None, None, Any]
PATIENCE = 60.0  # seconds that marks may take without being confirmed
LENS_POSITIONS = 512  # per request


def analyze(run: Run, name: str, options: Options) -> Analysis:
    """Start the analysis of this name.

    Raises:
        LabError: there is none, or it does not take these options.
    """
    if name not in ANALYSES:
        raise LabError(explain_unknown("analysis", name, ANALYSES))
    return ANALYSES[name](run, options)


def read_position(run: Run, options: Options, first: int = 1) -> int:
    """The option `at`: the position of a token that another one precedes."""
    at = options.get("at")
    if not isinstance(at, int) or not first <= at < len(run.ids):
        raise LabError(f"at is {at!r}; choose a position from {first} to {len(run.ids) - 1}")
    return at


# Knock-outs


class OneSlotPerRow:
    """Hooks for copies of one token: row 0 is unchanged, each other row lacks one expert slot."""

    def __init__(self, layers: int, slots: int) -> None:
        self.slots, self.rows = slots, 1 + layers * slots
        self.chosen: list[Tensor] = []  # [slot] of row 0, one per layer

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if layer is None:
            return x
        if point == "moe.expert_ids":
            self.chosen.append(x[0, 0].clone())
        if point != "moe.expert_weights":
            return x
        slots = torch.arange(self.slots, device=x.device)
        x = x.clone()
        x[1 + layer * self.slots + slots, 0, slots] = 0
        return x


@torch.inference_mode()
def knock_out_slots(run: Run, at: int) -> dict[str, Any]:
    """The prediction of tokens[at] with each expert slot of the token before it knocked out.

    Returns:
        `logprob` in nats and `margin` in logits, unchanged; how both change, as
        `logprobChanges` and `marginChanges` [layer slot] float32; the likeliest token after each
        knock-out and the knocked-out experts, as `likeliest` and `expertIds` [layer slot] int32.
    """
    config = run.lab.config
    layers, slots = config.num_hidden_layers, config.experts_per_token
    changes = OneSlotPerRow(layers, slots)
    cache = fork_cache(run, at - 1).fork(batch=changes.rows)
    ids = torch.full((changes.rows, 1), run.ids[at - 1], device=run.lab.model.device)
    positions = cache.positions(1, ids.device).expand(changes.rows, -1)
    step = ForwardPass(ids, positions, False, tuple(range(changes.rows)))
    effects = [run.effects_at(at - 1)] * changes.rows
    reads, writes = ("moe.expert_ids", "moe.expert_weights"), ("moe.expert_weights",)
    made = [effect.intervention for effect in effects[0]]
    engine = run.lab.engines.choose(
        {*reads, *(name for each in made for name in each.READS)},
        {*writes, *(each.writes for each in made)},
    ).engine
    with open_hooks(step, effects, [None] * changes.rows, changes) as hooks:
        logits = engine.forward(ids, cache, last=1, hooks=hooks)[:, 0].float().cpu()
    target = run.ids[at]
    logprobs = logits.double().log_softmax(-1)[:, target]
    others = logits.clone()
    others[:, target] = -torch.inf
    margins = logits[:, target] - others.max(-1).values
    return {
        "logprob": float(logprobs[0]),
        "margin": float(margins[0]),
        "logprobChanges": (logprobs[1:] - logprobs[0]).float().view(layers, slots),
        "marginChanges": (margins[1:] - margins[0]).view(layers, slots),
        "likeliest": logits[1:].argmax(-1).int().view(layers, slots),
        "expertIds": torch.stack(changes.chosen).int().cpu(),
    }


def knock_out(run: Run, options: Options) -> Analysis:
    """The knock-outs for the token `at`."""
    yield
    return knock_out_slots(run, read_position(run, options))


def knock_out_marks(run: Run, options: Options) -> Analysis:
    """The largest change of the log-probability at each generated token, [seq] in nats.

    It is NaN in the prompt.

    Raises:
        LabError: it would take longer than PATIENCE, and the option `anyway` is not set.
    """
    largest = torch.full((len(run.ids),), torch.nan)
    positions = range(run.prompt_length, len(run.ids))
    began = time.perf_counter()
    for done, at in enumerate(positions):
        yield
        changes = knock_out_slots(run, at)["logprobChanges"]
        largest[at] = changes.abs().max()
        expected = (time.perf_counter() - began) / (done + 1) * len(positions)
        if done == 2 and expected > PATIENCE and not options.get("anyway"):
            raise LabError(
                f"marking {len(positions)} tokens takes about {expected:.0f} s with this model;"
                " look at single tokens, or at a shorter reply"
            )
    return {"largest": largest}


# What each layer predicts


@torch.inference_mode()
def lens(run: Run, options: Options) -> Analysis:
    """Every layer's prediction after positions from ... to - 1; the target is the next token.

    Returns:
        [layer][position] of cells, as `describe_cells` writes them.
    """
    lab, end = run.lab, len(run.ids) - 1
    begin, to = options.get("from") or 0, options.get("to")
    to = min(to, end) if isinstance(to, int) else end if to is None else to
    top = options.get("top") or 5
    if not (isinstance(begin, int) and isinstance(to, int) and 0 <= begin < to):
        raise LabError(f"the range {begin!r} to {to!r} has no token; choose one below {end}")
    if to - begin > LENS_POSITIONS:
        raise LabError(f"the lens reads at most {LENS_POSITIONS} tokens at a time; choose fewer")
    if not is_integer(top) or not 1 <= top <= lab.config.vocab_size:
        raise LabError(f"top is {top!r}; it must be from 1 to {lab.config.vocab_size}")
    yield
    found = record(run, ["resid.post", "out.logits"], None, begin, to)
    targets = torch.tensor(run.ids[begin + 1 : to + 1])
    final, layers = found["out.logits", None].float(), []
    for layer in range(lab.config.num_hidden_layers):
        yield
        resid = found["resid.post", layer].to(lab.model.device)[None]
        logits = layer_logits(lab.model, layer, resid)[0].float().cpu()
        layers.append(describe_cells(run, read_layer(logits, final, targets, top)))
    return layers


def describe_cells(run: Run, parts: tuple[Tensor, ...]) -> list[dict[str, Any]]:
    """One LensCell per position."""
    names = ("topIds", "topLogprobs", "rank", "logprob", "entropy", "divergence")
    rows = zip(*(part.tolist() for part in parts), strict=True)
    cells: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    for cell in cells:
        cell["topTexts"] = [token_text(run.lab.tokenizer, id) for id in cell["topIds"]]
    return cells


# The analyses of `oss_lab`, under the interventions of the run


@contextmanager
def intervene(run: Run) -> Iterator[Lab]:
    """The lab under the interventions of a run.

    Raises:
        LabError: they changed inside the run.
    """
    if len(run.spans) > 1 and any(made for _, made in run.spans):
        raise LabError(
            "this run has interventions from the middle on; ask the question again with them from"
            " the start"
        )
    with run.lab.intervene(*run.interventions) as effects:
        yield run.lab
        effects.each = []  # the view shows the effect; do not warn in the cell


def parts_of_logit(run: Run, options: Options) -> Analysis:
    """What the embedding, biases [layer], heads [layer head] and slots [layer slot] add to the
    logit of the token `at`."""
    at = read_position(run, options)
    yield
    with intervene(run) as lab:
        found = attribution(lab, run.ids, at - 1, run.ids[at])
    layers = range(lab.config.num_hidden_layers)
    chosen = [run.recording.get("moe.expert_ids", layer, at - 1, at)[0] for layer in layers]
    return {
        "logit": found.logit,
        "embedding": found.embedding,
        "bias": found.bias.tolist(),
        "heads": found.heads.tolist(),
        "slots": found.slots.tolist(),
        "expertIds": [each.tolist() for each in chosen],
    }


def commitment_steps(run: Run, _: Options) -> Analysis:
    """The answer if the thinking ended earlier, step by step; log-probabilities in nats."""
    yield
    with intervene(run) as lab:
        steps = commitment(lab, run.reply)
    names = ("kept", "thought", "answer", "logprob")
    return {"steps": [{name: getattr(step, name) for name in names} for step in steps]}


def compare_efforts(run: Run, _: Options) -> Analysis:
    """The question of a run at every effort; divergences [layer] in bits.

    Raises:
        LabError: the run does not answer a question.
    """
    prompt = run.exchanges[0].builder.prompt
    if prompt is None:
        raise LabError("this run does not answer a question, so no effort applies to it")
    yield
    with intervene(run) as lab:
        found = effort_lens(lab, prompt, max_tokens=run.settings.max_tokens)
    efforts = [
        {"effort": effort, "answer": reply.final, "tokens": dict(found.tokens[effort])}
        for effort, reply in found.replies.items()
    ]
    pairs = [
        {
            "efforts": list(pair),
            "divergence": found.divergence[pair].tolist(),
            "byChance": found.by_chance[pair].tolist(),
        }
        for pair in found.divergence
    ]
    return {"efforts": efforts, "pairs": pairs}


# Four bits


def block(run: Run, options: Options) -> Analysis:
    """The bytes and the values of an MXFP4 block."""
    yield
    return read_block(run.lab, options)


def flip(run: Run, options: Options) -> Analysis:
    """What one flipped bit changes in the prediction of the token `at`."""
    at = read_position(run, options)
    yield
    return flip_bit(run.lab, run.ids[:at], options, run.effects_at(at - 1))


ANALYSES: dict[str, Callable[[Run, Options], Analysis]] = {
    "knockOut": knock_out,
    "knockOutMarks": knock_out_marks,
    "lens": lens,
    "attribution": parts_of_logit,
    "commitment": commitment_steps,
    "effortLens": compare_efforts,
    "block": block,
    "flipBit": flip,
}
