"""Read a LoRA adapter in PEFT's format as changes to the tensors of a checkpoint.

A folder has adapter_config.json and adapter_model.safetensors. Supported targets: every linear
layer, the embedding, the router, and the experts in two forms. PEFT's `target_parameters` stack all
experts of a layer; unsloth has one linear layer per expert. `modules_to_save` and trained biases
replace whole tensors. `adapter_config.py` checks the configuration.

Every tensor becomes a change, or the adapter is refused. `merge.py` applies the changes. Not
recognized: stacked experts trained by unsloth-zoo before September 2026, which read B expert by
expert, unlike PEFT (unsloth-zoo#1269).
Source: peft 0.21.2, tuners/lora/layer.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.checkpoint.adapter_config import AdapterConfig, read_adapter_config
from oss_lab.checkpoint.fields import make_printable
from oss_lab.checkpoint.header import HeaderError, read_header
from oss_lab.checkpoint.layouts import stored_table
from oss_lab.config import ModelConfig
from oss_lab.errors import CheckpointError

WEIGHTS = "adapter_model.safetensors"
FLOATS = ("BF16", "F16", "F32", "F64")
PREFIX = "base_model.model."
FACTOR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.(weight|bias))?")
WRAPPER = re.compile(r"\.base_layer|\.modules_to_save(?:\.default)?")
UNSLOTH_EXPERT = re.compile(r"(.+\.mlp\.experts\.)(gate_up|down)_projs\.(\d+)")
EXPERTS = ".mlp.experts"
OTHER_BASE = "merge into the model that the adapter was trained on"
NO_SUCH_LAYER = f"adapts a layer that this model does not have; {OTHER_BASE}"


@dataclass(frozen=True)
class LowRank:
    """Add scale * up @ down to a tensor, or to one expert's matrix."""

    name: str
    expert: int | None
    up: Float[Tensor, "outputs rank"]
    down: Float[Tensor, "rank inputs"]
    scale: float


@dataclass(frozen=True)
class Replacement:
    """Replace a tensor, or one expert's matrix, which is outputs x inputs."""

    name: str
    expert: int | None
    tensor: Float[Tensor, "*shape"]


Change = LowRank | Replacement


@dataclass(frozen=True)
class Adapter:
    """The changes that an adapter makes, by Hugging Face name and number of the expert.

    Attributes:
        notes: what a user should know; each is one sentence.
    """

    folder: Path
    changes: Mapping[tuple[str, int | None], list[Change]]
    notes: tuple[str, ...]


def read_adapter(folder: Path, config: ModelConfig, base: str) -> Adapter:
    """Read the adapter in `folder` for a model with this configuration.

    Args:
        base: the name of the model it will be merged into, compared with the adapter's.

    Raises:
        CheckpointError: the adapter is of another kind or for another model, or has a tensor that
            cannot be merged.
    """
    settings = read_adapter_config(folder)
    reader = _Reader(settings, config, _read_tensors(folder / WEIGHTS))
    changes: dict[tuple[str, int | None], list[Change]] = {}
    for change in reader.read():
        others = changes.setdefault((change.name, change.expert), [])
        if any(type(other) is type(change) for other in others):
            raise CheckpointError(f"{folder / WEIGHTS} changes {change.name} twice; save it again")
        others.append(change)
    notes = [*settings.compare_base(base), *reader.notes]
    for target in settings.target_parameters:
        if not any(f".{name}".endswith(f".{target}") for name, _ in changes):
            notes.append(f"target_parameters lists {target}, but {WEIGHTS} has no tensor for it")
    return Adapter(folder, changes, tuple(notes))


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if not file.exists():
        if file.with_suffix(".bin").exists():
            raise CheckpointError(
                f"{file.with_suffix('.bin')} is a pickle file, which can run code when read; save"
                " the adapter as safetensors"
            )
        raise CheckpointError(f"{file.parent} contains no {WEIGHTS}; save the adapter with PEFT")
    try:
        header = read_header(file)
    except HeaderError as error:
        raise CheckpointError(f"{file} {error}; copy the adapter again") from None
    if not header:
        raise CheckpointError(f"{file} contains no tensor; train the adapter, then save it")
    for name, located in header.items():
        if located.dtype not in FLOATS:
            raise CheckpointError(
                f"tensor {make_printable(name)} in {file.name} is {located.dtype}; save the"
                " adapter in a float dtype, not quantized"
            )
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"tensor {make_printable(name)} in {file.name} contains NaN or infinity; train the"
                " adapter again"
            )
    return tensors


