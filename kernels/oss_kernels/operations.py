"""Every operation with Triton kernels, named after the folder that contains its `cases.py`."""

from collections.abc import Iterator
from importlib import import_module

from oss_kernels.cases import Case, Make
from oss_kernels.shapes import Shapes

OPERATIONS = (
    "rms_norm",
    "router",
    "experts",
    "swiglu_backward",
    "attention",
    "attention_backward",
    "mxfp4",
    "mxfp4_linear",
    "mxfp4_linear_backward",
    "linear",
    "qkv_rope",
    "unembed",
    "begin_step",
)


def make_operation_cases(operation: str, shapes: Shapes, make: Make) -> Iterator[Case]:
    """The cases of one operation at a model's sizes."""
    yield from import_module(f"oss_kernels.{operation}.cases").cases(shapes, make)
