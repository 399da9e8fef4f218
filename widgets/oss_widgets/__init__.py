"""oss_widgets: what a person touches in a notebook; each widget draws what `oss_lab` computed.

`effort`: one question, asked at each reasoning effort.
"""