Pairs = dict[tuple[str, bool], dict[str, Tensor]]
"""The factors of each module, and whether they are an embedding's."""


class _Reader:
    """Turns the tensors of one adapter into changes."""

    def __init__(self, settings: AdapterConfig, config: ModelConfig, tensors: dict[str, Tensor]):
        self.settings, self.config, self.tensors = settings, config, tensors
        stored = stored_table(config, "huggingface", "bf16")
        self.shapes = {each.name: each.shape for each in stored}
        self.notes: list[str] = []

    def read(self) -> Iterator[Change]:
        pairs: Pairs = {}
        for name, tensor in self.tensors.items():
            match = FACTOR.fullmatch(name)
            if match is None:
                yield from self._replace(name, tensor)
                continue
            module, is_embedding, letter, kind = match.groups()
            key = f"{letter}.bias" if kind == "bias" else letter
            pairs.setdefault((module, bool(is_embedding)), {})[key] = tensor
        for (module, _), parts in pairs.items():
            self._check_factors(module, parts)
        self.exchanged = self._find_orientation(pairs)
        for (module, is_embedding), parts in pairs.items():
            yield from self._read_pair(module, is_embedding, parts)

    def _check_factors(self, module: str, parts: dict[str, Tensor]) -> None:
        if not {"A", "B"} <= parts.keys() <= {"A", "B", "B.bias"}:
            has, lacks = ("A", "B") if "A" in parts else ("B", "A")
            raise self._refuse(f"{module}.lora_{has}", f"has no lora_{lacks}; save it again")
        for letter in "AB":
            if parts[letter].ndim != 2:
                raise self._refuse(f"{module}.lora_{letter}", "is not a matrix; save it again")

    def _read_pair(
        self, module: str, is_embedding: bool, parts: dict[str, Tensor]
    ) -> Iterator[Change]:
        a, b = parts["A"], parts["B"]
        layer = _find_layer(module)
        if is_embedding:
            a, b = b.T, a.T
        if layer.endswith(EXPERTS):
            yield from self._read_stacked(module, layer, a, b)
            return
        expert, name = None, f"{layer.removesuffix('.linear')}.weight"
        if unsloth := UNSLOTH_EXPERT.fullmatch(layer):
            expert, name = int(unsloth[3]), f"{unsloth[1]}{unsloth[2]}_proj"
        shape = self._matrix_shape(module, name, expert)
        if (b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]:
            raise self._refuse_shape(module, a, b, shape)
        scale = self.settings.scale(layer, a.shape[0])
        yield LowRank(name, expert, b, a, scale)
        if "B.bias" in parts:
            if expert is not None:
                raise self._refuse(f"{module}.lora_B.bias", "is a bias of an expert; train none")
            shift, bias = parts["B.bias"], name.removesuffix("weight") + "bias"
            if self.shapes.get(bias) != tuple(shift.shape):
                raise self._refuse(f"{module}.lora_B.bias", "fits no bias of this model")
            yield LowRank(bias, None, shift[:, None], torch.ones(1, 1), scale)

    def _matrix_shape(self, module: str, name: str, expert: int | None) -> tuple[int, ...]:
        shape = self.shapes.get(name, ())
        if expert is not None and len(shape) == 3 and expert < shape[0]:
            return shape[:0:-1]  # stored as experts x inputs x outputs
        if expert is None and len(shape) == 2:
            return shape
        raise self._refuse(f"{module}.lora_A", NO_SUCH_LAYER)

    def _read_stacked(self, module: str, layer: str, a: Tensor, b: Tensor) -> Iterator[LowRank]:
        """The factors of one parameter of all experts, recognized by their shapes.

        PEFT stacks the ranks of all experts: A is [experts * rank, inputs], expert by expert; B is
        [outputs, rank * experts], rank by rank.
        """
        if f"{layer}.gate_up_proj" not in self.shapes:
            raise self._refuse(f"{module}.lora_A", NO_SUCH_LAYER)
        experts, total = self.config.num_experts, a.shape[0]
        fits = self._find_stacked(layer, a, b)
        if fits and total == b.shape[1] and total % experts == 0:
            name, exchanged = fits[0]
            exchanged = self.exchanged if len(fits) == 2 else exchanged
            scale = self.settings.scale(name, total // experts)
            downs = a.view(experts, -1, a.shape[1])
            ups = b.view(b.shape[0], -1, experts).permute(2, 0, 1)
            if exchanged:
                downs, ups = ups.mT, downs.mT
            for expert, (up, down) in enumerate(zip(ups, downs, strict=True)):
                yield LowRank(name, expert, up, down, scale)
            return
        for name in (f"{layer}.gate_up_proj_bias", f"{layer}.down_proj_bias"):
            if (b.shape[0], a.shape[1]) == self.shapes.get(name) and total == b.shape[1]:
                yield LowRank(name, None, b, a, self.settings.scale(name, total))
                return
        raise self._refuse_shape(module, a, b, self.shapes.get(f"{layer}.gate_up_proj", ()))

    def _find_stacked(self, layer: str, a: Tensor, b: Tensor) -> list[tuple[str, bool]]:
        """The experts' parameter that has these inputs and outputs, or has them exchanged.

        There are two results if inputs and outputs are equal.
        """
        fits = []
        for name in (f"{layer}.gate_up_proj", f"{layer}.down_proj"):
            _, *sides = self.shapes.get(name, (0,))
            fits += [(name, False)] * (sides == [a.shape[1], b.shape[0]])
            fits += [(name, True)] * (sides == [b.shape[0], a.shape[1]])
        return fits

    def _find_orientation(self, pairs: Pairs) -> bool:
        """Whether the experts' inputs and outputs are exchanged.

        PEFT 0.19.1 and later exchange them under transformers 4. Where a parameter is square, as
        down_proj is in 20b and 120b, only another parameter of the adapter shows it.
        """
        square = None
        for (module, _), parts in pairs.items():
            layer = _find_layer(module)
            fits = self._find_stacked(layer, parts["A"], parts["B"])
            if layer.endswith(EXPERTS) and len(fits) == 1:
                return fits[0][1]
            square = fits[0][0] if layer.endswith(EXPERTS) and fits else square
        if square:
            self.notes.append(
                f"the shape of {square} does not show whether inputs and outputs are exchanged"
                " (PEFT 0.19.1 and later do so under transformers 4); assumed that they are not"
            )
        return False

    def _replace(self, name: str, tensor: Tensor) -> Iterator[Replacement]:
        target = _find_layer(name)
        if target not in self.shapes:
            raise self._refuse(name, "belongs to no layer of this model or is not LoRA; remove it")
        shape = self.shapes[target]
        if tuple(tensor.shape) != shape:
            raise self._refuse(
                name,
                f"has shape {list(tensor.shape)}, not {list(shape)}; {OTHER_BASE}",
            )
        if len(shape) < 3:
            yield Replacement(target, None, tensor)
        else:
            yield from (Replacement(target, e, each.T) for e, each in enumerate(tensor))

    def _refuse(self, tensor: str, what: str) -> CheckpointError:
        return CheckpointError(f"tensor {make_printable(tensor)} in {WEIGHTS} {what}")

    def _refuse_shape(
        self, module: str, a: Tensor, b: Tensor, shape: tuple[int, ...]
    ) -> CheckpointError:
        factors = f"{list(a.shape)} and {list(b.shape)}"
        what = f"and lora_B have shapes {factors}, which do not fit {list(shape)}"
        return self._refuse(f"{module}.lora_A", f"{what}; {OTHER_BASE}")


def _find_layer(name: str) -> str:
    """The name of a module in the base model, without PEFT's prefix and wrappers."""
    return WRAPPER.sub("", name.removeprefix(PREFIX))
