"""Train multi-task ranking models in torch and export them as bundles.

Never imports the service.
"""

import os

# onnxruntime reports usage to its maker unless told not to before it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
