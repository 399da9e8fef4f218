"""Look-ups beyond the sliding window, and the model whose layers all see the window only."""

from random import Random

import torch

from oss_lab.config import GPT_OSS_NANO
from oss_lab.nano.studies import window


def test_the_windowed_model_has_the_same_weights_and_sees_no_further_than_the_window(
    untrained, untrained_run
):
    config = untrained.config
    cut = window.cut_to_window(untrained, untrained_run / "checkpoint")
    for name, tensor in untrained.model.state_dict().items():
        assert torch.equal(tensor, cut.model.state_dict()[name])
    assert {cut.config.window(n) for n in range(config.num_hidden_layers)} == {32}
    reach = config.num_hidden_layers * (config.sliding_window - 1)
    tokens = [1 + n % 50 for n in range(reach + 2)]
    other = [99, *tokens[1:]]
    # Not bit for bit: the number of tokens of an expert may change the order of its sums.
    torch.testing.assert_close(cut.logits(tokens, 1), cut.logits(other, 1), atol=1e-4, rtol=0)
    assert (untrained.logits(tokens, 1) - untrained.logits(other, 1)).abs().max() > 1e-2


def test_look_ups_are_beyond_the_window_and_within_it(untrained):
    rng = Random(0)
    for _ in range(50):
        beyond = window.TASKS["beyond"].draw(rng, "held_out")
        within = window.TASKS["within"].draw(rng, "held_out")
        assert window.measure_span(untrained, beyond) > 2 * GPT_OSS_NANO.sliding_window
        assert window.measure_span(untrained, within) <= GPT_OSS_NANO.sliding_window
        assert window.count_pairs(beyond) >= 4
        assert window.count_pairs(within) == 3
