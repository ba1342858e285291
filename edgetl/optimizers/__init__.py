"""A file for each optimizer, and the registry that knows them."""
