"""A run as one page, and as pictures."""
