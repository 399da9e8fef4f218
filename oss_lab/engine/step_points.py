"""The points that a prepared decode step stores anyway, so recording them is a copy."""

from collections.abc import Sequence

from oss_lab.hooks.forward import ForwardHooks
from oss_lab.hooks.recording import Recording
from oss_lab.model.hook import Hooks, no_hooks

IN_LAYERS = frozenset(
    ("attn.sink_mass", "moe.router_logits", "moe.expert_ids", "moe.expert_weights", "moe.margin")
)
FROM_LOGITS = frozenset(("out.logits", "out.top_ids", "out.top_logprobs"))


def find_recordings(hooks: Hooks) -> Sequence[tuple[int, Recording]] | None:
    """The recordings and their rows of the batch; None if the hooks do more than a step can.

    A step stores every layer, head and token.
    """
    if hooks is no_hooks:
        return ()
    if not isinstance(hooks, ForwardHooks) or not hooks.only_record:
        return None
    for _, recording in hooks.recordings:
        selection = recording.selection
        if selection.heads is not None or selection.positions is not None:
            return None
        if not (IN_LAYERS | FROM_LOGITS).issuperset(selection.points):
            return None
    return hooks.recordings
