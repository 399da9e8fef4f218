"""The gpt-oss transformer in plain PyTorch, to be read.

The kernels of this project, faster versions of the same computation, are tested against it. Start
with the docstring of `transformer.py`, which describes the way from token ids to logits. Then read
in this order:

1. `hook.py`: the line `x = hook("attn.q", x)`, which exposes a value of the forward pass
2. `norm.py`: RMSNorm
3. `rope.py`: how a query and a key know their positions (RoPE, stretched by YaRN)
4. `past.py`: the keys and values of earlier tokens (the KV cache, seen from the model)
5. `attention.py`: attention with grouped queries, a sliding window and sinks
6. `experts.py`: where an expert's weight matrices come from
7. `moe.py`: the mixture of experts
8. `parts.py`: the functions that the model computes with, which can be replaced
9. `transformer.py`: the whole model, from token ids to logits

Each step is a module-level function of tensors and plain numbers, such as `rms_norm(x, scale, eps)`
or `softmax_with_sink(scores, sinks)`. The modules hold the weights and call these functions.

Words for the axes of a tensor, in this order, always with the batch first:

    batch     sequences computed together (rows: batch, or 1 if all sequences share the value)
    seq       the new tokens of a sequence
    key       the tokens that can be attended to: the cached ones, then the new ones
    hidden    the width of the residual stream, the vector per token that all layers read and add to
    head      query heads
    kv_head   key/value heads; each one serves a group of query heads
    head_dim  the width of one head
    expert    the experts of a layer
    slot      the chosen experts of a token, largest router logit first
    width     the width inside an expert
    vocab     the tokens of the vocabulary

The code runs on any device, in float32 or bfloat16. Norms, softmaxes and the activation are
computed in float32, as in the published model; everything else is in the dtype of the weights.
"""

from oss_lab.model.hook import Hooks, Recorder, no_hooks
from oss_lab.model.transformer import Transformer

__all__ = ["Hooks", "Recorder", "Transformer", "no_hooks"]
