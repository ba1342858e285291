"""ONNX Runtime as it is installed here: sessions, execution providers, the machine."""
