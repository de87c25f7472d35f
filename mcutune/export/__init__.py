"""Models for use elsewhere: a folder that moves alone (weights, model card, ONNX), and predictions from it."""
