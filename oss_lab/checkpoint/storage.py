"""Find out how a folder stores its experts: packed as MXFP4, or dense.

The published names of dense experts are `gate_up_proj` and `down_proj`. transformers 5 writes a
dequantized model under the names of the packed blocks, `gate_up_proj_blocks`, without scales; such
tensors are found by their float dtype and get their published names here. All layers must have the
same storage. Recognized and refused: one tensor per expert, as unsloth and PEFT-trained 4-bit
models have them.
"""

import re

from oss_lab.checkpoint.defects import Examination
from oss_lab.checkpoint.fields import make_printable

FLOATS = ("BF16", "F16", "F32")
EXPERTS = re.compile(
    r"(?P<weight>model\.layers\.\d+\.mlp\.experts\.(gate_up|down)_proj"
    r"|block\.\d+\.mlp\.mlp[12]_weight)"
    r"(?P<part>[._](blocks|scales))?"
)
ONE_BY_ONE = re.compile(r"model\.layers\.\d+\.mlp\.experts\.(\w+_projs?\.\d+|\d+\.\w+)\..+")


def find_expert_storage(found: Examination) -> None:
    """Set `found.experts`, and give misnamed dense experts their published names."""
    dense: dict[str, str] = {}  # name in the folder -> published name
    packed: list[str] = []
    for name, located in found.tensors.items():
        match = EXPERTS.fullmatch(name)
        if match is None:
            continue
        if match["part"] is None:
            dense[name] = name
        elif match["part"].endswith("blocks") and located.dtype in FLOATS:
            dense.setdefault(name, match["weight"])
        else:
            packed.append(name)
    if not dense:
        return
    if packed:
        one, other = found.tensors[packed[0]], found.tensors[next(iter(dense))]
        what = f"stores some experts packed ({packed[0]} in {one.file.name}) and some dense"
        what += f" ({next(iter(dense))} in {other.file.name}, {other.dtype}); all layers need the"
        what += " same storage, so save the model again"
        found.add_defect("storage", f"{found.folder} {what}", other.file.name, next(iter(dense)))
    found.experts = "bf16"
    for name, published in dense.items():
        if name != published and published in dense:
            file = found.tensors.pop(name).file.name
            what = f"tensor {name} in {file} holds the same experts as {published}; remove one"
            found.add_defect("duplicate", what, file, name)
        elif name != published:
            found.tensors[published] = found.tensors.pop(name)


def find_experts_one_by_one(found: Examination) -> bool:
    """Whether each expert has its own tensors. If so, adds a defect."""
    for name, located in found.tensors.items():
        if ONE_BY_ONE.fullmatch(name):
            what = f"tensor {make_printable(name)} in {located.file.name} belongs to one expert,"
            what += " as in 4-bit training with unsloth; save the model with unsloth's"
            what += ' save_pretrained_merged(folder, tokenizer, save_method="merged_16bit") first'
            found.add_defect("layout", what, located.file.name, name)
            return True
    return False


def is_expert_weight(name: str) -> bool:
    """Whether a name is that of the experts' weights, in any storage."""
    return EXPERTS.fullmatch(name) is not None
