"""The deployed file: written, proven, used, measured and verified."""
