"""Sources of views without a model: a trace, or the caller's own tokens."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.record.trace import Trace
from oss_widgets.sources.kernel import KernelSource
from oss_widgets.sources.stored_run import StoredRun, read_text_run, read_trace_run


class TraceSource(KernelSource):
    """What a trace recorded; nothing is computed."""

    def __init__(self, trace: Trace) -> None:
        super().__init__("trace", find_config(trace))
        self.trace = trace
        self.points = {name: list(trace.layers_of(name)) or None for name in trace.selection.points}
        self.runs = [read_trace_run(trace)]
        self.shown = self.runs[0]

    def read_point(
        self, run: StoredRun, name: str, layer: int | None, begin: int, end: int
    ) -> Tensor:
        tensor = self.trace.tensor(name, layer)
        if name == "attn.sink":
            return tensor
        kept = self.trace.positions
        if missing := set(range(begin, end)) - set(kept):
            raise LabError(f"this trace did not record position {min(missing)}")
        first = kept.index(begin)
        return tensor[first : first + end - begin]


class TextSource(KernelSource):
    """Tokens of the caller, for an array with one number or row per token."""

    def __init__(self, tokens: Sequence[str], config: Mapping[str, int]) -> None:
        super().__init__("your array", config)
        self.runs = [read_text_run(tokens)]
        self.shown = self.runs[0]


FIELDS = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts",
    "experts_per_token",
)
SIZES = {
    "attn.sink_mass": "num_attention_heads",
    "moe.router_logits": "num_experts",
    "moe.expert_ids": "experts_per_token",
}
"""Points whose last axis is a field of the configuration."""


def find_config(trace: Trace) -> dict[str, int]:
    """The sizes of the traced model; from an older file, which has no configuration, those that its
    points show.
    """
    if trace.config is not None:
        return {field: getattr(trace.config, field) for field in FIELDS}
    found = {"num_hidden_layers": trace.layers}
    for name, field in SIZES.items():
        if name in trace.selection.points:
            found[field] = trace.tensor(name, trace.layers_of(name)[0]).shape[-1]
    if "num_experts" not in found and "moe.expert_ids" in trace.selection.points:
        layers = trace.layers_of("moe.expert_ids")
        ids = (trace.tensor("moe.expert_ids", layer) for layer in layers)
        found["num_experts"] = 1 + max(int(each.max()) for each in ids)
    if "num_attention_heads" in found:
        found["num_key_value_heads"] = found["num_attention_heads"] // trace.heads_per_kv_head
    return found
