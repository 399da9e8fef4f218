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
    Score,
    SinkSoftmax,
    VisibleKeys,
    attention_scores,
    softmax_with_sink,
    visible_keys,
)
from oss_lab.model.experts import Decode
from oss_lab.model.moe import (
    Activate,
    Choose,
    Split,
    Weigh,
    choose_experts,
    clamped_swiglu,
    split_gate_up,
    weigh_experts,
)
from oss_lab.model.norm import Normalize, rms_norm
from oss_lab.model.rope import (
    Concentration,
    Frequencies,
    rotate,
    yarn_concentration,
    yarn_frequencies,
)


@dataclass(frozen=True)
class Parts:
    """The functions of a model, by their role; the defaults are the published model's."""

    rms_norm: Normalize = rms_norm
    rotate: Rotate = rotate
    yarn_frequencies: Frequencies = yarn_frequencies
    yarn_concentration: Concentration = yarn_concentration
    visible_keys: VisibleKeys = visible_keys
    attention_scores: Score = attention_scores
    softmax_with_sink: SinkSoftmax = softmax_with_sink
    choose_experts: Choose = choose_experts
    weigh_experts: Weigh = weigh_experts
    split_gate_up: Split = split_gate_up
    swiglu: Activate = clamped_swiglu
    mxfp4: Decode = mxfp4.dequantize


PUBLISHED = Parts()
