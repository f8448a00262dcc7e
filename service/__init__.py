"""The FastAPI scorer. Never imports torch or model_export."""

import os

# onnxruntime reports usage to its maker unless told not to before it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
