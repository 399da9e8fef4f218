"""One MXFP4 block of an expert: its bytes and values, and what one flipped bit changes.

A flip never writes to the model, which other threads may use: a model that shares all else with it
has a changed copy of the layer's matrices.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from oss_kernels import mxfp4
from torch import Tensor, nn

from oss_lab.engine.cache import KVCache
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.forward import open_hooks
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection, is_integer
from oss_lab.hooks.step import ForwardPass
from oss_lab.lab import Lab
from oss_lab.model.experts import ExpertCache, PackedExperts
from oss_lab.model.transformer import Block, Transformer
from oss_lab.record.token_labels import token_text
from oss_widgets.sources.kernel import read_object

MATRICES = {"gate_up": "mlp1_weight", "down": "mlp2_weight"}
SCALE_BIT = 128  # the first bit of the scale; the weights' bits come before it
TOP = 5


def find_experts(lab: Lab, place: Mapping[str, Any]) -> tuple[PackedExperts, tuple[int, int, int]]:
    """The matrices of a layer, and (expert, row, block) of a place.

    Raises:
        LabError: there is no such place, or the experts are not stored in four bits.
    """
    for name in ("layer", "expert", "row", "block"):
        if not is_integer(place.get(name)):
            raise LabError(f"{name} must be an integer, got {place.get(name)!r}")
    if str(place.get("matrix")) not in MATRICES:
        raise LabError(f"matrix must be gate_up or down, got {place.get('matrix')!r}")
    check_index("layer", place["layer"], lab.config.num_hidden_layers)
    layer = cast(Block, lab.model.block[place["layer"]])
    packed = getattr(layer.mlp, MATRICES[place["matrix"]])
    if not isinstance(packed, PackedExperts):
        raise LabError("the experts of this model are stored in BF16, not in MXFP4 blocks")
    experts, rows, blocks, _ = packed.blocks.shape
    where = place["expert"], place["row"], place["block"]
    for name, n, count in zip(
        ("expert", "row", "block"), where, (experts, rows, blocks), strict=True
    ):
        if not 0 <= n < count:
            raise LabError(f"{name} {n} is out of range; this matrix has 0 to {count - 1}")
    return packed, where


def describe_block(blocks: Tensor, scales: Tensor, where: tuple[int, int, int]) -> dict[str, Any]:
    """A Block of `js/source/source.js`."""
    packed, scale = blocks[where].cpu(), scales[where].cpu()
    return {
        "packed": packed.clone(),
        "scale": int(scale),
        "values": mxfp4.dequantize(packed[None], scale[None]),
    }


def read_block(lab: Lab, place: Mapping[str, Any]) -> dict[str, Any]:
    """The bytes and the values of a block."""
    packed, where = find_experts(lab, place)
    return describe_block(packed.blocks, packed.scales, where)


def flip_bit(
    lab: Lab, ids: Sequence[int], options: Mapping[str, Any], effects: tuple[Effect, ...]
) -> dict[str, Any]:
    """What a flipped bit changes in the forward pass of `ids`, on the reference engine.

    Raises:
        LabError: there is no such place or bit, or the flip breaks the model.
    """
    place, bit = read_object("place", options.get("place")), options.get("bit")
    packed, where = find_experts(lab, place)
    if not isinstance(bit, int) or not 0 <= bit < SCALE_BIT + 8:
        raise LabError(f"bit is {bit!r}; a block has bits 0 to {SCALE_BIT + 7}")
    before, output = read_layer(lab, lab.model, ids, place["layer"], effects)
    flipped = copy_flipped(packed, where, bit)
    changed = describe_block(flipped.blocks, flipped.scales, where)
    if changed["scale"] == mxfp4.NAN_SCALE:
        raise LabError("this flip makes the scale 255, which is not a number; flip another bit")
    path = f"block.{place['layer']}.mlp.{MATRICES[place['matrix']]}"
    after, other = read_layer(
        lab, replace_module(lab.model, path, flipped), ids, place["layer"], effects
    )
    if not after.isfinite().all():
        raise LabError("with this bit flipped, the logits are not finite; flip a lower bit")
    size = output.square().mean().sqrt()
    return {
        "block": changed,
        "outputChange": float((other - output).square().mean().sqrt() / size),
        "before": list_top(lab, before),
        "after": list_top(lab, after),
    }


def copy_flipped(packed: PackedExperts, where: tuple[int, int, int], bit: int) -> PackedExperts:
    """A copy of a layer's matrices in which one bit is flipped."""
    found = copy.copy(packed)
    found.cache = ExpertCache()
    blocks, scales = packed.blocks, packed.scales
    if bit < SCALE_BIT:
        blocks = blocks.clone()
        blocks[(*where, bit // 8)] ^= 1 << bit % 8
    else:
        scales = scales.clone()
        scales[where] ^= 1 << (bit - SCALE_BIT)
    found._buffers = {"blocks": blocks, "scales": scales}
    return found


def replace_module(module: Any, path: str, part: nn.Module) -> Any:
    """A module with another part at a path; it shares all others with `module`."""
    name, _, rest = path.partition(".")
    found = copy.copy(module)
    inner = replace_module(found.get_submodule(name), rest, part) if rest else part
    found._modules = {**module._modules, name: inner}
    return found


@torch.inference_mode()
def read_layer(
    lab: Lab, model: Transformer, ids: Sequence[int], layer: int, effects: tuple[Effect, ...]
) -> tuple[Tensor, Tensor]:
    """`model`'s last logits [vocab], and `moe.out` of a layer at the last token [hidden]."""
    recording = Recording(model, Selection.of(["moe.out"], [layer], None, [len(ids) - 1]))
    row = torch.tensor([list(ids)], device=lab.model.device)
    cache = KVCache(lab.config)
    step = ForwardPass(row, cache.positions(len(ids), row.device), True, (0,))
    with open_hooks(step, [effects], [recording]) as hooks:
        logits = ReferenceEngine(model).forward(row, cache, last=1, hooks=hooks)
    return logits[0, -1].float().cpu(), recording.tensors()["moe.out", layer][0].float()


def list_top(lab: Lab, logits: Tensor) -> list[dict[str, Any]]:
    """The likeliest next tokens, as alternatives."""
    best = logits.log_softmax(-1).topk(TOP)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        {"id": id, "text": token_text(lab.tokenizer, id), "logprob": logprob}
        for id, logprob in pairs
    ]
