"""The seam between the training loop and what computes a step."""
