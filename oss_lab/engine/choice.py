"""Chooses the engine for a request: the kernels if they can serve it, otherwise the reference.

No fallback is silent. With kernels="auto", a fallback to the reference engine comes with its
reason. Kernels that you name are never replaced: a request that they cannot serve is an error.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass

import torch
from oss_kernels.backends import Backend, KernelChoice, UnusableBackend, choose_backend

from oss_lab.engine.engine import Engine
from oss_lab.engine.kernels import DENSE_REFUSAL, KernelEngine
from oss_lab.engine.parallel.kernels import SplitKernelEngine
from oss_lab.engine.parallel.model import SplitTransformer
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.errors import LabError, shorten
from oss_lab.model import Transformer
from oss_lab.model.experts import has_dense_experts


@dataclass(frozen=True)
class EngineChoice:
    """The engine chosen for a request.

    Attributes:
        reason: why the reference engine serves it although kernels were requested, or None.
    """

    engine: Engine
    reason: str | None = None


class Engines:
    """The engines that share one model's weights.

    Attributes:
        kernels: the kernel engine; None if only the reference engine was requested.
        is_auto: whether the reference engine serves what the kernels cannot.
        requested: the kernels that were requested, used or not.
    """

    def __init__(
        self,
        model: Transformer,
        kernels: Backend | None = None,
        *,
        is_auto: bool = False,
        parts: tuple[str, ...] = (),
    ) -> None:
        self.reference = ReferenceEngine(model, parts)
        self.kernels: Engine | None = None
        self.is_auto, self.requested = is_auto, kernels
        self._reason: str | None = None  # why the reference engine serves everything
        if kernels is not None and kernels.name != "reference":
            if parts:
                self._reason = f"the kernels cannot run replaced parts: {', '.join(parts)}"
            elif is_auto and has_dense_experts(model):
                self._reason = f"the kernels read {DENSE_REFUSAL}"
            elif isinstance(model, SplitTransformer):
                self.kernels = SplitKernelEngine(model, kernels)
            else:
                self.kernels = KernelEngine(model, kernels)

    @property
    def main(self) -> Engine:
        """The engine for requests that record and change nothing."""
        return self.kernels or self.reference

    def choose(self, reads: Collection[str] = (), writes: Collection[str] = ()) -> EngineChoice:
        """Choose the engine for a request that reads and writes these points.

        Raises:
            LabError: the kernels were requested by name and cannot serve it.
        """
        if self.kernels is None:
            return EngineChoice(self.reference, self._reason)
        reason = self.kernels.explain_refusal(reads, writes)
        if reason is None:
            return EngineChoice(self.kernels)
        if not self.is_auto:
            raise LabError(
                f"the {self.kernels.name} kernels cannot serve this request ({reason}); load the"
                ' model with kernels="auto" or kernels="reference"'
            )
        return EngineChoice(self.reference, reason)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The requested device (or OSS_LAB_DEVICE), otherwise a GPU if there is one, otherwise the CPU.

    Raises:
        LabError: the requested device cannot be used.
    """
    name = (os.environ.get("OSS_LAB_DEVICE") or None) if device is None else device
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if torch.empty(0, device=name).device.type != "meta":
            return torch.device(name)
        reason = "it holds no values"
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
    usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    # PyTorch's longer reasons list every device that it supports anywhere.
    why = f" ({reason})" if len(reason) <= 60 else ""
    raise LabError(
        f"device {shorten(str(name), 40)!r} cannot be used here{why}: use {' or '.join(usable)}"
    )


def choose_kernels(
    kernels: KernelChoice | None, device: torch.device, default: KernelChoice = "reference"
) -> tuple[Backend, bool]:
    """The requested kernels, and whether the request was "auto".

    Raises:
        LabError: they are unknown or cannot run on the device.
    """
    name = kernels or os.environ.get("OSS_LAB_KERNELS") or default
    try:
        return choose_backend(name, device), name == "auto"
    except UnusableBackend as error:
        raise LabError(str(error)) from None
