"""The proof that a trace contains what gpt-oss computes: `python -m oss_lab.proof`.

numpy_forward.py            an independent forward pass in NumPy and float64, with every point
transformers_forward.py     the points that transformers exposes, computed by transformers
compare.py                  compares a traced tensor with either of them, token by token
settings.py                 which lengths, precisions and kernels are tested
"""
