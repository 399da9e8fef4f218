"""Which engine computes a request: the kernels if they can, the reference otherwise, or neither.

Nothing falls back silently: a choice holds its reason, and an engine that was named is never
replaced by another.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass

import torch
from oss_kernels.backends import Asked, Backend, UnusableBackend, choose

from oss_lab.engine.engine import Engine
from oss_lab.engine.kernels import KernelEngine
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.errors import LabError
from oss_lab.model import Transformer


@dataclass(frozen=True)
class Chosen:
    """An engine for a request.

    Attributes:
        reason: why the reference serves it although kernels were requested, or None.
    """

    engine: Engine
    reason: str | None = None


class Engines:
    """The engines over one model's weights.

    Attributes:
        kernels: None if only the reference was requested.
        is_auto: whether the reference serves what the kernels cannot.
    """

    def __init__(
        self, model: Transformer, kernels: Backend | None = None, *, is_auto: bool = False
    ) -> None:
        self.reference = ReferenceEngine(model)
        self.kernels = None
        if kernels is not None and kernels.name != "reference":
            self.kernels = KernelEngine(model, kernels)
        self.is_auto = is_auto

    @property
    def main(self) -> Engine:
        """The engine for requests that read and change nothing."""
        return self.kernels or self.reference

    def choose(self, reads: Collection[str] = (), writes: Collection[str] = ()) -> Chosen:
        """The engine for a request that reads and writes these lines of the forward.

        Raises:
            LabError: kernels were named that cannot serve it.
        """
        if self.kernels is None:
            return Chosen(self.reference)
        reason = self.kernels.refusal(reads, writes)
        if reason is None:
            return Chosen(self.kernels)
        if not self.is_auto:
            raise LabError(
                f"the {self.kernels.name} kernels cannot serve this request ({reason}): load the"
                ' model with kernels="auto" or kernels="reference"'
            )
        return Chosen(self.reference, reason)


def chosen_device(device: str | None) -> torch.device:
    """The requested device, or the best one available."""
    wanted = device or os.environ.get("OSS_LAB_DEVICE")
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
        return torch.device(wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"device {wanted!r} cannot be used here: {reason}") from None


def chosen_kernels(
    kernels: Asked | None, device: torch.device, default: Asked = "reference"
) -> tuple[Backend, bool]:
    """The requested kernels, if they can run on the device, and whether they are "auto"."""
    asked = kernels or os.environ.get("OSS_LAB_KERNELS") or default
    try:
        return choose(asked, device), asked == "auto"
    except UnusableBackend as error:
        raise LabError(str(error)) from None
