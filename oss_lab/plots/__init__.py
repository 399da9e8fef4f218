"""Every figure: a function from plain data to a figure and one sentence about it.

    tokens = plots.label_reply(reply, lab.tokenizer)
    plots.transcript(reply, lab.tokenizer)                   the reply's tokens, by channel
    plots.effort_comparison(replies, lab.tokenizer)          tokens by channel, one bar per effort
    plots.expert_map(ids, weights, tokens)                   the router's choices
    plots.expert_load(ids, experts=32)                       how evenly the experts are used
    plots.attention(pattern, sink_mass, tokens, config, heads=...)
    plots.attention_row(weights, sink, tokens)               one query of one head, and its sink
    plots.sink_mass(sink_mass, config)                       attention on each head's sink
    plots.expert_effects(counterfactuals, lab.tokenizer)     each expert's effect on a prediction
    plots.logit_parts(attribution, lab.tokenizer)            what heads and experts add to a logit
    plots.logit_lens(lens, lab.tokenizer)                    what each layer would predict
    plots.patching(patching, lab.tokenizer, tokens)          what values of another run restore
    plots.commitment_curve(steps)                            the answer if the thinking ended early
    plots.differences(apart)                                 where two models differ
    plots.next_token(ways, lab.tokenizer)                    the most likely next tokens
    plots.lift(series)                                       what experts prefer, with intervals
    plots.accuracy(rows, totals, "nano")                     accuracy by effort
    plots.kernel_speed(found)                                kernels and the machine's limits
    plots.context_cost(report)                               a step's time by context
    plots.reach({"nano": earliest}, 221)                     how far information travels
    plots.cache_size(tokens, {"all layers": sizes})          bytes of the KV cache by length
    plots.stream_size({"stream": resid})                     root mean squares, layer by layer
    plots.clock_hands(frequencies, (217, 219))               RoPE's rotations at two positions
    plots.pair_turns({"RoPE": frequencies}, config)          turns of each pair, and YaRN's limits

Arguments are parts of a `Trace`, whose axes have names, or arrays with the axes that each function
documents. No figure runs a model. `print(figure)` shows the sentence, and `figure.table()` the
values. The figures of a training run are in `training.py` and `training_groups.py`.
"""

from oss_lab.plots.accuracy import accuracy
from oss_lab.plots.attention import attention
from oss_lab.plots.attention_row import attention_row
from oss_lab.plots.cache_size import cache_size
from oss_lab.plots.clock_hands import clock_hands
from oss_lab.plots.commitment import commitment_curve
from oss_lab.plots.context_cost import context_cost
from oss_lab.plots.differences import differences
from oss_lab.plots.effort import effort_comparison
from oss_lab.plots.expert_effects import expert_effects
from oss_lab.plots.expert_load import expert_load
from oss_lab.plots.expert_map import expert_map
from oss_lab.plots.figure import Figure, Passage
from oss_lab.plots.kernel_speed import kernel_speed
from oss_lab.plots.lift import lift
from oss_lab.plots.logit_lens import logit_lens
from oss_lab.plots.logit_parts import logit_parts
from oss_lab.plots.next_token import next_token
from oss_lab.plots.pair_turns import pair_turns
from oss_lab.plots.patching import patching
from oss_lab.plots.reach import reach
from oss_lab.plots.sink_mass import sink_mass
from oss_lab.plots.stream_size import stream_size
from oss_lab.plots.transcript import transcript
from oss_lab.record.token_labels import TokenLabel, label_reply, label_token_ids

__all__ = [
    "Figure",
    "Passage",
    "TokenLabel",
    "accuracy",
    "attention",
    "attention_row",
    "cache_size",
    "clock_hands",
    "commitment_curve",
    "context_cost",
    "differences",
    "effort_comparison",
    "expert_effects",
    "expert_load",
    "expert_map",
    "kernel_speed",
    "label_reply",
    "label_token_ids",
    "lift",
    "logit_lens",
    "logit_parts",
    "next_token",
    "pair_turns",
    "patching",
    "reach",
    "sink_mass",
    "stream_size",
    "transcript",
]
