"""Operators that ONNX Runtime cannot differentiate, in operators that it can; one table of rules."""
