"""Workstation only: from a network's graph to graphs that train it."""
