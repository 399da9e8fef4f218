"""How fast the model is on a CPU.

`python -m oss_lab.bench` compares it with transformers. `python -m oss_lab.bench.overhead` measures
what recording costs.
"""
