"""The parts of a model: the functions that it computes with, which can be replaced.

    Transformer(config, parts=Parts(rms_norm=my_rms_norm))

Each field is a function of this folder (the decoder comes from the kernels), and each is passed on
to the module that calls it. A replacement takes the same arguments and returns the same shapes.
`oss_lab/course/parts.py` describes them for learners and checks what they return.
"""

from dataclasses import dataclass

from oss_kernels import mxfp4

from oss_lab.model.attention import (
    Rotate,
    SinkSoftmax,
    VisibleKeys,
    softmax_with_sink,
    visible_keys,
)
from oss_lab.model.experts import Decode
from oss_lab.model.moe import (
    Activate,
    Choose,
    Weigh,
    choose_experts,
    clamped_swiglu,
    weigh_experts,
)
from oss_lab.model.norm import Normalize, rms_norm
from oss_lab.model.rope import Frequencies, rotate, yarn_frequencies


@dataclass(frozen=True)
class Parts:
    """The functions of a model, by their role; the defaults are the published model's."""

    rms_norm: Normalize = rms_norm
    rotate: Rotate = rotate
    yarn_frequencies: Frequencies = yarn_frequencies
    visible_keys: VisibleKeys = visible_keys
    softmax_with_sink: SinkSoftmax = softmax_with_sink
    choose_experts: Choose = choose_experts
    weigh_experts: Weigh = weigh_experts
    swiglu: Activate = clamped_swiglu
    mxfp4: Decode = mxfp4.dequantize


PUBLISHED = Parts()
