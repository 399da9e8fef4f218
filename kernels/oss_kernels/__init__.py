"""oss_kernels: the arithmetic under gpt-oss, one operation a folder, each with a readable reference.

It knows no model: `oss_lab` imports it, never the other way round.
"""
