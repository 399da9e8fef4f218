"""The proof that what a trace shows is what gpt-oss computes: `python -m oss_lab.proof`.

numpy_forward.py    an independent forward in NumPy and float64, every point of it
compare.py          a traced tensor against that one, token by token
settings.py         lengths, precisions and kernels that are gone through
transformers_forward.py     the quantities that transformers has, computed by it
"""
