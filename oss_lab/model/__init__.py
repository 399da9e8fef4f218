"""The gpt-oss transformer, one concept a file; this is the specification that kernels are held to.

Read in order: `hook`, `norm`, `rope`, `past`, `attention`, `experts`, `moe`, `transformer`.
Everything is batch first, runs on any device in float32 or bfloat16, and computes in the precisions
of the published checkpoints: norms, softmaxes and activations in float32, everything else in the
weights' dtype.

Axis names in the signatures: batch, seq (the new tokens), key (cached and new tokens), head
(query heads), kv_head, head_dim, hidden (the residual stream), expert, slot (the chosen experts of
a token, by falling router logit), width (an expert's intermediate size), vocab.
"""

from oss_lab.model.hook import Hooks, Recorder, no_hooks
from oss_lab.model.transformer import Transformer

__all__ = ["Hooks", "Recorder", "Transformer", "no_hooks"]
