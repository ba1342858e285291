"""A run on the disk, its report, and runs side by side."""
