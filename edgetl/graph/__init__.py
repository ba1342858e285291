"""ONNX graphs: build, look up, run and observe, rewrite, simplify, measure."""
