"""The split model: `Transformer` over the part of one process, with layers that sum the parts.

Its forward pass is that of the reference model. Only four modules differ: the embedding, the output
of attention and the experts (`experts.py`) sum what each process computes, and the unembedding
gathers the logits.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.engine.parallel.experts import SplitExperts
from oss_lab.engine.parallel.part import Part
from oss_lab.engine.parallel.processes import Processes
from oss_lab.engine.parallel.whole_hooks import WholeHooks
from oss_lab.errors import LabError
from oss_lab.model.experts import MakeExperts, PackedExperts
from oss_lab.model.hook import Hooks, check_hooks, no_hooks
from oss_lab.model.parts import Parts
from oss_lab.model.past import NoPast, Past
from oss_lab.model.transformer import Block, Transformer, check_call


class SplitTransformer(Transformer):
    """The part of one process of a model that `processes` hold together.

    Its logits are those of the whole model, the same bits in every process. Keys and values, and so
    the KV cache, are those of this process's kv heads. `make_mixture` is `SplitExperts` or a
    subclass.

    Raises:
        LabError: the model cannot be split over so many processes.
    """

    def __init__(
        self,
        config: ModelConfig,
        processes: Processes,
        make_experts: MakeExperts = PackedExperts,
        make_mixture: Callable[..., SplitExperts] = SplitExperts,
    ) -> None:
        part = Part(config, processes.rank, processes.count)
        heads = config.num_attention_heads // processes.count
        kv_heads = config.num_key_value_heads // processes.count
        own = replace(config, num_attention_heads=heads, num_key_value_heads=kv_heads)
        super().__init__(own, make_experts)
        self.config, self.processes, self.part = config, processes, part
        hidden, rows = config.hidden_size, part.vocab.stop - part.vocab.start
        self.embedding = SplitEmbedding(rows, hidden, part.vocab.start, processes)
        for block in self.block:
            block = cast(Block, block)
            block.attn.out = SummedLinear(block.attn.out.in_features, hidden, processes)
            block.mlp = make_mixture(config, part.experts, make_experts, processes)
        self.unembedding = GatheredLinear(hidden, rows, processes)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch last vocab"]:
        """As `Transformer.forward`. Hooks get whole values, and must do the same in every process.

        Raises:
            LabError: the processes were given other tokens, or their hooks changed other values.
        """
        check_call(tokens, self.config.vocab_size, last)
        check_hooks(hooks)
        past = NoPast() if past is None else past
        points = [] if hooks is no_hooks else sorted(getattr(hooks, "points", None) or ["any"])
        positions = past.positions(tokens.shape[1], tokens.device).tolist()
        call = (tokens.tolist(), positions, last, points)
        self.processes.check_same("tokens, positions or points", repr(call).encode())
        if hooks is no_hooks:
            return super().forward(tokens, past, last=last)
        whole = WholeHooks(hooks, self.processes)
        logits = super().forward(tokens, past, last=last, hooks=whole)
        self.processes.check_same("changes by hooks", whole.changes.digest())
        return logits

    def require_whole(self, what: str) -> NoReturn:
        raise LabError(
            f"{what} needs all weights in one process, and this model is split over"
            f" {self.processes.count}; load it without parallel=True"
        )

    def with_parts(self, parts: Parts) -> NoReturn:
        self.require_whole("replacing parts")


class SplitEmbedding(nn.Embedding):
    """The rows of the embedding from `first` on; other tokens come from other processes."""

    def __init__(self, rows: int, hidden: int, first: int, processes: Processes) -> None:
        super().__init__(rows, hidden, _weight=torch.empty(rows, hidden))  # see Transformer
        self.first, self.processes = first, processes

    def forward(self, input: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq hidden"]:
        row = input - self.first
        is_elsewhere = (row < 0) | (row >= self.num_embeddings)
        x = F.embedding(row.masked_fill(is_elsewhere, 0), self.weight)
        return self.processes.all_reduce(x.masked_fill(is_elsewhere[..., None], 0))


class SummedLinear(nn.Linear):
    """A linear layer whose columns are split: each process computes a part of every output."""

    def __init__(self, columns: int, rows: int, processes: Processes) -> None:
        super().__init__(columns, rows)
        self.processes = processes

    def forward(self, input: Float[Tensor, "... columns"]) -> Float[Tensor, "... rows"]:
        part = F.linear(input, self.weight).float()
        return (self.processes.all_reduce(part) + self.bias.float()).to(input.dtype)


class GatheredLinear(nn.Linear):
    """A linear layer without a bias whose rows are split: each process computes some outputs."""

    def __init__(self, columns: int, rows: int, processes: Processes) -> None:
        super().__init__(columns, rows, bias=False)
        self.processes = processes

    def forward(self, input: Float[Tensor, "... columns"]) -> Float[Tensor, "... rows"]:
        return self.processes.all_gather(F.linear(input, self.weight), dim=-1)
