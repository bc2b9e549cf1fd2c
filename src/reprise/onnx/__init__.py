"""The model in the ONNX format: exported, judged beside PyTorch's, and run without torch."""
