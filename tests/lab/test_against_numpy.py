"""The model against an independent forward pass in NumPy and float64, with unusual
configurations.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oss_lab.hooks.points import FORWARD_POINTS, POINTS
from oss_lab.model import Recorder
from oss_lab.proof.numpy_forward import numpy_forward


@pytest.mark.parametrize(
    "changes",
    [{}, {"swiglu_limit": 0.75, "layer_types": ("full_attention", "sliding_attention")}],
    ids=["published", "tight clamp, full layer first"],
)
def test_every_compared_point_agrees(
    tiny_config, changes, scaled_tensors, random_model, untied_tokens
):
    config = replace(tiny_config, **changes)
    model = random_model(config)
    tokens = untied_tokens(model, 1, 40)
    weights = {
        name: tensor.numpy() if tensor.dtype == torch.uint8 else tensor.double().numpy()
        for name, tensor in scaled_tensors(config).items()
    }
    expected = numpy_forward(config, weights, tokens[0].numpy())
    watch = Recorder(FORWARD_POINTS)
    model(tokens, hooks=watch)
    assert watch.seen.keys() == {key for key in expected if key[0] in FORWARD_POINTS}
    for (name, layer), (ours,) in watch.seen.items():
        value = expected[name, layer]
        ours = ours[0]
        ours = ours.transpose(0, 1) if POINTS[name].has_head_axis else ours
        np.testing.assert_allclose(
            ours.double().numpy(), value, atol=2e-5, rtol=2e-5, err_msg=f"{name} of layer {layer}"
        )
