"""oss_kernels: the arithmetic under gpt-oss, one operation a folder, each with its reference.

It knows no model: `oss_lab` imports it, never the other way round.
"""
