"""How fast the model is on a CPU: `python -m oss_lab.bench`, beside transformers, and
`python -m oss_lab.bench.overhead`, with recording beside without.
"""
