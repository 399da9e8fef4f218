"""One model in the memory of several processes, on one machine or more.

    torchrun --nproc-per-node 2 -m oss_lab generate "What is 3 * 4?" --model 20b --parallel

Attention is split by its key and value heads and the experts one by one; the tables of the
vocabulary, which are the embedding and the unembedding, are split by rows. What is small (norms,
routers, biases of sums) is in every process. All processes run the same requests. They add up their
parts of each layer's two outputs, and gather the logits, so all of them sample the same tokens.

processes.py   the processes, and what they send each other
part.py        which part of every tensor belongs to which process
model.py       the split model: `Transformer` over parts that add up
experts.py     its mixture of experts
whole_hooks.py shows hooks the whole values
kernels.py     the engine that computes the experts with a kernel

Left out: a scheduler across machines. `oss_lab.connect` talks to servers that have one.
"""
