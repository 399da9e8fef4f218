"""Every figure: a function from plain data to something shown and one sentence about it.

    tokens = plots.reply_tokens(reply, lab.tokenizer)
    plots.transcript(reply, lab.tokenizer)                   what was written, by channel
    plots.effort_comparison(replies, lab.tokenizer)          tokens by channel, an effort a bar
    plots.expert_map(ids, weights, tokens)                  the router's choices
    plots.expert_load(ids, experts=32)                      how the work is shared out
    plots.attention(pattern, sink_mass, tokens, config, heads=...)
    plots.sink_mass(sink_mass, config)                      what the sinks take, head by head
    plots.expert_effects(counterfactuals, lab.tokenizer)     what a token owes to each expert
    plots.logit_parts(attribution, lab.tokenizer)            what heads and experts add to a logit
    plots.logit_lens(lens, lab.tokenizer)                    what each layer would write
    plots.patching(patching, lab.tokenizer, tokens)          what another run's values bring back
    plots.commitment_curve(steps)                           the answer, had the thinking ended
    plots.accuracy(rows, totals, "nano")                    accuracy against thinking, by effort
    plots.kernel_speed(found)                               kernels beside the machine's limits

Values are parts of a `Trace`, whose axes have names, or arrays with the axes that a figure tells.
No figure runs a model. The figures of a training run are in `training.py` and
`training_groups.py`.
"""

from oss_lab.plots.accuracy import accuracy
from oss_lab.plots.attention import attention
from oss_lab.plots.commitment import commitment_curve
from oss_lab.plots.effort import effort_comparison
from oss_lab.plots.expert_effects import expert_effects
from oss_lab.plots.expert_load import expert_load
from oss_lab.plots.expert_map import expert_map
from oss_lab.plots.figure import Figure, Passage
from oss_lab.plots.kernel_speed import kernel_speed
from oss_lab.plots.logit_lens import logit_lens
from oss_lab.plots.logit_parts import logit_parts
from oss_lab.plots.patching import patching
from oss_lab.plots.sink_mass import sink_mass
from oss_lab.plots.transcript import transcript
from oss_lab.record.token_labels import TokenLabel, reply_tokens, token_labels

__all__ = [
    "Figure",
    "Passage",
    "TokenLabel",
    "accuracy",
    "attention",
    "commitment_curve",
    "effort_comparison",
    "expert_effects",
    "expert_load",
    "expert_map",
    "kernel_speed",
    "logit_lens",
    "logit_parts",
    "patching",
    "reply_tokens",
    "sink_mass",
    "token_labels",
    "transcript",
]
