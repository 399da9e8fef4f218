"""Fine-tuning with LoRA: a few trained numbers on top of frozen weights, for any checkpoint.

    from oss_lab.finetune import finetune
    tuned = finetune("nano", "data.jsonl", "out", rank=8, epochs=3)
    tuned.lab.chat("...")

run.py          `finetune`: from a checkpoint and examples to LoRA files
load.py         `load_adapted`: a checkpoint with LoRA files, as a lab
recipe.py       every setting of a run
targets.py      the matrices that can get a low-rank part
examples.py     conversations in OpenAI's form, as tokens
loss_mask.py    which tokens count in the loss
packing.py      several examples in one row, each at position 0 and on its own
schedule.py     which rows each step reads, and its learning rate
lora.py         the low-rank parts
adapted.py      a model with low-rank parts
attention.py    attention that keeps no scores
frozen.py       products with frozen experts that keep no dense matrix
loss.py         nats per learned token
steps.py        one update
policy.py       reinforcement: updates from rewards
loop.py, log.py the training loop, and what it writes
files.py        LoRA files in PEFT's format
heap.py         memory that large models on a CPU give back
plan.py, activations.py     memory and work, before the run
curves.py       the log as a page of figures

The models compute with the reference modules of `oss_lab/model/`; attention and packed experts of
larger ones with kernels (`attention.py`).
"""

from oss_lab.finetune.load import load_adapted
from oss_lab.finetune.recipe import Recipe
from oss_lab.finetune.run import Finetuned, finetune

__all__ = ["Finetuned", "Recipe", "finetune", "load_adapted"]
