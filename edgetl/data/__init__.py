"""Folders, tables, archives and arrays to samples, and samples to what a network takes."""
