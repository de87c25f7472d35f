"""The model: MCLA with shared and private adapters, DPFT, encoders; everything with a lane axis.

Axes, in every docstring of this package:
    P lanes of a pack · C combinations · B rows of a batch (or dialogues, where T follows) · T utterances of a dialogue
    M modalities · D features of a modality · W width of a representation · R rank (padded) · K classes (1: a value)
    N rows
"""
