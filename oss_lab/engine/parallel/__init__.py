"""One model in the memory of several processes, on one machine or more.

    torchrun --nproc-per-node 2 -m oss_lab generate "What is 3 * 4?" --model 20b --parallel

Attention (by kv heads), the embedding and the unembedding (by rows) are split by tensor
parallelism, and the experts by expert parallelism. Small weights (norms, routers, biases of sums)
are in every process. All processes run the same requests. They sum their parts of each layer's two
outputs with all-reduce and collect the logits with all-gather, so all sample the same tokens.

processes.py   the processes, and how they exchange tensors
part.py        which part of every tensor belongs to which process
model.py       the split model: `Transformer` over parts that add up
experts.py     its mixture of experts
whole_hooks.py calls hooks with the whole values
kernels.py     the engine that computes the experts with a kernel

Left out: a scheduler across machines. `oss_lab.connect` talks to servers that have one.
"""
