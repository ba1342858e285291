"""ONNX Runtime's training graph, in standard operators; one table of rules."""
