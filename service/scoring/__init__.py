"""onnxruntime sessions, the three stages, and the batcher that packs requests into runs."""
