"""oss_widgets: interactive widgets for notebooks; they show what `oss_lab` computes.

`effort`: ask a question at any reasoning effort.
"""
