"""The model in the ONNX format: exported, judged beside PyTorch's, and run without torch."""

import os

# onnxruntime reads it when it is imported. Otherwise it keeps a database of events in the user's home, for Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
