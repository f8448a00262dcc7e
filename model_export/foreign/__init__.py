"""Models from elsewhere: one ONNX graph and a YAML file about it -> a bundle of a single stage.

Needs onnx and onnxruntime, not torch.
"""
