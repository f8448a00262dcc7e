"""Calibration: scores that are probabilities in earnest, so that formulas may multiply them.

held-out scores -> platt | isotonic -> outputs (in joint.onnx) and the manifest
"""
