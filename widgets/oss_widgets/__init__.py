"""oss_widgets: what a person touches in a notebook; each widget draws what `oss_lab` computed.

Empty so far: the tour uses stock ipywidgets.
"""
