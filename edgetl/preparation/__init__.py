"""Workstation only: a pretrained network to a directory that can be trained."""
