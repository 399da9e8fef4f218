"""Operations with gradients, for fine-tuning: a forward and a backward kernel in one function each.

Read `attention`, `packed_linear` and `swiglu`; `experts` is made of the last two. README.md says
what each saves and computes again.
"""
