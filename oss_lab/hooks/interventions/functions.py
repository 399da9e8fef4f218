"""Your own function as an intervention.

Every other intervention is data that can be saved and replayed. A `Hook` runs code, so it is
compared by identity, and printed with only the function's name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.base import Intervention, format_value
from oss_lab.hooks.interventions.fields import CHANNELS, FUNCTION, POINT, REQUIRED
from oss_lab.hooks.points import HIDDEN_KEY_VALUES, POINTS


@dataclass(frozen=True)
class Here:
    """Where a hook is called.

    Attributes:
        layer: None outside the layers.
        positions, token_ids: positions and ids of the tokens that the function gets.
        row: number of the sequence in the batch; 0 for a single sequence.
        is_prefill: True while the prompt is read, False during decode (one token at a time).
    """

    layer: int | None
    point: str
    positions: Int[Tensor, "seq"]
    token_ids: Int[Tensor, "seq"]
    row: int
    is_prefill: bool


@dataclass(frozen=True, eq=False)
class Hook(Intervention):
    """Call `fn(x, here)` at a point and continue with what it returns.

    `fn` gets the tokens of one row at a time, never padding. x is a copy with the axes of a trace:
    [seq ...], or [head] at attn.sink. `fn` may edit x in place and return None, or return a tensor
    of the same shape and dtype. Gradients flow through it, and its exceptions reach the caller.

    A key axis has every position from 0 to the last new token. Keys that a sliding layer has
    already dropped are filled in as in a trace; changing them has no effect.

    Attributes:
        channels: one channel or several; `fn` gets only the tokens of messages on them.
    """

    point: str = field(default=REQUIRED, metadata=POINT)
    fn: Callable[[Tensor, Here], Tensor | None] = field(default=REQUIRED, metadata=FUNCTION)
    channels: str | Iterable[str] | None = field(default=None, metadata=CHANNELS, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._by_token and (self.positions is not None or self.channels is not None):
            raise LabError(
                f"Hook: {self.point} is the same for every token; leave positions and channels out"
            )

    # Compared by identity, since equal code may close over different values.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    MAY_ONLY_OBSERVE: ClassVar[bool] = True

    @property
    def _by_token(self) -> bool:
        return "seq" in POINTS[self.point].axes

    @property
    def writes(self) -> str:
        return self.point

    @property
    def needs_channels(self) -> bool:
        return self.channels is not None

    def select_tokens(self, at: At) -> Bool[Tensor, "row seq"]:
        selected = super().select_tokens(at)
        if self.channels is None:
            return selected
        if at.channels is None:
            raise LabError(
                f"{self}: the channels of these tokens are unknown; use positions instead"
            )
        names = cast("tuple[str, ...]", self.channels)
        wanted = [[channel in names for channel in row] for row in at.channels]
        return selected & torch.tensor(wanted, dtype=torch.bool, device=selected.device)

    def change(self, x: Tensor, at: At) -> Tensor:
        if not self._by_token:
            return self._change_rows(x, at)
        by_head = POINTS[self.point].has_head_axis
        tokens = x.transpose(1, 2) if by_head else x
        index = self.select_tokens(at).nonzero(as_tuple=True)
        call = self._call_keys if "key" in POINTS[self.point].axes else self._call
        changed = [
            call(tokens[row, columns], at, row, columns)
            for row in range(len(at.rows))
            if len(columns := index[1][index[0] == row])
        ]
        if not changed:
            return x
        tokens = tokens.index_put(index, torch.cat(changed))
        return tokens.transpose(1, 2) if by_head else tokens

    def _change_rows(self, x: Tensor, at: At) -> Tensor:
        """Change a point without a token axis: [row ...], or [...] if all rows share the value.

        A value that several rows share is returned as [row ...], since the rows may now differ.
        """
        shared = x.ndim == len(POINTS[self.point].axes)
        rows = x.expand(len(at.rows), *x.shape) if shared else x
        selected = self.select_tokens(at)
        changed = [
            self._call(each.clone(), at, row, columns)
            if len(columns := selected[row].nonzero()[:, 0])
            else each
            for row, each in enumerate(rows)
        ]
        stacked = torch.stack(changed)
        return stacked[0] if shared and len(changed) == 1 else stacked

    def _call_keys(self, x: Tensor, at: At, row: int, columns: Int[Tensor, "token"]) -> Tensor:
        """Same as `_call`, but the key axis starts at position 0.

        Padding is removed, and keys that a sliding layer has dropped are filled in.
        """
        keys = int(at.positions[row, -1]) + 1
        absent = x.shape[-1] - keys
        if absent == 0:
            return self._call(x, at, row, columns)
        # Negative padding removes keys.
        given = F.pad(x, (-absent, 0), value=HIDDEN_KEY_VALUES[self.point])
        result = self._call(given, at, row, columns)
        return torch.cat((x[..., : max(0, absent)], result[..., max(0, -absent) :]), dim=-1)

    def _call(self, x: Tensor, at: At, row: int, columns: Int[Tensor, "token"]) -> Tensor:
        """Call `fn` on these tokens of a row; x is a copy that it may edit."""
        here = Here(
            at.layer,
            self.point,
            at.positions[row, columns],
            at.token_ids[row, columns],
            at.rows[row],
            at.is_prefill,
        )
        expected = _describe(x)
        # Leave inference mode, because `fn` may use its tensors in a backward pass later.
        with torch.inference_mode(False), torch.set_grad_enabled(x.requires_grad):
            x = x.clone() if x.is_inference() else x
            result = self.fn(x, here)
        result = x if result is None else result
        found = _describe(result)
        if found != expected:
            where = self.point if at.layer is None else f"{self.point} in layer {at.layer}"
            raise LabError(
                f"the hook {self._name} at {where} must return None or {expected}, got {found}"
            )
        return cast(Tensor, result)

    @property
    def _name(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __str__(self) -> str:
        layer, fn = f"layer={format_value(self.layer)}", f"fn={self._name}"
        parts = [self.point, fn] if self.layer is None else [self.point, layer, fn]
        for name in ("positions", "channels"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{name}={format_value(value)}")
        return f"Hook({', '.join(parts)})"


def _describe(value: Any) -> str:
    """Shape, dtype and device of a tensor; the type of anything else."""
    if not isinstance(value, Tensor):
        return f"a value of type {type(value).__name__}"
    kind = str(value.dtype).removeprefix("torch.")
    return f"a {kind} tensor {list(value.shape)} on {value.device}"
