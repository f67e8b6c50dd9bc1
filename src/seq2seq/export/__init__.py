"""Trained models without PyTorch: as ONNX files, and as a faster backend for prediction. Nothing else depends on it."""
