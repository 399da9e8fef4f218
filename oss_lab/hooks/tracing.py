"""From a selection to a trace: one run through the tokens with a recording on the model's taps."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import tiktoken

from oss_lab.engine.generate import read
from oss_lab.hooks.interventions.changes import Both, Changes
from oss_lab.hooks.points import needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection, where
from oss_lab.model import Taps, Transformer, untapped
from oss_lab.record.token_labels import TokenLabel, token_labels
from oss_lab.record.trace import Origin, Trace
from oss_lab.version import __version__


def traced(
    model: Transformer,
    encoding: tiktoken.Encoding | None,
    tokens: Sequence[int],
    selection: Selection,
    checkpoint: str | None,
    changes: Taps = untapped,
) -> Trace:
    """The trace of a sequence that is run from its beginning, under changes if there are any."""
    recording = Recording(model, selection)
    first_kept = 0 if needs_logits(selection.points) else len(tokens)
    taps = recording if changes is untapped else Both(changes, recording)
    for _ in read(model, tokens, first_kept, taps):
        pass
    kernels = model.computed_by(taps)
    return assembled(model, encoding, tokens, recording, checkpoint, changes, kernels=kernels)


def assembled(
    model: Transformer,
    encoding: tiktoken.Encoding | None,
    tokens: Sequence[int],
    recording: Recording,
    checkpoint: str | None,
    changes: Taps,
    *,
    kernels: str,
    seed: int | None = None,
) -> Trace:
    """What a recording kept, with what each token is and where it all comes from.

    Without a vocabulary nothing is known of the tokens.
    """
    config = model.config
    return Trace(
        tokens=tuple(tokens),
        labels=labelled(encoding, tokens),
        selection=recording.selection,
        layers=config.num_hidden_layers,
        heads_per_kv_head=config.num_attention_heads // config.num_key_value_heads,
        tensors={where(*key): tensor for key, tensor in recording.tensors().items()},
        origin=origin(model, checkpoint, changes, kernels=kernels, seed=seed),
    )


def origin(
    model: Transformer, checkpoint: str | None, changes: Taps, *, kernels: str, seed: int | None
) -> Origin:
    """Where what this model computes here and now comes from."""
    made = changes.effects if isinstance(changes, Changes) else ()
    return Origin(
        checkpoint=checkpoint,
        kernels=kernels,
        dtype=str(model.embedding.weight.dtype).removeprefix("torch."),
        device=model.device.type,
        seed=seed,
        interventions=tuple(str(effect.of_what) for effect in made),
        versions={
            "oss_lab": __version__,
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    )


def labelled(encoding: tiktoken.Encoding | None, tokens: Sequence[int]) -> tuple[TokenLabel, ...]:
    if encoding is None:
        return tuple(TokenLabel(f"<token {token}>") for token in tokens)
    return token_labels(encoding, tokens)
